#include "services/migration/source.h"

#include <stdlib.h>
#include <string.h>

#define CONNECT_LIMIT_NS (10 * TW_SEC)
#define HOOK_AFTERMATH_NS                                                                          \
    (10 * TW_SEC) /* for a hook that still works on an aborted switch-over                         \
                   */

/* ---- The table ------------------------------------------------------------------------------- */

static bool vm_runs(const void *object)
{
    const struct tw_source *s = object;
    return !s->stop_asked;
}

static bool vm_stopped(const void *object)
{
    const struct tw_source *s = object;
    return s->stop_asked;
}

static bool given_up(const void *object)
{
    const struct tw_source *s = object;
    return s->stop_asked && s->hand_over == TW_HAND_OVER_GIVEN_UP;
}

static bool completed(const void *object)
{
    const struct tw_source *s = object;
    return s->stop_asked && s->hand_over == TW_HAND_OVER_COMMITTED && !s->tracker;
}

static bool aborted(const void *object)
{
    const struct tw_source *s = object;
    return !s->stop_asked && !s->tracker;
}

static bool lost(const void *object)
{
    const struct tw_source *s = object;
    return !s->tracker && s->failed;
}

/* Where an abort leads from a state in which the VM runs, and from one in which it may not. */
#define OUT_RUNNING (TW_MAY(TW_SOURCE_ABORTED) | TW_MAY(TW_SOURCE_LOST))
#define OUT_STOPPED (TW_MAY(TW_SOURCE_RESUMING) | TW_MAY(TW_SOURCE_LOST))

