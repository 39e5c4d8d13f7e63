#include "services/migration/destination.h"

#include "services/migration/big_array.h"
#include "services/migration/convergence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The source's deadline comes first, so that it is the one to say why. */
#define DEADLINE_SLACK_NS  (30 * TW_SEC)
#define CONNECT_TIMEOUT_NS (30 * TW_SEC)

/* ---- The table ------------------------------------------------------------------------------- */

static bool never_ran(const void *object)
{
    const struct tw_destination *d = object;
    return !d->continue_asked && d->hand_over != TW_HAND_OVER_COMMITTED;
}

static bool prepared(const void *object)
{
    const struct tw_destination *d = object;
    return never_ran(d) && d->hand_over == TW_HAND_OVER_PREPARED;
}

static bool taken_over(const void *object)
{
    const struct tw_destination *d = object;
    return d->hand_over == TW_HAND_OVER_COMMITTED;
}

static bool committed(const void *object)
{
    const struct tw_destination *d = object;
    return taken_over(d) && d->continue_asked;
}

static bool given_back(const void *object)
{
    const struct tw_destination *d = object;
    return never_ran(d) && d->hand_over == TW_HAND_OVER_ABORTED;
}

#define OUT TW_MAY(TW_DESTINATION_ABORTING)

static const struct tw_state states[TW_DESTINATION_STATES] = {
    [TW_DESTINATION_NEW] = {"new",
                            TW_MAY(TW_DESTINATION_WAITING) | TW_MAY(TW_DESTINATION_PREPARED) |
                                TW_MAY(TW_DESTINATION_REJOINING),
                            "just made, or read back from the journal", NULL},
    [TW_DESTINATION_WAITING] = {"waiting", TW_MAY(TW_DESTINATION_RECEIVING) | OUT,
                                "for the source to connect", never_ran},
    [TW_DESTINATION_RECEIVING] = {"receiving",
                                  TW_MAY(TW_DESTINATION_GUARDING) |
                                      TW_MAY(TW_DESTINATION_LOADING_STATE) | OUT,
                                  "lines, then the device state", never_ran},
    [TW_DESTINATION_GUARDING] = {"guarding", TW_MAY(TW_DESTINATION_LOADING_STATE) | OUT,
                                 "post-copy: from here on a touch of what is absent waits",
                                 never_ran},
    [TW_DESTINATION_LOADING_STATE] = {"loading_state", TW_MAY(TW_DESTINATION_VERIFYING) | OUT,
                                      "CPU and device state into the incoming machine", never_ran},
    [TW_DESTINATION_VERIFYING] = {"verifying", TW_MAY(TW_DESTINATION_PREPARING) | OUT,
                                  "digest of the memory here against the source's", never_ran},
    [TW_DESTINATION_PREPARING] = {"preparing", TW_MAY(TW_DESTINATION_PREPARED) | OUT,
                                  "the journal is being written", never_ran},
    [TW_DESTINATION_PREPARED] = {"prepared", TW_MAY(TW_DESTINATION_COMMITTING) | OUT,
                                 "durable: runs only if told so", prepared},
    [TW_DESTINATION_COMMITTING] = {"committing",
                                   TW_MAY(TW_DESTINATION_RESUMING) |
                                       TW_MAY(TW_DESTINATION_PREPARED),
                                   "the journal is being written", prepared},
    [TW_DESTINATION_REJOINING] = {"rejoining",
                                  TW_MAY(TW_DESTINATION_FETCHING) |
                                      TW_MAY(TW_DESTINATION_PATH_LOST) |
                                      TW_MAY(TW_DESTINATION_LOST),
                                  "post-copy: a new agent takes the guest's waits over",
                                  taken_over},
    [TW_DESTINATION_RESUMING] = {"resuming",
                                 TW_MAY(TW_DESTINATION_COMMITTED) |
                                     TW_MAY(TW_DESTINATION_FETCHING) |
                                     TW_MAY(TW_DESTINATION_PATH_LOST) | TW_MAY(TW_DESTINATION_LOST),
                                 "durable: the VM is ours, and is continued", taken_over},
    [TW_DESTINATION_FETCHING] = {"fetching",
                                 TW_MAY(TW_DESTINATION_COMMITTED) |
                                     TW_MAY(TW_DESTINATION_PATH_LOST) | TW_MAY(TW_DESTINATION_LOST),
                                 "post-copy: the VM runs here, its lines follow", taken_over},
    [TW_DESTINATION_PATH_LOST] = {"path_lost",
                                  TW_MAY(TW_DESTINATION_FETCHING) | TW_MAY(TW_DESTINATION_PAUSED) |
                                      TW_MAY(TW_DESTINATION_LOST),
                                  "who touches what is absent waits; connects to the source again",
                                  taken_over},
    [TW_DESTINATION_PAUSED] = {"paused",
                               TW_MAY(TW_DESTINATION_PATH_LOST) | TW_MAY(TW_DESTINATION_LOST),
                               "no path in time; connects again when told so", taken_over},
    [TW_DESTINATION_COMMITTED] = {"committed", 0, "the VM runs here", committed},
    [TW_DESTINATION_ABORTING] = {"aborting", TW_MAY(TW_DESTINATION_ABORTED),
                                 "an operation of the host comes to its end", given_back},
    [TW_DESTINATION_ABORTED] = {"aborted", 0, "the copy here may be removed", given_back},
    [TW_DESTINATION_LOST] = {"lost", 0, "the VM's own process has ended, or memory cannot follow",
                             taken_over},
};

