/* Tracking of programs: who watches what, and which lines changed in his epoch.
 *
 *   session  one consumer of one program: ranges, and named epochs over them
 *   epoch    begins when all stores before it were taken off (R1), ends with each collect, which
 *            begins the next one in the same step; its lines can then be read in pieces
 *   program  the attachment, shared by all sessions of a program; let go with the last of them
 *
 * Everything that needs a pass over the program is begun here and done by tw_tracking_step(), in
 * slices; whoever asked polls. One pass serves all that waited for it when it began.
 *
 *   epoch:  arming -> running <-> collecting        each -> ended, when the program has
 *
 * When the program has ended or executed another one, what is known (with an attachment that
 * outlives it, everything) can be collected and read once more by each epoch; after that the answer
 * is ABORTED, with the reason.
 *
 * One thread. Attachments and clock come in as tables, so tests run in virtual time. */
#ifndef TOWLINE_SERVICES_TRACKING_TRACKING_H
#define TOWLINE_SERVICES_TRACKING_TRACKING_H

#include "base/clock.h"
#include "base/error.h"
#include "base/machine.h"
#include "hosts/attachment.h"
#include "services/tracking/figures.h"
#include "services/tracking/shared.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_TRACKING_SESSIONS_MAX 64u
#define TW_TRACKING_EPOCHS_MAX   8u    /* of one session */
#define TW_TRACKING_RANGES_MAX   4096u /* of one session */
#define TW_TRACKING_NAME_SIZE    32u   /* of an epoch, with the final zero */

struct tw_tracking;
struct tw_tracking_session;

/* How a program is to be tracked. */
struct tw_tracking_wish {
    bool exact;   /* lines are known from a page's first report on */
    bool sharing; /* who writes to the same lines is told, too */
    bool loads;   /* accessed lines are told, too */
    bool bytes;   /* contents are compared also where that is done on demand only */
    enum tw_attachment_kind kind;
};

#define TW_TRACKING_WHY_SIZE 192u

struct tw_tracking_env {
    const struct tw_clock *clock;
    /* Decides for one kind of attachment and says why. NULL: the kind wished for. */
    enum tw_code (*choose)(void *ctx, uint64_t pid, struct tw_tracking_wish *wish,
                           char why[TW_TRACKING_WHY_SIZE], struct tw_error *err);
    /* Attaches to program `pid`. */
    enum tw_code (*attach)(void *ctx, uint64_t pid, const struct tw_tracking_wish *wish,
                           struct tw_attachment *out, struct tw_error *err);
    void *ctx;
};

enum tw_code tw_tracking_open(const struct tw_tracking_env *env, struct tw_tracking **tracking,
                              struct tw_error *err);
void tw_tracking_close(struct tw_tracking *tracking); /* ends all sessions; NULL is fine */

/* Goes on with all passes for about `slice_ns`; returns when it wants to be called again. */
uint64_t tw_tracking_step(struct tw_tracking *tracking, uint64_t slice_ns);

/* ---- Sessions ------------------------------------------------------------------------------- */

/* `owner`: whose it is, for lists; not looked at. RESOURCE_EXHAUSTED: too many. UNIMPLEMENTED:
 * `loads`, and the attachment does not see them, or `bytes`, and it cannot compare; both are paid
 * for while a session of the program wants them.
 * FAILED_PRECONDITION: `exact` or `sharing`, and others track the program without. Else what the
 * attachment says. */
enum tw_code tw_tracking_session_open(struct tw_tracking *tracking, uint64_t pid,
                                      const struct tw_tracking_wish *wish, uint32_t owner,
                                      struct tw_tracking_session **session, struct tw_error *err);
void tw_tracking_session_close(struct tw_tracking_session *session); /* NULL is fine */

/* The program's addresses that are watched, once, before the first epoch; in any order, of any
 * alignment: lines are told of these ranges only. 0 ranges: everything that the program may write
 * to, as it changes. */
enum tw_code tw_tracking_watch(struct tw_tracking_session *session, const struct tw_range *ranges,
                               size_t count, struct tw_error *err);

