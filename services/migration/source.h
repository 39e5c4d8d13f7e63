/* The source side, as its own files see it. Internal to the service.
 *
 *   source.c           the table, what others may ask, how it ends
 *   source_precopy.c   the states in which the VM runs
 *   source_switch.c    the states in which it is stopped
 *   source_postcopy.c  what follows the VM instead of going before it
 *   source_recover.c   the path was lost, or the agent, while lines follow
 *   source_mirror.c    what follows is kept at a third host before the VM moves
 *   source_copy.c      gathering: from pages and lines to chunks
 *   source_pace.c      slowing the writers of hot lines */
#ifndef TOWLINE_SERVICES_MIGRATION_SOURCE_H
#define TOWLINE_SERVICES_MIGRATION_SOURCE_H

#include "services/migration/convergence.h"
#include "services/migration/foresight.h"
#include "services/migration/found.h"
#include "services/migration/growth.h"
#include "services/migration/hot_lines.h"
#include "services/migration/line_hash.h"
#include "services/migration/line_set.h"
#include "services/migration/meter.h"
#include "services/migration/mutations.h"
#include "services/migration/pacing.h"
#include "services/migration/side.h"
#include "services/migration/throttle.h"

enum tw_source_state {
    TW_SOURCE_NEW,
    TW_SOURCE_CONNECTING,
    TW_SOURCE_ANNOUNCING,
    TW_SOURCE_FULL_COPY,
    TW_SOURCE_WAITING,
    TW_SOURCE_ROUND,
    TW_SOURCE_PRECOMPARE,
    TW_SOURCE_STOPPING,
    TW_SOURCE_FINAL_PASS,
    TW_SOURCE_COMPARE,
    TW_SOURCE_SENDING_MAP,
    TW_SOURCE_SAVING_STATE,
    TW_SOURCE_SENDING_STATE,
    TW_SOURCE_VERIFYING,
    TW_SOURCE_MIRRORING,
    TW_SOURCE_HOOK,
    TW_SOURCE_GIVING_UP,
    TW_SOURCE_GIVEN_UP,
    TW_SOURCE_SERVING,
    TW_SOURCE_PATH_LOST,
    TW_SOURCE_COMPLETED,
    TW_SOURCE_RESUMING,
    TW_SOURCE_ABORTED,
    TW_SOURCE_LOST,
    TW_SOURCE_STATES
};

/* Work of one step: a few milliseconds at most. */
#define TW_SLICE_BYTES (UINT64_C(2) << 20) /* read or hashed while the VM runs */
#define TW_FINAL_SLICE_BYTES                                                                       \
    (UINT64_C(1) << 20)                   /* while it is stopped: the host saves meanwhile         \
                                           */
#define TW_ROUND_INTERVAL_NS (10 * TW_MS) /* between two collections */
#define TW_DIRTY_BATCH       256u

/* The walk over memory that may hold something: what next_data names, and between that, pages of
 * which something was sent and that have become a hole since. */
struct tw_data_walk {
    uint64_t page;       /* next */
    uint64_t start, end; /* pages of the data range that comes next or is under way */
};

struct tw_copy {
    uint8_t *payload; /* the open chunk; NULL = none */
    struct tw_chunk_writer writer;
    uint64_t page, lines; /* not yet in a chunk: no room or no credit */
    struct tw_data_walk walk;
    struct tw_dirty_page batch[TW_DIRTY_BATCH]; /* read from the tracker, not yet gathered */
    size_t batch_count, batch_next;
    struct tw_control_totals totals;
    uint64_t round_cost; /* record bytes of the round, were no line zero */
    uint64_t retry_ns;   /* when a chunk may be had again */
    uint64_t slice;      /* bytes of work left in this step */
    bool round_said;     /* the round's end was told to the peer */
};

/* What the destination may ask for at a time: as many as there are who may wait in a guest. */
#define TW_WANTS_MAX 128u

/* Post-copy: what the destination still lacks. */
struct tw_rest {
    struct tw_line_set lines;                   /* not sent yet */
    struct tw_control_want wants[TW_WANTS_MAX]; /* a ring */
    unsigned first, count;
    struct tw_foresight foresight; /* what goes before its turn */
    uint64_t cursor;               /* page at which map or background go on */
    uint64_t digest;               /* of the lines that were sent */
    uint64_t retry_ns;             /* when to go on */
    uint64_t sent_ns;              /* when the last line went; 0 = not yet */
    uint64_t wanted_ns;            /* when the last demand came; 0 = none yet */
    bool marking;                  /* what is put goes into `lines` instead of a chunk */
    bool marked, packed;           /* steps of a map that are done */
    bool announced, map_said, room, whole;
    struct tw_line_set asked;       /* what a destination that came back is naming as missing */
    const struct tw_line_set *held; /* a mirror: no other lines may be asked for; NULL = any */
    uint64_t asked_ns;              /* when it was heard last */
    uint64_t asked_for;             /* lines that it named */
    bool asking;
    bool partly_compared;           /* an agent has ended meanwhile: the digest is of a part */
    bool limited;                   /* the bandwidth limit holds again */
    bool wrong;                     /* whole, and not what was sent */
    struct tw_control_whole report; /* the destination's, once whole */
};