const struct tw_machine_table tw_destination_table = {"destination", states, TW_DESTINATION_STATES};

static uint64_t step_waiting(struct tw_destination *d, uint64_t now_ns)
{
    (void)now_ns;
    return d->deadline_ns;
}

typedef uint64_t (*step_fn)(struct tw_destination *d, uint64_t now_ns);
static const step_fn steps[TW_DESTINATION_STATES] = {
    [TW_DESTINATION_WAITING] = step_waiting,
    [TW_DESTINATION_RECEIVING] = tw_destination_step_receiving,
    [TW_DESTINATION_GUARDING] = tw_destination_step_guarding,
    [TW_DESTINATION_LOADING_STATE] = tw_destination_step_loading_state,
    [TW_DESTINATION_VERIFYING] = tw_destination_step_verifying,
    [TW_DESTINATION_PREPARING] = tw_destination_step_preparing,
    [TW_DESTINATION_PREPARED] = tw_destination_step_prepared,
    [TW_DESTINATION_REJOINING] = tw_destination_step_rejoining,
    [TW_DESTINATION_RESUMING] = tw_destination_step_resuming,
    [TW_DESTINATION_FETCHING] = tw_destination_step_fetching,
    [TW_DESTINATION_PATH_LOST] = tw_destination_step_path_lost,
    [TW_DESTINATION_PAUSED] = tw_destination_step_paused,
    [TW_DESTINATION_ABORTING] = tw_destination_step_aborting,
};

/* ---- How it ends ----------------------------------------------------------------------------- */

void tw_destination_move(struct tw_destination *d, enum tw_destination_state to, const char *why)
{
    tw_machine_move(&d->machine, to, why);
    if (tw_machine_done(&d->machine))
        tw_meter_end(&d->meter, tw_now(d->env.clock));
}

bool tw_destination_is_before_prepared(const struct tw_destination *d)
{
    return d->machine.state <= TW_DESTINATION_PREPARING;
}

void tw_destination_note_error(struct tw_destination *d, const struct tw_error *why)
{
    d->error = *why;
    d->failed = true;
}

static void count_received(struct tw_destination *d)
{
    struct tw_conn_stats stats;
    tw_conn_stats_get(d->conn, &stats);
    d->meter.p.bytes_sent += stats.bytes_received;
}

void tw_destination_close_connection(struct tw_destination *d)
{
    if (d->conn)
        count_received(d);
    tw_conn_close(d->conn);
    d->conn = NULL;
}

static void say_abort(struct tw_destination *d, const struct tw_error *why)
{
    bool differs = d->meter.p.memory_compared && !d->meter.p.memory_equal;
    union tw_control m;
    tw_control_abort_pack(&m.abort, why, differs);
    tw_farewell_say(&d->farewell, TW_CONTROL_ABORT, &m, tw_now(d->env.clock));
}

