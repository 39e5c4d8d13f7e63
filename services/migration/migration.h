/* Live migration by lines, pre-copy, post-copy and both in a row: the two sides as table-driven
 * state machines.
 *
 * A side is advanced by its *_step() from the data thread and by callbacks of its fabric
 * connection; no call blocks for longer than a slice of work (a few milliseconds). Clock, fabric,
 * host and journal come in as tables, so both sides run in virtual time in tests.
 *
 * Ownership (two-phase, epochs): the source keeps the right to abort until it has *durably* given
 * up (journal); the destination runs only after it has *durably* taken over, which it does on the
 * source's commit message or on a controller's decision. Between "prepared" and a decision the
 * destination never runs by itself. See docs/migration.md.
 *
 * Post-copy: the VM runs at the destination before its memory is there. What is to come is named
 * before the hand-over; each of these lines crosses once, on demand or in the background.
 *
 * Sources: US20200034175 (initial copy, rounds of dirty lines, final sweep, two variants),
 * US20200034176 (lines fetched on a miss, the rest in the background). */
#ifndef TOWLINE_SERVICES_MIGRATION_MIGRATION_H
#define TOWLINE_SERVICES_MIGRATION_MIGRATION_H

#include "base/clock.h"
#include "base/error.h"
#include "base/machine.h"
#include "fabric/fabric.h"
#include "hosts/host.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_MIGRATION_ROUNDS_MAX 64u
#define TW_ID_SIZE              64u

enum tw_migration_method {
    TW_METHOD_PRE_COPY,
    TW_METHOD_POST_COPY, /* the VM moves first, all of its memory follows */
    TW_METHOD_HYBRID,    /* rounds first; what is dirty at the switch follows */
};

/* Which predictor orders what follows the VM: none, one of fpga-model/predictor.h, or the best of
 * them by trial (foresight.h). */
enum tw_foresight_choice {
    TW_FORESIGHT_NONE,
    TW_FORESIGHT_SPATIAL,
    TW_FORESIGHT_STRIDE,
    TW_FORESIGHT_SEQUENCE,
    TW_FORESIGHT_AUTO,
};

/* How good the predictor was. The source counts misses, pages named, pages sent ahead, and misses
 * of pages that it had named: right, and late. The destination leaves one in eight of the pages
 * that came ahead closed to see whether the guest touches them: `touched` of `watched`. */
struct tw_foresight_figures {
    uint64_t misses, named, ahead, late;
    uint64_t watched, touched;
};

/* Whether a third host keeps what follows the VM. */
enum tw_mirrored {
    TW_MIRRORED_NOT,     /* nobody asked for it */
    TW_MIRRORED_FILLING, /* ... holds not all of it yet: the VM does not move before it does */
    TW_MIRRORED,
    TW_MIRRORED_NO_MORE, /* the mirror was lost after the VM had moved */
    TW_MIRRORED_WITHOUT, /* it was lost or late before, and not insisted on: moved without it */
};

enum tw_convergence_policy { TW_ON_NO_CONVERGENCE_ABORT, TW_ON_NO_CONVERGENCE_STOP };

struct tw_migration_limits {
    uint64_t bandwidth_bytes_per_s; /* while the VM runs; 0 = unlimited */
    uint64_t downtime_ns;           /* budget; 0 = 300 ms */
    uint32_t max_rounds;            /* 0 = 30 */
    uint64_t timeout_ns;            /* 0 = 600 s */
    enum tw_convergence_policy on_no_convergence;
    bool skip_verify;
    enum tw_migration_method method;
    enum tw_foresight_choice foresight;
    bool mirror_optional;        /* a mirror that is lost before the VM moves does not end it */
    uint64_t total_ns;           /* budget of the whole, for pacing; 0 = none */
    uint32_t slow_down_permille; /* of its time that pacing may take from a vCPU; 0 = no pacing */
};

struct tw_round {
    uint32_t index;
    uint64_t lines, pages, zero_lines, bytes, duration_ns;
    bool final;
};