static const struct tw_state states[TW_SOURCE_STATES] = {
    [TW_SOURCE_NEW] = {"new", TW_MAY(TW_SOURCE_CONNECTING) | TW_MAY(TW_SOURCE_GIVEN_UP),
                       "just made, or read back from the journal", NULL},
    [TW_SOURCE_CONNECTING] = {"connecting",
                              TW_MAY(TW_SOURCE_FULL_COPY) | TW_MAY(TW_SOURCE_ANNOUNCING) |
                                  OUT_RUNNING,
                              "the VM runs, nothing is tracked yet", vm_runs},
    [TW_SOURCE_ANNOUNCING] = {"announcing", TW_MAY(TW_SOURCE_STOPPING) | OUT_RUNNING,
                              "post-copy: the destination makes room for what will follow",
                              vm_runs},
    [TW_SOURCE_FULL_COPY] = {"full_copy", TW_MAY(TW_SOURCE_WAITING) | OUT_RUNNING,
                             "lines are tracked, every page is sent once", vm_runs},
    [TW_SOURCE_WAITING] = {"waiting",
                           TW_MAY(TW_SOURCE_ROUND) | TW_MAY(TW_SOURCE_PRECOMPARE) |
                               TW_MAY(TW_SOURCE_STOPPING) | OUT_RUNNING,
                           "judges whether what is dirty fits the downtime", vm_runs},
    [TW_SOURCE_ROUND] = {"round", TW_MAY(TW_SOURCE_WAITING) | OUT_RUNNING,
                         "sends the dirty lines of the last epoch", vm_runs},
    [TW_SOURCE_PRECOMPARE] = {"precompare",
                              TW_MAY(TW_SOURCE_WAITING) | TW_MAY(TW_SOURCE_ROUND) | OUT_RUNNING,
                              "looks for lines that no event reported", vm_runs},
    [TW_SOURCE_STOPPING] = {"stopping", TW_MAY(TW_SOURCE_FINAL_PASS) | OUT_STOPPED,
                            "the vCPUs are being stopped", NULL},
    [TW_SOURCE_FINAL_PASS] = {"final_pass",
                              TW_MAY(TW_SOURCE_COMPARE) | TW_MAY(TW_SOURCE_SENDING_MAP) |
                                  TW_MAY(TW_SOURCE_SAVING_STATE) | OUT_STOPPED,
                              "the VM is stopped, caches swept, last lines sent or named",
                              vm_stopped},
    [TW_SOURCE_COMPARE] = {"compare",
                           TW_MAY(TW_SOURCE_SENDING_MAP) | TW_MAY(TW_SOURCE_SAVING_STATE) |
                               OUT_STOPPED,
                           "all memory against the hashes of what was sent", vm_stopped},
    [TW_SOURCE_SENDING_MAP] = {"sending_map", TW_MAY(TW_SOURCE_SAVING_STATE) | OUT_STOPPED,
                               "post-copy: names the lines that will follow the VM", vm_stopped},
    [TW_SOURCE_SAVING_STATE] = {"saving_state", TW_MAY(TW_SOURCE_SENDING_STATE) | OUT_STOPPED,
                                "CPU and device state", vm_stopped},
    [TW_SOURCE_SENDING_STATE] = {"sending_state", TW_MAY(TW_SOURCE_VERIFYING) | OUT_STOPPED, NULL,
                                 vm_stopped},
    [TW_SOURCE_VERIFYING] = {"verifying",
                             TW_MAY(TW_SOURCE_MIRRORING) | TW_MAY(TW_SOURCE_HOOK) |
                                 TW_MAY(TW_SOURCE_GIVING_UP) | OUT_STOPPED,
                             "the destination loads, compares, makes durable", vm_stopped},
    [TW_SOURCE_MIRRORING] = {"mirroring",
                             TW_MAY(TW_SOURCE_HOOK) | TW_MAY(TW_SOURCE_GIVING_UP) | OUT_STOPPED,
                             "a third host does not hold yet what is to follow", vm_stopped},
    [TW_SOURCE_HOOK] = {"hook", TW_MAY(TW_SOURCE_GIVING_UP) | OUT_STOPPED,
                        "both hold the whole VM, neither runs it", vm_stopped},
    [TW_SOURCE_GIVING_UP] = {"giving_up", TW_MAY(TW_SOURCE_GIVEN_UP) | OUT_STOPPED,
                             "the journal is being written", vm_stopped},
    [TW_SOURCE_GIVEN_UP] = {"given_up",
                            TW_MAY(TW_SOURCE_COMPLETED) | TW_MAY(TW_SOURCE_SERVING) |
                                TW_MAY(TW_SOURCE_RESUMING),
                            "durable: runs again only if told to reclaim", given_up},
    [TW_SOURCE_SERVING] = {"serving", TW_MAY(TW_SOURCE_COMPLETED) | TW_MAY(TW_SOURCE_PATH_LOST),
                           "post-copy: the VM runs at the destination, its lines follow", given_up},
    [TW_SOURCE_PATH_LOST] = {"path_lost", TW_MAY(TW_SOURCE_SERVING) | TW_MAY(TW_SOURCE_COMPLETED),
                             "lines are missing at the destination, which has to connect again",
                             given_up},
    [TW_SOURCE_COMPLETED] = {"completed", 0, "the destination owns the VM", completed},
    [TW_SOURCE_RESUMING] = {"resuming", TW_MAY(TW_SOURCE_ABORTED) | TW_MAY(TW_SOURCE_LOST),
                            "the VM is continued here", vm_stopped},
    [TW_SOURCE_ABORTED] = {"aborted", 0, "the VM runs on here", aborted},
    [TW_SOURCE_LOST] = {"lost", 0, "the VM's own process has ended", lost},
};

const struct tw_machine_table tw_source_table = {"source", states, TW_SOURCE_STATES};

typedef uint64_t (*step_fn)(struct tw_source *s, uint64_t now_ns);
static const step_fn steps[TW_SOURCE_STATES] = {
    [TW_SOURCE_CONNECTING] = tw_source_step_connecting,
    [TW_SOURCE_ANNOUNCING] = tw_source_step_announcing,
    [TW_SOURCE_FULL_COPY] = tw_source_step_full_copy,
    [TW_SOURCE_WAITING] = tw_source_step_waiting,
    [TW_SOURCE_ROUND] = tw_source_step_round,
    [TW_SOURCE_PRECOMPARE] = tw_source_step_precompare,
    [TW_SOURCE_STOPPING] = tw_source_step_stopping,
    [TW_SOURCE_FINAL_PASS] = tw_source_step_final_pass,
    [TW_SOURCE_COMPARE] = tw_source_step_compare,
    [TW_SOURCE_SENDING_MAP] = tw_source_step_sending_map,
    [TW_SOURCE_SAVING_STATE] = tw_source_step_saving_state,
    [TW_SOURCE_SENDING_STATE] = tw_source_step_sending_state,
    [TW_SOURCE_VERIFYING] = tw_source_step_verifying,
    [TW_SOURCE_MIRRORING] = tw_source_step_mirroring,
    [TW_SOURCE_HOOK] = tw_source_step_hook,
    [TW_SOURCE_GIVING_UP] = tw_source_step_giving_up,
    [TW_SOURCE_GIVEN_UP] = tw_source_step_given_up,
    [TW_SOURCE_SERVING] = tw_source_step_serving,
    [TW_SOURCE_PATH_LOST] = tw_source_step_path_lost,
    [TW_SOURCE_RESUMING] = tw_source_step_resuming,
};