/* The durable truth before this is ACTIVE or PREPARED, and with neither does the VM ever run here
 * by itself: a journal that fails now does no harm. */
static void journal_abort(struct tw_destination *d)
{
    struct tw_error err;
    if (d->hand_over != TW_HAND_OVER_ABORTED)
        d->env.journal(d->env.ctx, TW_HAND_OVER_ABORTED, &err);
    d->hand_over = TW_HAND_OVER_ABORTED;
}

void tw_destination_give_back(struct tw_destination *d, const struct tw_error *why)
{
    tw_destination_note_error(d, why);
    tw_received_close(&d->received);
    tw_destination_release(d); /* a load that waits for memory comes to its end */
    if (d->peer_aborted)
        tw_destination_close_connection(d);
    else
        say_abort(d, why);
    journal_abort(d);
    tw_destination_move(d, TW_DESTINATION_ABORTING, why->what);
}

static uint64_t fail(struct tw_destination *d, enum tw_code code, const char *what)
{
    struct tw_error err;
    char where[TW_WHERE_SIZE];
    tw_fail(&err, code, tw_migration_where(&d->params, where), NULL, NULL, "%s", what);
    tw_destination_give_back(d, &err);
    return tw_now(d->env.clock);
}

void tw_destination_lose(struct tw_destination *d)
{
    struct tw_error err;
    char where[TW_WHERE_SIZE];
    tw_fail(&err, TW_UNAVAILABLE, tw_migration_where(&d->params, where), NULL, NULL,
            "the process of vm %s has ended", d->params.vm);
    tw_destination_note_error(d, &err);
    say_abort(d, &err);
    tw_destination_move(d, TW_DESTINATION_LOST, err.what);
}

/* Looks at what has changed around a VM that was taken over. */
static void look_around_after(struct tw_destination *d, uint64_t now_ns)
{
    unsigned state = d->machine.state;
    bool ours = state >= TW_DESTINATION_REJOINING && state <= TW_DESTINATION_PAUSED;
    bool served = state == TW_DESTINATION_RESUMING || state == TW_DESTINATION_FETCHING;
    if (ours && !tw_host_alive(d->host))
        tw_destination_lose(d);
    else if (served && (d->down || d->refused) && d->missing.lines.count)
        tw_destination_lose_path(d, d->trouble.what, now_ns);
}

/* ---- What the connection tells ------------------------------------------------------------------
 */

static void on_down(void *side, const struct tw_error *why)
{
    struct tw_destination *d = side;
    count_received(d);
    d->conn = NULL;
    d->down = true;
    if (!d->peer_aborted && !d->refused)
        d->trouble = *why;
}

/* Prepared with lines to come is of no use without the source, unless somebody else has them. */
static bool is_worth_nothing(const struct tw_destination *d)
{
    return d->missing.lines.count && !d->env.dial_mirror;
}

/* Looks at what has changed around us, before a step. */
static void look_around(struct tw_destination *d, uint64_t now_ns)
{
    bool before = tw_destination_is_before_prepared(d);
    if (!before && d->machine.state != TW_DESTINATION_PREPARED) {
        look_around_after(d, now_ns);
        return;
    }
    if (!tw_host_alive(d->host))
        fail(d, TW_UNAVAILABLE, "the process of the incoming machine has ended");
    else if (d->peer_aborted)
        tw_destination_give_back(d, &d->trouble);
    else if ((before || is_worth_nothing(d)) && (d->refused || d->down))
        tw_destination_give_back(d, &d->trouble);
    else if (before && now_ns >= d->deadline_ns)
        fail(d, TW_DEADLINE_EXCEEDED,
             d->machine.state == TW_DESTINATION_WAITING
                 ? "the source has not connected in time"
                 : "the migration took longer than its limit");
}

uint64_t tw_destination_step(struct tw_destination *d)
{
    uint64_t now_ns = tw_now(d->env.clock);
    look_around(d, now_ns);
    if (tw_machine_done(&d->machine))
        return tw_farewell_step(&d->farewell, &d->conn, now_ns);
    uint64_t served = tw_destination_serve(d, now_ns);
    uint64_t due = steps[d->machine.state](d, now_ns);
    due = served < due ? served : due;
    bool limited = tw_destination_is_before_prepared(d) && d->deadline_ns < due;
    return limited ? d->deadline_ns : due;
}