/* Pre-copy: slowing the writers of hot lines. */
struct tw_source_pace {
    struct tw_pacing policy;
    struct tw_hot_lines hot; /* open while it may be needed */
    bool on;
    uint64_t said_ns;           /* when the host was told last */
    uint64_t counted_ns;        /* up to when the meter has ... */
    struct tw_host_paced stats; /* ... these figures of the host */
};

/* What a third host is to keep, and how far that is. */
struct tw_source_mirror {
    struct tw_migration_end end; /* the face of its connection */
    struct tw_conn *conn;
    struct tw_line_set lines; /* not sent there yet */
    uint64_t cursor;          /* page at which map or lines go on */
    uint64_t sent, digest;    /* lines */
    uint64_t bytes;           /* of connections before this */
    bool wanted, up, down;
    bool known; /* what is to follow the VM is */
    bool begun, packed, mapped, ended, kept;
    bool without;            /* the VM moves without it */
    uint64_t taken_ns;       /* when it took something last, or it was known what it is to keep */
    struct tw_error trouble; /* why it is down */
    struct tw_farewell farewell;
};

struct tw_source {
    struct tw_migration_end end;
    struct tw_machine machine;
    struct tw_migration_env env;
    struct tw_migration_params params;
    struct tw_migration_limits limits; /* complete */
    struct tw_host *host;
    struct tw_host_call call;
    struct tw_conn *conn;
    struct tw_tracker *tracker;
    struct tw_line_hashes hashes;
    struct tw_found found;
    struct tw_growth growth; /* of the first epoch, the full copy's */
    struct tw_throttle throttle;
    struct tw_meter meter;
    struct tw_copy copy;
    struct tw_source_pace pace;
    struct tw_rest rest;
    struct tw_source_mirror mirror;
    struct tw_farewell farewell;
    struct tw_migration_mutations mutations;
    enum tw_hand_over hand_over;
    struct tw_error error;
    bool failed;

    /* What the connection told; handled by the next step. */
    bool up, down, peer_aborted, peer_compared, prepared, running;
    struct tw_error peer_error;

    /* Pre-copy. */
    uint32_t round; /* index of the present or last round */
    uint64_t collected_ns, interval_ns, dirty_lines, seen_lines;
    uint64_t last_cost, cost_before;
    uint32_t stalled;
    bool precompared, begun;
    uint64_t pass_ns, pass_spent_ns; /* compare pass: how long the last took; time in this one */
    uint64_t data_bytes;

    /* A pause that an operator asked for. */
    bool paused;
    uint64_t paused_since_ns;

    /* Switch-over. */
    bool switch_asked; /* by an operator */
    bool stop_asked;   /* the VM may be stopped */
    bool adopted;      /* an agent before this one has stopped it */
    bool staged, hook_busy, continuing;
    uint64_t stop_ns, stop_deadline_ns, hook_ns, phase_ns, retry_ns, commit_ns, hook_until_ns;
    uint64_t compare_began_ns;
    uint64_t digest;
    enum tw_code save_code; /* how the save ended, once the call is not busy any more */
    struct tw_error save_err;
    struct tw_host_state device_state;
    size_t state_sent;
    bool begin_said, final_said, state_said, commit_said;
};

/* ---- source.c -------------------------------------------------------------------------------- */

void tw_source_move(struct tw_source *s, enum tw_source_state to, const char *why);
/* Whether a pause holds now; one that has lasted for too long ends here. */
bool tw_source_is_paused(struct tw_source *s, uint64_t now_ns);
/* Ends the migration: the VM runs on here. Once it was given up it only closes the connection, and
 * a decision from outside is needed. `why` becomes the side's error. */
void tw_source_abort(struct tw_source *s, const struct tw_error *why);
/* The same with a text of our own. */
uint64_t tw_source_fail(struct tw_source *s, enum tw_code code, const char *what);
/* Frees what only copying needs: tracker, hashes, an open chunk. */
void tw_source_let_go(struct tw_source *s);
void tw_source_complete(struct tw_source *s, const char *why);
void tw_source_close_connection(struct tw_source *s);
/* The VM may still run on here: it was not given up. */
bool tw_source_is_before_give_up(const struct tw_source *s);

/* ---- source_copy.c: each returns false when it has to wait until copy.retry_ns ----------------
 */

void tw_source_walk_begin(struct tw_source *s);
bool tw_source_walk_next(struct tw_source *s, uint64_t *page); /* false: the walk is over */
/* Sends what waits. */
bool tw_source_pump(struct tw_source *s, uint64_t now_ns);
/* Takes lines of a page into the present round. Only when the pump returned true. */
void tw_source_put(struct tw_source *s, uint64_t page, uint64_t lines);
bool tw_source_flush(struct tw_source *s, uint64_t now_ns);
bool tw_source_say(struct tw_source *s, enum tw_control_kind kind, const union tw_control *message,
                   bool *said, uint64_t now_ns);