/* What both sides can tell at any moment. */
struct tw_migration_progress {
    const char *phase; /* state name of the machine */
    struct tw_round rounds[TW_MIGRATION_ROUNDS_MAX];
    uint32_t round_count;
    uint64_t bytes_sent, bytes_if_pages, bytes_device_state;
    uint64_t memory_bytes, full_copy_bytes_done, lines_dirty;
    uint64_t rate_bytes_per_s, dirty_bytes_per_s, eta_ns;
    uint64_t downtime_ns, hook_ns, total_ns;
    /* Parts of the downtime, one after the other: see MigrationProgress in common.proto. */
    uint64_t stop_ns, final_pass_ns, compare_ns, device_state_ns, saving_ns, hand_over_ns;
    uint64_t
        save_ns; /* beside final_pass_ns and saving_ns: from the stop until the state was saved */
    uint64_t lines_found_by_compare_only;
    bool memory_compared, memory_equal;
    /* Post-copy, and the second part of hybrid. */
    enum tw_migration_method method;
    uint64_t lines_to_come;                    /* named at the switch */
    uint64_t lines_left;                       /* of them: not sent yet, or not arrived yet */
    uint64_t lines_on_demand, bytes_on_demand; /* sent because the guest waited for them */
    uint64_t lines_late; /* that had arrived already and were dropped; 0 unless a peer errs */
    uint64_t faults, fault_p50_ns, fault_p99_ns; /* waits of the guest for memory */
    /* The path was lost behind the switch: see services/migration/destination_recover.c. */
    uint64_t reconnects;
    uint64_t lines_again;    /* source: sent and lost on the way, so sent again */
    uint64_t path_lost_ns;   /* destination: how long the path has been lost; 0 = it is not */
    uint64_t path_left_ns;   /* ... and until it gives up trying; 0 = it has */
    uint64_t path_waited_ns; /* ... and for how long it was lost in all */
    uint64_t fetch_ns;       /* from the VM's resume until the last line was there */
    const char *predictor;   /* that orders what follows, or did so last; NULL = nothing follows */
    struct tw_foresight_figures foresight;
    uint64_t link_bytes_per_s; /* that the path was seen to take; 0 = not known */
    uint64_t start_ns;         /* part of total: until the copy began */
    bool paused;               /* by an operator */
    uint64_t paused_ns;        /* part of total: time in such pauses */
    /* Source of a pre-copy: slowing the writers of hot lines. */
    uint64_t paced_lines, paced_lines_most; /* now, and at any moment */
    uint64_t pace_delay_ns;                 /* that making one of them dirty costs now; 0 = off */
    uint64_t pace_ns;                       /* time with pacing ... */
    uint64_t pace_wait_ns;         /* ... and of it, what the vCPU that waited longest has waited */
    uint64_t pace_waits;           /* stores that waited */
    uint32_t pace_budget_permille; /* 0 = not allowed, or the host cannot */
    char pace_reason[200];         /* why it began, or could not; "" = it did not */
    /* What a third host keeps (mirror.h). */
    enum tw_mirrored mirrored;
    uint64_t mirror_lines, mirror_bytes; /* source: sent there so far */
    uint64_t mirror_ns; /* part of downtime: everything else was done, and the mirror was not */
    bool from_mirror;   /* destination: what is missing comes from there, or did so last */
    char mirror_reason[200]; /* source: why there is none, or no longer; "" = there is */
};

/* What these figures come to, in percent; 0 where nothing is known. Accuracy: pages sent ahead that
 * the guest touched before all was there. Coverage: misses that were spared, of those that there
 * would have been. Timeliness: right guesses that came before the touch. */
struct tw_foresight_quality {
    unsigned accuracy, coverage, timeliness;
};
struct tw_foresight_quality tw_foresight_judge(const struct tw_foresight_figures *figures);

/* The durable truth of one side; numbers as HandOver in agent.proto. */
enum tw_hand_over {
    TW_HAND_OVER_UNKNOWN = 1,
    TW_HAND_OVER_ACTIVE = 2,
    TW_HAND_OVER_GIVEN_UP = 3,
    TW_HAND_OVER_PREPARED = 4,
    TW_HAND_OVER_COMMITTED = 5,
    TW_HAND_OVER_ABORTED = 6,
    /* Destination: it owns the VM, and not all of its memory is there. */
    TW_HAND_OVER_COMMITTED_PARTLY = 7,
};

/* Begins to connect; on_up or on_down follows for conn_ctx. */
typedef enum tw_code (*tw_migration_dial)(void *ctx, const struct tw_hello *hello,
                                          uint64_t deadline_ns, void *conn_ctx,
                                          struct tw_conn **conn, struct tw_error *err);