/* ---- How it ends ----------------------------------------------------------------------------- */

bool tw_source_is_before_give_up(const struct tw_source *s)
{
    return s->machine.state <= TW_SOURCE_GIVING_UP;
}

void tw_source_move(struct tw_source *s, enum tw_source_state to, const char *why)
{
    tw_machine_move(&s->machine, to, why);
    if (tw_machine_done(&s->machine))
        tw_meter_end(&s->meter, tw_now(s->env.clock));
}

static void note_error(struct tw_source *s, const struct tw_error *why)
{
    s->error = *why;
    s->failed = true;
}

void tw_source_close_connection(struct tw_source *s)
{
    tw_source_copy_drop(s);
    if (s->conn) {
        struct tw_conn_stats stats;
        tw_conn_stats_get(s->conn, &stats);
        s->meter.p.bytes_sent += stats.bytes_sent;
    }
    tw_conn_close(s->conn);
    s->conn = NULL;
}

void tw_source_let_go(struct tw_source *s)
{
    tw_source_pace_end(s);
    tw_source_copy_drop(s);
    s->copy.lines = 0;
    tw_tracker_stop(s->tracker);
    s->tracker = NULL;
    tw_line_hashes_close(&s->hashes);
    tw_found_close(&s->found);
    free(s->device_state.data);
    s->device_state = (struct tw_host_state){0};
}

/* The durable truth before this is ACTIVE, and whoever reads that after a crash runs the VM here
 * as well: a journal that fails now does no harm. */
static void journal_abort(struct tw_source *s)
{
    struct tw_error err;
    if (s->hand_over != TW_HAND_OVER_ABORTED)
        s->env.journal(s->env.ctx, TW_HAND_OVER_ABORTED, &err);
    s->hand_over = TW_HAND_OVER_ABORTED;
}

static void say_abort(struct tw_source *s, const struct tw_error *why)
{
    union tw_control message;
    if (!s->up) { /* nobody there to tell */
        tw_source_close_connection(s);
        return;
    }
    tw_control_abort_pack(&message.abort, why, false);
    tw_farewell_say(&s->farewell, TW_CONTROL_ABORT, &message, tw_now(s->env.clock));
}

void tw_source_abort(struct tw_source *s, const struct tw_error *why)
{
    note_error(s, why);
    if (!tw_source_is_before_give_up(s)) {
        tw_source_close_connection(s);
        return;
    }
    tw_source_let_go(s);
    tw_source_rest_close(s);
    tw_source_mirror_release(s);
    say_abort(s, why);
    journal_abort(s);
    s->hook_until_ns = tw_after(tw_now(s->env.clock), HOOK_AFTERMATH_NS);
    tw_source_move(s, s->stop_asked ? TW_SOURCE_RESUMING : TW_SOURCE_ABORTED, why->what);
}

uint64_t tw_source_fail(struct tw_source *s, enum tw_code code, const char *what)
{
    struct tw_error err;
    char where[TW_WHERE_SIZE];
    tw_fail(&err, code, tw_migration_where(&s->params, where), NULL, NULL, "%s", what);
    tw_source_abort(s, &err);
    return tw_now(s->env.clock);
}

void tw_source_complete(struct tw_source *s, const char *why)
{
    s->failed = s->rest.wrong;
    s->hand_over = TW_HAND_OVER_COMMITTED;
    tw_source_rest_close(s);
    tw_source_mirror_release(s);
    tw_source_close_connection(s);
    tw_source_move(s, TW_SOURCE_COMPLETED, why);
}