/* Sends up to a chunk of the device state. */
bool tw_source_send_state(struct tw_source *s, uint64_t now_ns);
void tw_source_round_begin(struct tw_source *s, uint32_t index, bool final, uint64_t now_ns);
/* Flushes the round and tells its end. */
bool tw_source_round_end(struct tw_source *s, uint64_t now_ns);
/* Gathers what the tracker and the background compare hold. True when the round is complete. */
bool tw_source_gather_dirty(struct tw_source *s, uint64_t now_ns);
void tw_source_collect(struct tw_source *s, uint64_t now_ns);
void tw_source_copy_drop(struct tw_source *s); /* the open chunk is not sent */

/* ---- source_postcopy.c ------------------------------------------------------------------------
 */

static inline bool tw_source_postcopies(const struct tw_source *s)
{
    return s->limits.method != TW_METHOD_PRE_COPY;
}

/* From here on what is put is not sent but named. */
enum tw_code tw_source_rest_begin(struct tw_source *s, struct tw_error *err);
/* Puts all data of the stopped VM. True when done, else it has to wait until rest.retry_ns. */
bool tw_source_mark_all(struct tw_source *s, uint64_t now_ns);
/* A message of the destination that belongs to post-copy: whether it is in place here. */
bool tw_source_rest_hears(struct tw_source *s, uint32_t kind, const union tw_control *m);
/* Sends what was asked for, then what the background owes; returns when to call again. */
uint64_t tw_source_serve(struct tw_source *s, uint64_t now_ns);
void tw_source_rest_close(struct tw_source *s);

/* ---- source_recover.c -------------------------------------------------------------------------
 */

void tw_source_lose_path(struct tw_source *s, const char *why);
/* What the destination sends when it has connected again: a map, then its end. */
enum tw_code tw_source_take_missing(struct tw_source *s, const struct tw_chunk_header *header,
                                    const uint8_t *payload, struct tw_error *err);
enum tw_code tw_source_hears_missing(struct tw_source *s, const struct tw_control_missing *m,
                                     struct tw_error *err);
/* True while the destination still names what is missing; *due = when it has to be done. */
bool tw_source_asks(struct tw_source *s, uint64_t now_ns, uint64_t *due);

/* ---- source_pace.c ------------------------------------------------------------------------------
 */

/* Between two rounds, before the verdict: slows the writers of hot lines, or less, or no longer. As
 * long as that may help rounds that do not shrink are not held against the migration. */
void tw_source_pace_judge(struct tw_source *s, struct tw_convergence *c, uint64_t now_ns);
void tw_source_pace_round(struct tw_source *s); /* a round begins */
/* These lines of a page are dirty in this round. */
void tw_source_pace_add(struct tw_source *s, uint64_t page, uint64_t lines);
/* Tells the host again that it goes on; returns when to call again. */
uint64_t tw_source_pace_step(struct tw_source *s, uint64_t now_ns);
void tw_source_pace_end(struct tw_source *s); /* nobody is slowed any more; fine at any time */

/* ---- source_mirror.c --------------------------------------------------------------------------
 */

/* The VM may be stopped: what follows it is wanted nowhere else, or the mirror is there. */
bool tw_source_mirror_there(const struct tw_source *s);
/* What is to follow the VM is known: it goes to the mirror from now on. */
enum tw_code tw_source_mirror_begin(struct tw_source *s, struct tw_error *err);
/* Sends what is due to the mirror, in whatever state; returns when to call again. */
uint64_t tw_source_mirror_step(struct tw_source *s, uint64_t now_ns);
/* Nothing stands against moving the VM: there is no mirror, or it holds all. */
bool tw_source_mirror_ready(const struct tw_source *s);
void tw_source_mirror_progress(const struct tw_source *s, struct tw_migration_progress *out);
/* What it holds is of no use to anybody any more. */
void tw_source_mirror_release(struct tw_source *s);
void tw_source_mirror_close(struct tw_source *s);

/* ---- Steps ------------------------------------------------------------------------------------
 */

uint64_t tw_source_step_connecting(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_announcing(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_full_copy(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_waiting(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_round(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_precompare(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_stopping(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_final_pass(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_compare(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_sending_map(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_saving_state(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_sending_state(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_verifying(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_mirroring(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_hook(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_giving_up(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_given_up(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_serving(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_path_lost(struct tw_source *s, uint64_t now_ns);
uint64_t tw_source_step_resuming(struct tw_source *s, uint64_t now_ns);
/* Ends the last round and says the final word; then on to the device state, which the host has been
 * saving meanwhile. */
uint64_t tw_source_finish_lines(struct tw_source *s, uint64_t now_ns);
bool tw_source_compares(const struct tw_source *s);
void tw_source_stop(struct tw_source *s, const char *why, uint64_t now_ns);

#endif