/* What the surroundings provide to a side. */
struct tw_migration_env {
    const struct tw_clock *clock;
    struct tw_fabric *fabric;
    /* Makes the side's state durable before it returns. A failure keeps the side where it is:
     * before the hand-over the source aborts, the destination refuses to prepare or commit. */
    enum tw_code (*journal)(void *ctx, enum tw_hand_over state, struct tw_error *err);
    /* May be NULL: the guest stands still, and the side waits for its host or peer; the entries of
     * the journal that are left until the VM runs can be made ready. Says nothing about them. */
    void (*stage)(void *ctx);
    /* Destination of a post-copy only, may be NULL: memory of `words` words that outlives the
     * process, for what has not arrived yet. Fresh: all zeros; else what the last process left,
     * TW_NOT_FOUND when there is none of this size. It is valid until the side is freed. */
    enum tw_code (*keep)(void *ctx, uint64_t words, bool fresh, uint64_t **memory,
                         struct tw_error *err);
    /* The same, may be NULL: begins to connect to the source again; on_up or on_down follows. */
    tw_migration_dial dial;
    /* Destination, may be NULL: nobody keeps what is missing but the source. Else the same towards
     * its mirror, with the mirror's token in the hello. */
    tw_migration_dial dial_mirror;
    /* Source only, may be NULL: the switch-over hook, called while both sides hold the whole VM
     * and neither runs it. Begins, then is polled like a host operation; a failure aborts. */
    enum tw_code (*hook_begin)(void *ctx, struct tw_error *err);
    bool (*hook_poll)(void *ctx, enum tw_code *code, struct tw_error *err);
    /* Destination only, may be NULL: a wait of the guest has ended. Neither allocates nor blocks.
     */
    void (*missed)(void *ctx, uint64_t page, uint32_t line, uint64_t since_ns, uint64_t waited_ns);
    tw_machine_trace trace; /* may be NULL */
    void *ctx;
};

struct tw_migration_params {
    char id[TW_ID_SIZE]; /* migration */
    char vm[TW_ID_SIZE];
    uint64_t epoch;               /* that the destination gets */
    uint8_t token[TW_OWNER_SIZE]; /* owner id of the stream */
    struct tw_migration_limits limits;
    uint64_t recover_ns; /* post-copy: how long a lost path is tried again; 0 = 600 s */
    /* ... and for how long only the source is tried where there is a mirror; 0 = 30 s, and at most
     * half of recover_ns */
    uint64_t mirror_after_ns;
};

/* ---- Source ---------------------------------------------------------------------------------- */

struct tw_source;
extern const struct tw_machine_table tw_source_table;

/* Begins: connects to `address`. `host` outlives the source. */
enum tw_code tw_source_start(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, struct tw_host *host,
                             const char *address, struct tw_source **source, struct tw_error *err);
/* Right after start: what is missing at the destination is kept at a mirror, too, before the VM
 * moves (mirror.h). `fabric` outlives the source. */
enum tw_code tw_source_mirror_to(struct tw_source *source, struct tw_fabric *fabric,
                                 const char *address, const uint8_t token[TW_OWNER_SIZE],
                                 struct tw_error *err);
/* Does what is due. Returns the time until which it has nothing to do by itself (fabric events
 * aside); now or earlier = call again at once. */
uint64_t tw_source_step(struct tw_source *source);
/* Asks for the end. TW_FAILED_PRECONDITION once the VM was given up. */
enum tw_code tw_source_cancel(struct tw_source *source, struct tw_error *err);
/* Hybrid: the VM is to move now, however much is dirty. TW_FAILED_PRECONDITION for another method;
 * nothing happens when it has been stopped already. */
enum tw_code tw_source_switch(struct tw_source *source, struct tw_error *err);
/* Takes effect at the next judgement between two rounds. */
void tw_source_set_downtime(struct tw_source *source, uint64_t downtime_ns);
/* How much of its time the writers of hot lines may be made to wait where pre-copy would not
 * converge otherwise; 0 = nobody is slowed any more, at once. */
void tw_source_set_slow_down(struct tw_source *source, uint32_t permille);
/* A pause ends by itself after this time; the limit on the whole migration goes on. */
#define TW_PAUSE_LIMIT_NS (300 * TW_SEC)
/* While the VM runs here nothing is sent, and lines are tracked on. While lines follow the VM only
 * the background stands still: what the guest waits for is always sent. In between, where the VM
 * stands still, a pause has no effect. */
void tw_source_pause(struct tw_source *source, bool pause);
void tw_source_set_bandwidth(struct tw_source *source, uint64_t bytes_per_s);
/* A decision from outside for a source that has given up and lost its peer. */
enum tw_code tw_source_finish(struct tw_source *source, struct tw_error *err);
enum tw_code tw_source_reclaim(struct tw_source *source, struct tw_error *err);
/* A destination that runs the VM connects again (post-copy): takes it, or refuses. */
enum tw_code tw_source_accept(struct tw_source *source, struct tw_conn *conn,
                              const struct tw_hello *hello, struct tw_error *err);