/* ---- Made and freed -------------------------------------------------------------------------- */

enum tw_code tw_destination_new(const struct tw_migration_env *env,
                                const struct tw_migration_params *params, struct tw_host *host,
                                struct tw_destination **destination, struct tw_error *err)
{
    enum tw_code code = tw_migration_params_check(params, host, err);
    if (code != TW_OK)
        return code;
    struct tw_destination *d = calloc(1, sizeof *d);
    if (!d)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, params->id, NULL, NULL, "no memory");
    d->env = *env;
    d->params = *params;
    d->limits = tw_limits_complete(params->limits);
    d->host = host;
    d->call.host = host;
    d->end = (struct tw_migration_end){tw_destination_on_up, tw_destination_on_chunk, on_down, d};
    d->hand_over = TW_HAND_OVER_ACTIVE;
    tw_meter_init(&d->meter, host->memory_bytes, tw_now(env->clock));
    tw_machine_init(&d->machine, &tw_destination_table, d, env->trace, env->ctx);
    *destination = d;
    return TW_OK;
}

enum tw_code tw_destination_start(const struct tw_migration_env *env,
                                  const struct tw_migration_params *params, struct tw_host *host,
                                  uint64_t connect_timeout_ns, struct tw_destination **destination,
                                  struct tw_error *err)
{
    struct tw_destination *d;
    enum tw_code code = tw_destination_new(env, params, host, &d, err);
    if (code != TW_OK)
        return code;
    code = env->journal(env->ctx, TW_HAND_OVER_ACTIVE, err);
    if (code != TW_OK) {
        tw_destination_free(d);
        return code;
    }
    d->deadline_ns =
        tw_after(d->meter.start_ns, connect_timeout_ns ? connect_timeout_ns : CONNECT_TIMEOUT_NS);
    tw_destination_move(d, TW_DESTINATION_WAITING, "started");
    *destination = d;
    return TW_OK;
}

void tw_destination_wait_anew(struct tw_destination *d, uint64_t connect_timeout_ns)
{
    if (d->machine.state == TW_DESTINATION_WAITING)
        d->deadline_ns = tw_after(tw_now(d->env.clock), connect_timeout_ns);
}

enum tw_code tw_destination_adopt(const struct tw_migration_env *env,
                                  const struct tw_migration_params *params, struct tw_host *host,
                                  struct tw_destination **destination, struct tw_error *err)
{
    struct tw_destination *d;
    enum tw_code code = tw_destination_new(env, params, host, &d, err);
    if (code != TW_OK)
        return code;
    d->hand_over = TW_HAND_OVER_PREPARED;
    tw_destination_move(d, TW_DESTINATION_PREPARED, "adopted");
    *destination = d;
    return TW_OK;
}

enum tw_code tw_destination_accept(struct tw_destination *d, struct tw_conn *conn,
                                   const struct tw_hello *hello, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    tw_migration_where(&d->params, where);
    if (memcmp(hello->owner, d->params.token, TW_OWNER_SIZE) != 0)
        return tw_fail(err, TW_UNAUTHENTICATED, where, NULL, NULL, "not this migration's token");
    if (d->machine.state != TW_DESTINATION_WAITING)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, "waiting",
                       tw_machine_state_name(&d->machine), "a source was here before");
    if (hello->epoch != d->params.epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, NULL, NULL,
                       "the source works towards another epoch");
    enum tw_code code = tw_received_open(&d->received, d->host, err);
    if (code != TW_OK)
        return code;
    d->conn = conn;
    d->deadline_ns =
        tw_after(tw_now(d->env.clock), tw_after(d->limits.timeout_ns, DEADLINE_SLACK_NS));
    tw_destination_move(d, TW_DESTINATION_RECEIVING, "the source has connected");
    return TW_OK;
}

void tw_destination_free(struct tw_destination *d)
{
    if (!d)
        return;
    tw_destination_close_connection(d);
    tw_received_close(&d->received);
    if (d->missing.shown && d->host->faults->view)
        d->host->faults->view(d->host->ctx, NULL);
    tw_big_array_close(d->missing.watched, d->host->memory_bytes / TW_PAGE_SIZE / 64 + 1);
    tw_line_set_close(&d->missing.lines);
    free(d->device_state.data);
    free(d);
}