static void lose(struct tw_source *s)
{
    struct tw_error err;
    char where[TW_WHERE_SIZE];
    tw_fail(&err, TW_UNAVAILABLE, tw_migration_where(&s->params, where), NULL, NULL,
            "the process of vm %s has ended", s->params.vm);
    note_error(s, &err);
    tw_source_let_go(s);
    tw_source_rest_close(s);
    tw_source_mirror_release(s);
    say_abort(s, &err);
    journal_abort(s);
    tw_source_move(s, TW_SOURCE_LOST, err.what);
}

/* ---- What the connection tells ------------------------------------------------------------------
 */

static void on_up(void *side)
{
    struct tw_source *s = side;
    s->up = true;
}

static enum tw_code on_chunk(void *side, enum tw_lane lane, const struct tw_chunk_header *header,
                             const uint8_t *payload, struct tw_error *err)
{
    struct tw_source *s = side;
    union tw_control m;
    if (header->kind == TW_CHUNK_BLOB && s->rest.asking)
        return tw_source_take_missing(s, header, payload, err);
    if (header->kind != TW_CHUNK_CONTROL)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, "control", NULL,
                       "a destination sends nothing but control messages");
    enum tw_code code = tw_control_decode(header, lane, payload, &m, err);
    if (code != TW_OK)
        return code;
    bool expected = false;
    if (header->tag == TW_CONTROL_PREPARED) {
        expected = s->machine.state == TW_SOURCE_VERIFYING && m.prepared.epoch == s->params.epoch;
        s->prepared |= expected;
        s->peer_compared |= expected && m.prepared.compared;
    } else if (header->tag == TW_CONTROL_RUNNING) {
        expected = s->machine.state == TW_SOURCE_GIVEN_UP && m.epoch.epoch == s->params.epoch;
        s->running |= expected;
    } else if (header->tag == TW_CONTROL_ABORT) {
        expected = true;
        s->peer_aborted = true;
        s->peer_compared |= m.abort.compared;
        tw_control_abort_unpack(&m.abort, &s->peer_error);
    } else if (header->tag == TW_CONTROL_MISSING) {
        return tw_source_hears_missing(s, &m.missing, err);
    } else {
        expected = tw_source_rest_hears(s, header->tag, &m);
    }
    if (expected || !tw_source_is_before_give_up(s))
        return TW_OK;
    return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, NULL, tw_machine_state_name(&s->machine),
                   "unexpected message %s", tw_control_name(header->tag));
}

static void on_down(void *side, const struct tw_error *why)
{
    struct tw_source *s = side;
    struct tw_conn_stats stats;
    tw_conn_stats_get(s->conn, &stats);
    s->meter.p.bytes_sent += stats.bytes_sent;
    s->conn = NULL;
    s->copy.payload = NULL;
    s->down = true;
    s->rest.asking = false;
    if (!s->peer_aborted)
        s->peer_error = *why;
}

/* Looks at what has changed around us, before a step. */
static void look_around(struct tw_source *s, uint64_t now_ns)
{
    if (tw_machine_done(&s->machine))
        return;
    bool before = tw_source_is_before_give_up(s);
    if ((before || s->machine.state == TW_SOURCE_RESUMING) && !tw_host_alive(s->host)) {
        lose(s);
        return;
    }
    if (!before) {
        if (s->down && !s->failed && !s->rest.whole)
            note_error(s, &s->peer_error);
        if (s->machine.state == TW_SOURCE_SERVING && !s->conn && !s->rest.whole)
            tw_source_lose_path(s, s->failed ? s->error.what : "no connection");
        return;
    }
    s->meter.p.memory_compared |= s->peer_compared;
    s->meter.p.memory_equal |= s->prepared && s->peer_compared;
    if (s->peer_aborted || s->down)
        tw_source_abort(s, &s->peer_error);
    else if (now_ns >= tw_after(s->meter.start_ns, s->limits.timeout_ns))
        tw_source_fail(s, TW_DEADLINE_EXCEEDED, "the migration took longer than its limit");
    else if (s->stop_asked && s->machine.state != TW_SOURCE_HOOK && now_ns >= s->stop_deadline_ns)
        tw_source_fail(s, TW_DEADLINE_EXCEEDED, "the VM stood still for too long");
}

static uint64_t next_deadline(const struct tw_source *s)
{
    uint64_t due = tw_after(s->meter.start_ns, s->limits.timeout_ns);
    if (s->stop_asked && s->stop_deadline_ns < due)
        due = s->stop_deadline_ns;
    return tw_source_is_before_give_up(s) ? due : TW_NEVER;
}