bool tw_source_done(const struct tw_source *source); /* ended; hand_over tells how */
bool tw_source_peer_lost(const struct tw_source *source);
enum tw_hand_over tw_source_hand_over(const struct tw_source *source);
const struct tw_error *tw_source_error(const struct tw_source *source); /* NULL = none */
void tw_source_progress(const struct tw_source *source, struct tw_migration_progress *out);
/* Frees. Before it is done: closes the connection and leaves the VM as it is. */
void tw_source_free(struct tw_source *source);

/* For the fabric's callbacks: every conn_ctx in an agent is a `struct tw_migration_end *`. */
struct tw_migration_end;
struct tw_migration_end *tw_source_end(struct tw_source *source);
void tw_migration_on_up(struct tw_migration_end *end, struct tw_conn *conn);
enum tw_code tw_migration_on_chunk(struct tw_migration_end *end, struct tw_conn *conn,
                                   enum tw_lane lane, const struct tw_chunk_header *header,
                                   const uint8_t *payload, struct tw_error *err);
void tw_migration_on_down(struct tw_migration_end *end, struct tw_conn *conn,
                          const struct tw_error *why);

/* ---- Destination ------------------------------------------------------------------------------
 */

struct tw_destination;
extern const struct tw_machine_table tw_destination_table;

/* Waits for the source. `host` is an incoming machine; it outlives the destination. */
enum tw_code tw_destination_start(const struct tw_migration_env *env,
                                  const struct tw_migration_params *params, struct tw_host *host,
                                  uint64_t connect_timeout_ns, struct tw_destination **destination,
                                  struct tw_error *err);
/* Whoever asked for it has asked again: the wait for the source begins anew, while there is none.
 */
void tw_destination_wait_anew(struct tw_destination *destination, uint64_t connect_timeout_ns);
/* A connection with this migration's token has said hello: take it or refuse. */
enum tw_code tw_destination_accept(struct tw_destination *destination, struct tw_conn *conn,
                                   const struct tw_hello *hello, struct tw_error *err);
struct tw_migration_end *tw_destination_end(struct tw_destination *destination);
uint64_t tw_destination_step(struct tw_destination *destination);
/* Decisions from outside. commit: PREPARED only. abort: refused once committed. */
enum tw_code tw_destination_commit(struct tw_destination *destination, uint64_t epoch,
                                   struct tw_error *err);
enum tw_code tw_destination_abort(struct tw_destination *destination, struct tw_error *err);
/* Post-copy, the path is lost: tries again, as long as at first. TW_FAILED_PRECONDITION where it is
 * not. */
enum tw_code tw_destination_reconnect(struct tw_destination *destination, struct tw_error *err);
/* The same, and the mirror is asked first, without waiting for the source any longer.
 * TW_FAILED_PRECONDITION also where there is none. */
enum tw_code tw_destination_from_mirror(struct tw_destination *destination, struct tw_error *err);
/* The source will never serve what is missing: the VM is lost. Refused while somebody serves it. */
enum tw_code tw_destination_abandon(struct tw_destination *destination, struct tw_error *err);
bool tw_destination_done(const struct tw_destination *destination);
bool tw_destination_peer_lost(const struct tw_destination *destination);
/* COMMITTED_PARTLY until all of the memory is there. */
enum tw_hand_over tw_destination_hand_over(const struct tw_destination *destination);
const struct tw_error *tw_destination_error(const struct tw_destination *destination);
void tw_destination_progress(const struct tw_destination *destination,
                             struct tw_migration_progress *out);
void tw_destination_free(struct tw_destination *destination);

/* After an agent's restart: sides rebuilt from their journal, without a connection. The source
 * stands at GIVEN_UP, the destination at PREPARED; both wait for a decision from outside. In
 * post-copy the source also takes a destination that connects again. */
enum tw_code tw_source_adopt(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, struct tw_host *host,
                             struct tw_source **source, struct tw_error *err);
enum tw_code tw_destination_adopt(const struct tw_migration_env *env,
                                  const struct tw_migration_params *params, struct tw_host *host,
                                  struct tw_destination **destination, struct tw_error *err);
/* The same for one that stands at COMMITTED_PARTLY: takes the guest's waits over again, has the VM
 * run if it does not, and connects to the source. Needs env->keep and the host's fault operations.
 */
enum tw_code tw_destination_adopt_partly(const struct tw_migration_env *env,
                                         const struct tw_migration_params *params,
                                         struct tw_host *host, struct tw_destination **destination,
                                         struct tw_error *err);

#endif