/* ---- Asked from outside ---------------------------------------------------------------------- */

enum tw_code tw_destination_commit(struct tw_destination *d, uint64_t epoch, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    tw_migration_where(&d->params, where);
    if (epoch != d->params.epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, NULL, NULL,
                       "prepared for epoch %llu, not %llu", (unsigned long long)d->params.epoch,
                       (unsigned long long)epoch);
    if (d->hand_over == TW_HAND_OVER_COMMITTED)
        return TW_OK;
    if (d->machine.state != TW_DESTINATION_PREPARED)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, "prepared",
                       tw_machine_state_name(&d->machine), "cannot commit");
    return tw_destination_take_over(d, "told that the source has given up", err);
}

enum tw_code tw_destination_abort(struct tw_destination *d, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    if (d->hand_over == TW_HAND_OVER_ABORTED)
        return TW_OK;
    if (d->hand_over == TW_HAND_OVER_COMMITTED)
        return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&d->params, where), NULL,
                       tw_machine_state_name(&d->machine), "the VM was taken over already");
    /* Whoever gave this order may let the source run again as soon as we have agreed. */
    if (d->machine.state == TW_DESTINATION_PREPARED) {
        enum tw_code code = d->env.journal(d->env.ctx, TW_HAND_OVER_ABORTED, err);
        if (code != TW_OK)
            return code;
        d->hand_over = TW_HAND_OVER_ABORTED;
    }
    fail(d, TW_CANCELLED, "told to abort");
    return TW_OK;
}

bool tw_destination_done(const struct tw_destination *d)
{
    return tw_machine_done(&d->machine) && !d->conn;
}

bool tw_destination_peer_lost(const struct tw_destination *d)
{
    bool lost =
        d->machine.state == TW_DESTINATION_PATH_LOST || d->machine.state == TW_DESTINATION_PAUSED;
    return lost || (d->machine.state == TW_DESTINATION_PREPARED && !d->conn);
}

enum tw_hand_over tw_destination_hand_over(const struct tw_destination *d)
{
    bool follows = tw_destination_postcopies(d) && !tw_machine_done(&d->machine);
    return follows && d->hand_over == TW_HAND_OVER_COMMITTED ? TW_HAND_OVER_COMMITTED_PARTLY
                                                             : d->hand_over;
}

const struct tw_error *tw_destination_error(const struct tw_destination *d)
{
    return d->failed ? &d->error : NULL;
}

struct tw_migration_end *tw_destination_end(struct tw_destination *d)
{
    return &d->end;
}

void tw_destination_mutate(struct tw_destination *d, struct tw_migration_mutations mutations)
{
    d->mutations = mutations;
}

void tw_destination_progress(const struct tw_destination *d, struct tw_migration_progress *out)
{
    uint64_t now_ns = tw_now(d->env.clock);
    *out = d->meter.p;
    out->phase = tw_machine_state_name(&d->machine);
    out->rate_bytes_per_s = tw_meter_rate(&d->meter, now_ns);
    out->method = (enum tw_migration_method)d->begin.method;
    out->lines_left = d->missing.lines.count;
    if (d->machine.state == TW_DESTINATION_PATH_LOST || d->machine.state == TW_DESTINATION_PAUSED) {
        uint64_t deadline_ns = d->recovery.deadline_ns;
        out->path_lost_ns = now_ns - d->recovery.lost_ns + 1;
        out->path_left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        out->path_waited_ns += now_ns - d->recovery.lost_ns;
    }
    out->foresight = tw_destination_foresight(d);
    out->fault_p50_ns = tw_destination_wait_ns(d, 50);
    out->fault_p99_ns = tw_destination_wait_ns(d, 99);
    if (d->conn) {
        struct tw_conn_stats stats;
        tw_conn_stats_get(d->conn, &stats);
        out->bytes_sent += stats.bytes_received;
    }
    if (d->meter.end_ns == 0)
        out->total_ns = now_ns - d->meter.start_ns;
}