/* States in which the VM runs and lines are sent: an operator may have them stand still. */
static bool may_stand(enum tw_source_state state)
{
    return state == TW_SOURCE_FULL_COPY || state == TW_SOURCE_WAITING || state == TW_SOURCE_ROUND ||
           state == TW_SOURCE_PRECOMPARE;
}

uint64_t tw_source_step(struct tw_source *s)
{
    uint64_t now_ns = tw_now(s->env.clock);
    look_around(s, now_ns);
    uint64_t mirrored = tw_source_mirror_step(s, now_ns);
    if (tw_machine_done(&s->machine)) {
        uint64_t left = tw_farewell_step(&s->farewell, &s->conn, now_ns);
        return left < mirrored ? left : mirrored;
    }
    uint64_t served = tw_source_serve(s, now_ns);
    served = mirrored < served ? mirrored : served;
    bool stands =
        tw_source_is_paused(s, now_ns) && may_stand((enum tw_source_state)s->machine.state);
    uint64_t due = stands ? tw_after(s->paused_since_ns, TW_PAUSE_LIMIT_NS)
                          : steps[s->machine.state](s, now_ns);
    uint64_t limit = next_deadline(s);
    uint64_t renewed = tw_source_pace_step(s, now_ns);
    due = served < due ? served : due;
    due = renewed < due ? renewed : due;
    return due < limit ? due : limit;
}

/* ---- Made and freed -------------------------------------------------------------------------- */

static enum tw_code source_new(const struct tw_migration_env *env,
                               const struct tw_migration_params *params, struct tw_host *host,
                               struct tw_source **source, struct tw_error *err)
{
    enum tw_code code = tw_migration_params_check(params, host, err);
    if (code != TW_OK)
        return code;
    struct tw_source *s = calloc(1, sizeof *s);
    if (!s)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, params->id, NULL, NULL, "no memory");
    s->env = *env;
    s->params = *params;
    s->limits = tw_limits_complete(params->limits);
    s->host = host;
    s->call.host = host;
    s->end = (struct tw_migration_end){on_up, on_chunk, on_down, s};
    s->hand_over = TW_HAND_OVER_ACTIVE;
    uint64_t now_ns = tw_now(env->clock);
    tw_meter_init(&s->meter, host->memory_bytes, now_ns);
    s->meter.p.method = s->limits.method;
    s->pace.policy.budget_permille = s->limits.slow_down_permille;
    tw_throttle_init(&s->throttle, s->limits.bandwidth_bytes_per_s, now_ns);
    tw_machine_init(&s->machine, &tw_source_table, s, env->trace, env->ctx);
    *source = s;
    return TW_OK;
}

static enum tw_code connect_to(struct tw_source *s, const char *address, struct tw_error *err)
{
    struct tw_hello hello = {.epoch = s->params.epoch};
    memcpy(hello.owner, s->params.token, TW_OWNER_SIZE);
    uint64_t deadline = tw_after(s->meter.start_ns, CONNECT_LIMIT_NS);
    return tw_fabric_connect(s->env.fabric, address, &hello, deadline, &s->end, &s->conn, err);
}

enum tw_code tw_source_start(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, struct tw_host *host,
                             const char *address, struct tw_source **source, struct tw_error *err)
{
    struct tw_source *s;
    if (!host->device)
        return tw_fail(err, TW_FAILED_PRECONDITION, params->id, NULL, NULL,
                       "vm %s has no device that tracks its lines", params->vm);
    enum tw_code code = source_new(env, params, host, &s, err);
    if (code != TW_OK)
        return code;
    code = tw_line_hashes_open(&s->hashes, host->memory_bytes, err);
    if (code == TW_OK && tw_source_postcopies(s))
        code = tw_foresight_open(&s->rest.foresight, s->limits.foresight, s->hashes.pages, err);
    if (code == TW_OK)
        code = connect_to(s, address, err);
    if (code == TW_OK)
        code = env->journal(env->ctx, TW_HAND_OVER_ACTIVE, err);
    if (code != TW_OK) {
        tw_source_free(s);
        return code;
    }
    tw_source_move(s, TW_SOURCE_CONNECTING, "started");
    *source = s;
    return TW_OK;
}