struct tw_tracking_session_info {
    uint64_t id; /* unique in this tw_tracking */
    uint64_t pid;
    uint32_t owner;
    bool exact;
    bool watching;
    bool ended;        /* the program has, or executed another one */
    bool counts_bytes; /* figures have known_lines, changed_bytes and clean_pages */
    bool counts_same;  /* and same_lines, in the place of clean_pages */
    bool sharing;
    bool loads;
    uint64_t shared, shared_falsely; /* lines that threads share, in the last collected epoch */
    const char *why;                 /* this kind of attachment; "" = nobody said */
    unsigned epochs;
    struct tw_figures total;                /* of all epochs that were collected and read */
    struct tw_figures last;                 /* the last of these */
    const struct tw_attachment *attachment; /* granularity and blind spots (R7) */
};
void tw_tracking_session_info(const struct tw_tracking_session *session,
                              struct tw_tracking_session_info *out);
/* The session after `session`; NULL begins and ends. */
struct tw_tracking_session *tw_tracking_next(const struct tw_tracking *tracking,
                                             const struct tw_tracking_session *session);

/* ---- Epochs --------------------------------------------------------------------------------- */

/* Begins to begin: poll until it is no longer TW_EPOCH_ARMING. ALREADY_EXISTS: the name is taken.
 * `*epoch` names it in the calls below. */
enum tw_code tw_tracking_epoch_open(struct tw_tracking_session *session, const char *name,
                                    unsigned *epoch, struct tw_error *err);
void tw_tracking_epoch_close(struct tw_tracking_session *session, unsigned epoch);
/* False when there is none of this name. */
bool tw_tracking_epoch_find(const struct tw_tracking_session *session, const char *name,
                            unsigned *epoch);

bool tw_tracking_epoch_there(const struct tw_tracking_session *session, unsigned epoch);

enum tw_epoch_state {
    TW_EPOCH_ARMING,
    TW_EPOCH_RUNNING,
    TW_EPOCH_COLLECTING,
    TW_EPOCH_ENDED,
};
extern const struct tw_machine_table tw_epoch_table;

/* *state, and how the last arming or collecting went. A collect that failed lost nothing: the
 * epoch runs on. An arming that failed leaves it ENDED. */
enum tw_code tw_tracking_epoch_poll(const struct tw_tracking_session *session, unsigned epoch,
                                    enum tw_epoch_state *state, struct tw_error *err);

/* Begins to end the present epoch: poll until it is no longer COLLECTING, then read. What an
 * earlier collect left unread is merged in. `paced`: waits until the program's budget allows a
 * pass. FAILED_PRECONDITION while it is under way, ABORTED when the program ended before. */
enum tw_code tw_tracking_collect(struct tw_tracking_session *session, unsigned epoch, bool paced,
                                 struct tw_error *err);
/* Takes back a collect that was not begun or is under way; nothing is lost. */
void tw_tracking_collect_cancel(struct tw_tracking_session *session, unsigned epoch);

/* Lines of one page of the program. */
struct tw_dirty_lines {
    uint64_t address; /* of the page */
    uint64_t lines;
    bool whole; /* the lines were not known: all of them that are watched */
};
/* The next of what was collected, at most `max`, in no particular order. Returns how many; 0 = all
 * read. `out` may be NULL: then they are only counted, for the figures. */
size_t tw_tracking_read(struct tw_tracking_session *session, unsigned epoch,
                        struct tw_dirty_lines *out, size_t max);

/* The same of the lines that were loaded or stored to, which are read apart from the dirty ones;
 * nothing without `loads`. */
size_t tw_tracking_read_accessed(struct tw_tracking_session *session, unsigned epoch,
                                 struct tw_dirty_lines *out, size_t max);

/* What the last collect has come to as far as it was read. */
void tw_tracking_epoch_figures(const struct tw_tracking_session *session, unsigned epoch,
                               struct tw_figures *last);
/* Lines of the ranges that several threads stored to in the epoch that was collected last, those
 * that they share falsely first; at most TW_SHARED_LINES_MAX are kept, of *total. A line counts
 * once for each pass of the program in which it was shared. */
size_t tw_tracking_shared(const struct tw_tracking_session *session, unsigned epoch,
                          struct tw_shared_line *out, size_t max, uint64_t *total);

size_t tw_tracking_hottest(const struct tw_tracking_session *session, unsigned epoch,
                           struct tw_region *out, size_t max);

#endif
