/* What the files of the service share. */
#ifndef TOWLINE_SERVICES_TRACKING_TRACKING_IMPL_H
#define TOWLINE_SERVICES_TRACKING_TRACKING_IMPL_H

#include "services/tracking/compared.h"
#include "services/tracking/ranges.h"
#include "services/tracking/tracking.h"

struct tw_epoch {
    bool used;
    char name[TW_TRACKING_NAME_SIZE];
    struct tw_machine machine;   /* enum tw_epoch_state */
    struct tw_tracker *tracker;  /* NULL while arming */
    struct tw_tracker *accessed; /* of a session that wants loads */
    bool in_pass;                /* the pass under way began after it was asked for */
    uint64_t not_before_ns;      /* of a paced collect */
    uint64_t began_ns;           /* the present epoch */
    struct tw_error failure;     /* of the last arming or collecting */
    struct tw_figures figures;   /* of what was collected, as far as it was read */
    bool unread;                 /* figures are not in the session's total yet */
    bool accessed_unread;        /* nor those of accessed lines */
    struct tw_regions regions;
    /* What was heard of in the present epoch; becomes figures and `bytes` when it ends. */
    uint64_t heard_bytes, heard_clean;
    struct tw_regions heard, bytes;
    struct tw_compared comparing, compared; /* of the present epoch, of the collected one */
    struct tw_shared_lines sharing, shared; /* of the present epoch, of the collected one */
};

/* A program and its attachment; shared by its sessions. */
struct tw_tracked {
    struct tw_tracking *tracking;
    uint64_t pid;
    struct tw_tracking_wish wish; /* what it was attached with */
    struct tw_attachment at;
    unsigned sessions, with_loads, with_bytes; /* that have it, that want loads, contents of it */
    bool passing;
    bool last;   /* the pass under way is over what the program left behind */
    bool let_go; /* the program was held when the pass under way began */
    bool ended;
    struct tw_error end; /* why */
    struct tw_tracked *next;
};

struct tw_tracking_session {
    struct tw_tracked *program;
    uint64_t id;
    uint32_t owner;
    char why[TW_TRACKING_WHY_SIZE];
    uint64_t shared, shared_falsely; /* in the last collected epoch */
    struct tw_tracked_ranges ranges;
    bool counts_bytes; /* contents are compared, and no page is asked for in part */
    bool loads;        /* accessed lines are told, too */
    bool bytes;        /* has it compare contents */
    void *watch;       /* NULL = not watching */
    struct tw_epoch epochs[TW_TRACKING_EPOCHS_MAX];
    struct tw_figures total, last;
    struct tw_tracking_session *next;
};

struct tw_tracking {
    struct tw_tracking_env env;
    struct tw_tracked *programs;
    struct tw_tracking_session *sessions;
    unsigned session_count;
    uint64_t next_id;
};

static inline enum tw_epoch_state tw_epoch_state(const struct tw_epoch *epoch)
{
    return (enum tw_epoch_state)epoch->machine.state;
}

/* Which lines were stored to in vain: who sees each store and compares knows. */
static inline bool tw_tracking_counts_same(const struct tw_tracking_session *session)
{
    return session->counts_bytes && session->program->at.same_value_is_dirty;
}

void tw_epoch_free(struct tw_epoch *epoch); /* stops its tracker */
/* A page that a pass found; for the program's attachment. */
void tw_tracked_told(void *program, const struct tw_told *told);
/* The pass that it waited for is complete, has failed, or the program has ended. */
void tw_epoch_passed(struct tw_tracking_session *session, struct tw_epoch *epoch);
void tw_epoch_pass_failed(struct tw_epoch *epoch, const struct tw_error *err);
void tw_epoch_program_ended(struct tw_tracking_session *session, struct tw_epoch *epoch);

/* Advances a program; returns when it wants to be called again. */
uint64_t tw_tracked_step(struct tw_tracked *program, uint64_t slice_ns);

#endif