enum tw_code tw_source_adopt(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, struct tw_host *host,
                             struct tw_source **source, struct tw_error *err)
{
    struct tw_source *s;
    enum tw_code code = source_new(env, params, host, &s, err);
    if (code != TW_OK)
        return code;
    s->stop_asked = true;
    s->stop_ns = s->meter.start_ns;
    s->hand_over = TW_HAND_OVER_GIVEN_UP;
    s->adopted = true;
    if (tw_source_postcopies(s) &&
        tw_foresight_open(&s->rest.foresight, s->limits.foresight,
                          host->memory_bytes / TW_PAGE_SIZE, err) != TW_OK) {
        tw_source_free(s);
        return TW_RESOURCE_EXHAUSTED;
    }
    tw_source_move(s, TW_SOURCE_GIVEN_UP, "adopted");
    *source = s;
    return TW_OK;
}

void tw_source_free(struct tw_source *s)
{
    if (!s)
        return;
    tw_source_close_connection(s);
    tw_source_let_go(s);
    tw_source_rest_close(s);
    tw_source_mirror_close(s);
    free(s);
}

/* ---- Asked from outside ---------------------------------------------------------------------- */

enum tw_code tw_source_cancel(struct tw_source *s, struct tw_error *err)
{
    struct tw_error why;
    char where[TW_WHERE_SIZE];
    if (s->hand_over == TW_HAND_OVER_ABORTED)
        return TW_OK;
    if (!tw_source_is_before_give_up(s))
        return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&s->params, where), NULL,
                       tw_machine_state_name(&s->machine), "the VM was given up already");
    tw_fail(&why, TW_CANCELLED, tw_migration_where(&s->params, where), NULL, NULL, "cancelled");
    tw_source_abort(s, &why);
    return TW_OK;
}

enum tw_code tw_source_switch(struct tw_source *s, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    if (s->limits.method != TW_METHOD_HYBRID)
        return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&s->params, where), "hybrid",
                       s->limits.method == TW_METHOD_PRE_COPY ? "precopy" : "postcopy",
                       "only a hybrid migration can be told to switch");
    s->switch_asked = true;
    tw_source_pause(s, false); /* the later wish counts */
    return TW_OK;
}

void tw_source_set_downtime(struct tw_source *s, uint64_t downtime_ns)
{
    s->limits.downtime_ns = downtime_ns;
}

void tw_source_pause(struct tw_source *s, bool pause)
{
    uint64_t now_ns = tw_now(s->env.clock);
    if (pause == s->paused)
        return;
    if (s->paused)
        s->meter.p.paused_ns += now_ns - s->paused_since_ns;
    s->paused = pause;
    s->paused_since_ns = now_ns;
    tw_source_pace_end(s);
    tw_meter_idle(&s->meter, now_ns); /* a pause says nothing about the link */
}

bool tw_source_is_paused(struct tw_source *s, uint64_t now_ns)
{
    if (s->paused && now_ns >= tw_after(s->paused_since_ns, TW_PAUSE_LIMIT_NS))
        tw_source_pause(s, false);
    return s->paused;
}

void tw_source_set_bandwidth(struct tw_source *s, uint64_t bytes_per_s)
{
    s->limits.bandwidth_bytes_per_s = bytes_per_s;
    if (!s->stop_asked ||
        s->machine.state ==
            TW_SOURCE_SERVING) /* the last lines go as fast as the link takes them */
        tw_throttle_set(&s->throttle, bytes_per_s, tw_now(s->env.clock));
}

static enum tw_code not_given_up(const struct tw_source *s, const char *what, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&s->params, where), "given_up",
                   tw_machine_state_name(&s->machine), "cannot %s", what);
}

enum tw_code tw_source_finish(struct tw_source *s, struct tw_error *err)
{
    if (s->machine.state == TW_SOURCE_COMPLETED)
        return TW_OK;
    if (s->machine.state != TW_SOURCE_GIVEN_UP && s->machine.state != TW_SOURCE_SERVING &&
        s->machine.state != TW_SOURCE_PATH_LOST)
        return not_given_up(s, "finish", err);
    if (s->conn && tw_source_postcopies(s))
        return not_given_up(s, "finish while lines may still follow", err);
    enum tw_code code = s->env.journal(s->env.ctx, TW_HAND_OVER_COMMITTED, err);
    if (code == TW_OK)
        tw_source_complete(s, "told that the destination owns the VM");
    return code;
}

enum tw_code tw_source_reclaim(struct tw_source *s, struct tw_error *err)
{
    if (s->hand_over == TW_HAND_OVER_ABORTED)
        return TW_OK;
    if (s->machine.state != TW_SOURCE_GIVEN_UP || s->conn)
        return not_given_up(s, "reclaim while the peer is there", err);
    enum tw_code code = s->env.journal(s->env.ctx, TW_HAND_OVER_ABORTED, err);
    if (code != TW_OK)
        return code;
    s->hand_over = TW_HAND_OVER_ABORTED;
    tw_source_rest_close(s);
    tw_source_mirror_release(s);
    tw_source_move(s, TW_SOURCE_RESUMING, "told that the destination will never run it");
    return TW_OK;
}

bool tw_source_done(const struct tw_source *s)
{
    return tw_machine_done(&s->machine) && !s->conn && !s->mirror.conn;
}

bool tw_source_peer_lost(const struct tw_source *s)
{
    bool waits = s->machine.state == TW_SOURCE_GIVEN_UP || s->machine.state == TW_SOURCE_SERVING;
    return s->machine.state == TW_SOURCE_PATH_LOST || (waits && !s->conn);
}

enum tw_hand_over tw_source_hand_over(const struct tw_source *s)
{
    return s->hand_over;
}

const struct tw_error *tw_source_error(const struct tw_source *s)
{
    return s->failed ? &s->error : NULL;
}

struct tw_migration_end *tw_source_end(struct tw_source *s)
{
    return &s->end;
}

void tw_source_mutate(struct tw_source *s, struct tw_migration_mutations mutations)
{
    s->mutations = mutations;
}

/* ---- Progress -------------------------------------------------------------------------------- */

/* What the rest of the full copy holds, if it is like the part behind us. */
static uint64_t copy_left(const struct tw_source *s)
{
    uint64_t passed = s->meter.p.full_copy_bytes_done;
    uint64_t left = s->host->memory_bytes - passed;
    return passed ? (uint64_t)((unsigned __int128)left * s->data_bytes / passed) : left;
}

void tw_source_progress(const struct tw_source *s, struct tw_migration_progress *out)
{
    uint64_t now_ns = tw_now(s->env.clock);
    *out = s->meter.p;
    out->phase = tw_machine_state_name(&s->machine);
    out->rate_bytes_per_s = tw_meter_rate(&s->meter, now_ns);
    out->link_bytes_per_s = s->meter.link_rate;
    out->pace_budget_permille = s->limits.method == TW_METHOD_PRE_COPY && s->host->pace
                                    ? s->pace.policy.budget_permille
                                    : 0;
    out->paused = s->paused && !tw_machine_done(&s->machine);
    if (s->paused)
        out->paused_ns += (s->meter.end_ns ? s->meter.end_ns : now_ns) - s->paused_since_ns;
    if (s->tracker) {
        struct tw_tracker_stats stats;
        tw_tracker_stats_get(s->tracker, &stats);
        out->lines_dirty = stats.dirty_lines;
    }
    if (s->conn) {
        struct tw_conn_stats stats;
        tw_conn_stats_get(s->conn, &stats);
        out->bytes_sent += stats.bytes_sent;
    }
    out->predictor = tw_source_postcopies(s) ? tw_foresight_name(&s->rest.foresight) : NULL;
    out->foresight = s->rest.foresight.figures;
    tw_source_mirror_progress(s, out);
    out->lines_left = s->state_said && !s->rest.marking ? s->rest.lines.count : 0;
    if (s->tracker && !s->stop_asked)
        out->eta_ns = tw_estimate_ns(copy_left(s) + out->lines_dirty * TW_LINE_SIZE,
                                     out->rate_bytes_per_s, out->dirty_bytes_per_s);
    if (s->meter.end_ns == 0)
        out->total_ns = now_ns - s->meter.start_ns;
    bool runs_there =
        s->machine.state == TW_SOURCE_SERVING || s->machine.state == TW_SOURCE_PATH_LOST;
    if (s->stop_asked && !tw_machine_done(&s->machine) && !runs_there && !s->adopted)
        out->downtime_ns = now_ns - s->stop_ns - s->hook_ns;
}
