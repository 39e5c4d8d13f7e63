#include "services/migration/tests/scene.h"

#include "services/migration/destination.h"
#include "services/migration/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOPS_MAX       400000u
#define TIME_MAX        (400 * TW_SEC)
#define CUT_SHORT_NS    (50 * TW_MS)
#define CUT_LONG_NS     SCENE_CUT_LONG_NS
#define RESTART_NS      (30 * TW_MS)
#define TRACKER         "migration-m-1"
#define DESTINATION_URL "dst"
#define SOURCE_URL      "src"
#define RECOVER_NS      (400 * TW_MS)
#define OPERATOR_NS     (50 * TW_MS) /* until somebody looks at a VM without a path */

bool scene_taken[3][64][64];

void scene_problem(struct scene *s, const char *format, ...)
{
    va_list args;
    if (s->problem[0])
        return;
    va_start(args, format);
    vsnprintf(s->problem, sizeof s->problem, format, args);
    va_end(args);
}

static uint64_t now_of(const struct scene *s)
{
    return tw_now(s->clock);
}

static bool owns(enum tw_hand_over state)
{
    return state == TW_HAND_OVER_COMMITTED || state == TW_HAND_OVER_COMMITTED_PARTLY;
}

/* ---- What an agent provides to its side ---------------------------------------------------------
 */

/* Only where nobody insists on the mirror, and it is told. */
static bool moves_without_mirror(const struct scene *s)
{
    struct tw_migration_progress p;
    tw_source_progress(s->source, &p);
    return s->config.limits.mirror_optional && p.mirrored == TW_MIRRORED_WITHOUT;
}

static enum tw_code journal(void *ctx, enum tw_hand_over state, struct tw_error *err)
{
    struct scene_side *side = ctx;
    struct scene *s = side->scene;
    side->journal.writes++;
    if (side->journal.fail) {
        side->journal.fail--;
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "journal", NULL, NULL, "the disk is full");
    }
    side->journal.durable = state;
    if (s->config.mirror && side->is_source && state == TW_HAND_OVER_GIVEN_UP &&
        !s->mirror_complete && !moves_without_mirror(s))
        scene_problem(s, "the source gave up before the mirror held what is to follow");
    if (state == TW_HAND_OVER_COMMITTED_PARTLY && s->config.limits.method == TW_METHOD_PRE_COPY)
        scene_problem(s, "a pre-copy wrote down that memory is to follow");
    enum tw_hand_over source = s->side[0].journal.durable;
    bool again = s->side[1].host.running; /* the rest of its memory has come */
    if (!side->is_source && owns(state) && !again && source != TW_HAND_OVER_GIVEN_UP &&
        !s->config.at_destination.start_early)
        scene_problem(s, "the destination took over while the source stood at %d", source);
    return TW_OK;
}

static enum tw_code keep(void *ctx, uint64_t words, bool fresh, uint64_t **memory,
                         struct tw_error *err)
{
    struct scene_side *side = ctx;
    if (fresh) {
        free(side->kept);
        side->kept = calloc(words, sizeof *side->kept);
        side->kept_words = words;
    } else if (side->kept_words != words) {
        return tw_fail(err, TW_NOT_FOUND, "keep", NULL, NULL, "nothing was kept");
    }
    *memory = side->kept;
    return TW_OK;
}

static enum tw_code dial(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                         void *conn_ctx, struct tw_conn **conn, struct tw_error *err)
{
    struct scene *s = ((struct scene_side *)ctx)->scene;
    return tw_fabric_connect(s->fabric[1], SOURCE_URL, hello, deadline_ns, conn_ctx, conn, err);
}

static enum tw_code hook_begin(void *ctx, struct tw_error *err)
{
    struct scene *s = ((struct scene_side *)ctx)->scene;
    if (s->side[0].host.running || s->side[1].host.running)
        scene_problem(s, "a VM runs while the hook switches over");
    if (s->hook_fails && s->config.seed % 2)
        return tw_fail(err, TW_INTERNAL, "hook", NULL, NULL, "cannot be started");
    s->hook_runs = true;
    s->hook_ends_ns = now_of(s) + 3 * TW_MS;
    return TW_OK;
}

static bool hook_poll(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct scene *s = ((struct scene_side *)ctx)->scene;
    if (now_of(s) < s->hook_ends_ns)
        return false;
    *code = s->hook_fails ? tw_fail(err, TW_INTERNAL, "hook", NULL, NULL, "exit status 1") : TW_OK;
    s->hook_runs = false;
    return true;
}

/* ---- Faults ---------------------------------------------------------------------------------- */

/* Those that only prepare a failure. */
static bool arm_failure(struct scene *s, const struct scene_fault *f)
{
    struct fake_host *source = &s->side[0].host, *destination = &s->side[1].host;
    unsigned n = f->count ? f->count : 1;
    struct fake_failures some = {n / 2, n - n / 2};
    switch (f->action) {
    case SCENE_FAIL_SOURCE_JOURNAL:
        s->side[0].journal.fail = n;
        return true;
    case SCENE_FAIL_DESTINATION_JOURNAL:
        s->side[1].journal.fail = n;
        return true;
    case SCENE_FAIL_STOP:
        source->fail[TW_HOST_STOP] = some;
        return true;
    case SCENE_FAIL_SAVE:
        source->fail[TW_HOST_SAVE_STATE] = some;
        return true;
    case SCENE_FAIL_SOURCE_CONTINUE:
        source->fail[TW_HOST_CONTINUE] = some;
        return true;
    case SCENE_FAIL_DESTINATION_CONTINUE:
        destination->fail[TW_HOST_CONTINUE] = some;
        return true;
    case SCENE_FAIL_LOAD:
        destination->fail[TW_HOST_LOAD_STATE] = some;
        return true;
    case SCENE_FAIL_HOOK:
        s->hook_fails = true;
        return true;
    case SCENE_FAIL_RESERVE:
        destination->fail_reserve = n;
        return true;
    case SCENE_FAIL_REJOIN:
        destination->fail_rejoin = n;
        return true;
    case SCENE_FAIL_GUARD:
        destination->fail_guard = n;
        return true;
    default:
        return false;
    }
}

static void crash_source(struct scene *s)
{
    if (!s->source)
        return;
    const struct tw_pace_rule rule = s->side[0].host.pace_rule; /* nobody ends it */
    tw_source_free(s->source);
    s->source = NULL;
    s->side[0].host.pace_rule = rule;
    fake_host_forget_operation(&s->side[0].host);
    tw_tracker_stop(tw_tracker_find(s->side[0].host.host.device, TRACKER));
    s->side[0].restart_ns = now_of(s) + RESTART_NS;
}

static void crash_destination(struct scene *s)
{
    if (!s->destination)
        return;
    tw_destination_free(s->destination);
    s->destination = NULL;
    fake_host_forget_operation(&s->side[1].host);
    s->side[1].restart_ns = now_of(s) + RESTART_NS;
}

static void lose_source_host(struct scene *s)
{
    struct scene_side *side = &s->side[0];
    crash_source(s);
    fake_host_kill(&side->host);
    side->restart_ns = 0;
    side->vm_was_killed = side->host_lost = true;
    side->gone = side->journal.durable == TW_HAND_OVER_GIVEN_UP;
}

static void strike(struct scene *s, const struct scene_fault *f)
{
    switch (f->action) {
    case SCENE_CANCEL:
        if (s->source)
            tw_source_cancel(s->source, NULL);
        break;
    case SCENE_CUT:
    case SCENE_CUT_SHORTLY:
    case SCENE_CUT_LONG:
        tw_sim_cut(s->sim, "src", "dst");
        if (f->action == SCENE_CUT_LONG)
            s->mend_ns = now_of(s) + CUT_LONG_NS;
        if (f->action == SCENE_CUT_SHORTLY)
            s->mend_ns = now_of(s) + CUT_SHORT_NS;
        break;
    case SCENE_DROP_CHUNKS:
        tw_sim_drop_chunks(s->sim, f->count ? f->count : 1);
        break;
    case SCENE_KILL_SOURCE_VM:
    case SCENE_KILL_DESTINATION_VM: {
        struct scene_side *side = &s->side[f->action == SCENE_KILL_DESTINATION_VM];
        fake_host_kill(&side->host);
        side->vm_was_killed = true;
        break;
    }
    case SCENE_CRASH_SOURCE:
        crash_source(s);
        break;
    case SCENE_CRASH_DESTINATION:
        crash_destination(s);
        break;
    case SCENE_ABORT_DESTINATION:
        if (s->destination)
            tw_destination_abort(s->destination, NULL);
        break;
    case SCENE_SWITCH:
        if (s->source)
            tw_source_switch(s->source, NULL);
        break;
    case SCENE_PAUSE:
    case SCENE_RESUME:
        if (s->source)
            tw_source_pause(s->source, f->action == SCENE_PAUSE);
        break;
    case SCENE_NO_PACE:
        if (s->source)
            tw_source_set_slow_down(s->source, 0);
        break;
    case SCENE_SLOW_LINK:
        if (s->source)
            tw_source_set_bandwidth(s->source, f->count ? f->count : 1 << 20);
        break;
    case SCENE_LOSE_SOURCE_HOST:
        lose_source_host(s);
        break;
    default:
        scene_mirror_strike(s, f->action);
        break;
    }
}

void scene_trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                 const char *why)
{
    struct scene_side *side = ctx;
    struct scene *s = side->scene;
    unsigned which = (unsigned)(side - s->side);
    scene_taken[which][from][to] = true;
    if (getenv("SCENE_TRACE"))
        fprintf(stderr, "%10.3f ms  %s: %s -> %s (%s)\n", (double)now_of(s) / 1e6,
                machine->table->name, machine->table->states[from].name,
                machine->table->states[to].name, why);
    if (side->is_source && to == TW_SOURCE_STOPPING) {
        tw_source_progress(s->source, &s->at_source);
        s->found_before_stop = s->at_source.lines_found_by_compare_only;
    }
    for (unsigned i = 0; i < s->config.fault_count; i++) {
        const struct scene_fault *f = &s->config.faults[i];
        unsigned at = f->state & SCENE_AT_MIRROR ? 2 : f->at_source ? 0 : 1;
        if (s->fault[i].armed || at != which || (f->state & ~SCENE_AT_MIRROR) != to)
            continue;
        s->fault[i].armed = true;
        s->fault[i].due_ns = now_of(s) + f->delay_ns;
        s->fault[i].struck = arm_failure(s, f);
    }
}

static void strike_due(struct scene *s)
{
    for (unsigned i = 0; i < s->config.fault_count; i++) {
        if (!s->fault[i].armed || s->fault[i].struck || now_of(s) < s->fault[i].due_ns)
            continue;
        s->fault[i].struck = true;
        strike(s, &s->config.faults[i]);
    }
    if (s->mend_ns && now_of(s) >= s->mend_ns) {
        s->mend_ns = 0;
        tw_sim_mend(s->sim, "src", "dst");
    }
}

/* ---- Rules ----------------------------------------------------------------------------------- */

static bool source_may_run(const struct scene *s)
{
    enum tw_hand_over j = s->side[0].journal.durable;
    return j != TW_HAND_OVER_GIVEN_UP && j != TW_HAND_OVER_COMMITTED;
}

static void on_source_continue(void *ctx)
{
    struct scene *s = ctx;
    s->side[0].host.may_run = source_may_run(s);
}

static void on_destination_continue(void *ctx)
{
    struct scene *s = ctx;
    const struct fake_host *a = &s->side[0].host, *b = &s->side[1].host;
    bool whole = s->config.limits.method == TW_METHOD_PRE_COPY;
    s->side[1].host.may_run = owns(s->side[1].journal.durable) && !source_may_run(s);
    s->memory_checked = true;
    if (!s->side[1].host.expected)
        fake_host_expect(&s->side[1].host);
    s->memory_equal =
        (!whole || memcmp(a->host.memory, b->host.memory, a->host.memory_bytes) == 0) &&
        a->state_size == b->state_size && memcmp(a->state, b->state, a->state_size) == 0;
}

/* A guest whose agent has crashed is slowed until that ends by itself, or another one comes. */
static bool may_slow(const struct scene *s)
{
    const struct tw_source *source = s->source;
    if (!source)
        return s->side[0].restart_ns != 0;
    return !source->stop_asked && !source->paused && !tw_machine_done(&source->machine) &&
           source->limits.slow_down_permille;
}

static void check(struct scene *s)
{
    const struct scene_side *a = &s->side[0], *b = &s->side[1];
    if (a->host.running && b->host.running)
        scene_problem(s, "two copies run");
    if (a->host.ran_too_early || b->host.ran_too_early)
        scene_problem(s, "%s was continued without the right to run",
                      a->host.ran_too_early ? "source" : "destination");
    if (a->host.running && !source_may_run(s))
        scene_problem(s, "the source runs a VM that it has given up");
    if (s->memory_checked && !s->memory_equal)
        scene_problem(s, "the destination was continued with another memory or device state");
    if (b->host.saw_wrong)
        scene_problem(s, "the guest was let at memory that is not as it was");
    if (fake_host_is_slowed(&a->host) && !may_slow(s))
        scene_problem(s, "the guest is slowed in %s",
                      s->source ? tw_machine_state_name(&s->source->machine) : "nobody's name");
    bool copying = s->source && tw_source_hand_over(s->source) == TW_HAND_OVER_ACTIVE;
    if (!copying && tw_tracker_find(a->host.host.device, TRACKER))
        scene_problem(s, "the tracker was left behind");
}

static void check_end(struct scene *s)
{
    const struct scene_side *a = &s->side[0], *b = &s->side[1];
    bool moved = owns(b->journal.durable);
    bool partly = b->journal.durable == TW_HAND_OVER_COMMITTED_PARTLY;
    const struct scene_side *owner = moved ? b : a;
    if (s->stuck) {
        scene_problem(s, "no end: source at %d, destination at %d", a->journal.durable,
                      b->journal.durable);
        return;
    }
    if (!owner->host.running && !owner->vm_was_killed && !owner->vm_was_stranded)
        scene_problem(s, "nobody runs the VM");
    if (partly && !b->vm_was_killed && !b->vm_was_stranded)
        scene_problem(s, "the end came before all of the memory");
    if (moved && !partly && b->host.expected && !fake_host_as_expected(&b->host))
        scene_problem(s, "the memory did not become what it was");
    if (moved && a->journal.durable != TW_HAND_OVER_COMMITTED)
        scene_problem(s, "the source still stands at %d", a->journal.durable);
    if (moved && !s->memory_checked && !b->vm_was_killed && !b->vm_was_stranded)
        scene_problem(s, "the destination was never continued");
    if (s->at_destination.lines_late && !s->config.at_source.send_twice)
        scene_problem(s, "%lu lines came twice", (unsigned long)s->at_destination.lines_late);
    for (uint64_t p = 0; p < s->config.pages; p++)
        if (!b->host.reserved[p] && !b->host.data[p])
            for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++)
                if (!tw_is_zero_line(b->host.host.memory + p * TW_PAGE_SIZE + i * TW_LINE_SIZE))
                    scene_problem(s, "page %lu was written without room for it", (unsigned long)p);
}

/* ---- Agents that start again, and the controller
 * ------------------------------------------------- */

static struct tw_migration_env env_of(struct scene *s, struct scene_side *side)
{
    bool hook = side->is_source && s->config.hook;
    return (struct tw_migration_env){.clock = s->clock,
                                     .fabric = s->fabric[side->is_source ? 0 : 1],
                                     .journal = journal,
                                     .keep = keep,
                                     .dial = dial,
                                     .dial_mirror = s->config.mirror ? scene_mirror_dial : NULL,
                                     .hook_begin = hook ? hook_begin : NULL,
                                     .hook_poll = hook ? hook_poll : NULL,
                                     .trace = scene_trace,
                                     .ctx = side};
}

static void restart_source(struct scene *s)
{
    struct scene_side *side = &s->side[0];
    struct tw_migration_env env = env_of(s, side);
    const struct tw_pace_rule nobody = {0};
    side->restart_ns = 0;
    s->hook_runs = false;
    side->host.host.pace->rule(&side->host, &nobody); /* as an agent does that takes it over */
    side->gone = side->journal.durable == TW_HAND_OVER_GIVEN_UP && !side->host.alive;
    if (side->gone) {
        s->source = NULL; /* no agent finds memory without a process */
    } else if (side->journal.durable == TW_HAND_OVER_GIVEN_UP) {
        if (tw_source_adopt(&env, &s->params, &side->host.host, &s->source, NULL) != TW_OK)
            scene_problem(s, "cannot adopt the source");
    } else if (side->journal.durable != TW_HAND_OVER_COMMITTED) {
        side->journal.durable = TW_HAND_OVER_ABORTED;
        fake_host_continue(&side->host);
    }
}

static void restart_destination(struct scene *s)
{
    struct scene_side *side = &s->side[1];
    struct tw_migration_env env = env_of(s, side);
    side->restart_ns = 0;
    bool partly = s->config.limits.method != TW_METHOD_PRE_COPY;
    if (side->journal.durable == TW_HAND_OVER_PREPARED && !partly) {
        if (tw_destination_adopt(&env, &s->params, &side->host.host, &s->destination, NULL) !=
            TW_OK)
            scene_problem(s, "cannot adopt the destination");
    } else if (side->journal.durable == TW_HAND_OVER_COMMITTED) {
        fake_host_continue(&side->host);
    } else if (side->journal.durable == TW_HAND_OVER_COMMITTED_PARTLY) {
        if (!side->host.alive)
            return; /* its own process has ended, and is said to have */
        if (tw_destination_adopt_partly(&env, &s->params, &side->host.host, &s->destination,
                                        NULL) != TW_OK)
            scene_problem(s, "cannot adopt a destination whose memory follows");
        else
            tw_destination_mutate(s->destination, s->config.at_destination);
    } else {
        side->journal.durable = TW_HAND_OVER_ABORTED;
        fake_host_kill(&side->host);
    }
}

static void restart_due(struct scene *s)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!s->side[i].restart_ns || now_of(s) < s->side[i].restart_ns)
            continue;
        if (i == 0)
            restart_source(s);
        else
            restart_destination(s);
    }
}

static enum tw_hand_over truth(const struct scene *s, unsigned i)
{
    if (i == 0 && s->source)
        return tw_source_hand_over(s->source);
    if (i == 1 && s->destination)
        return tw_destination_hand_over(s->destination);
    return owns(s->side[i].journal.durable) ? TW_HAND_OVER_COMMITTED : s->side[i].journal.durable;
}

/* An agent ends a machine whose memory cannot follow it. */
static void end_stranded(struct scene *s)
{
    struct scene_side *side = &s->side[1];
    if (!s->destination || side->vm_was_stranded || !tw_destination_done(s->destination))
        return;
    const struct tw_error *why = tw_destination_error(s->destination);
    side->vm_was_stranded = why && why->code == TW_DATA_LOSS &&
                            tw_destination_hand_over(s->destination) == TW_HAND_OVER_COMMITTED;
    if (side->vm_was_stranded)
        fake_host_kill(&side->host);
}

/* Decides what the sides cannot decide by themselves. An order may fail and is given again. */
static void control(struct scene *s)
{
    enum tw_hand_over a = truth(s, 0), b = truth(s, 1);
    bool source_waits = s->source && tw_source_peer_lost(s->source);
    bool destination_waits = s->destination && tw_destination_peer_lost(s->destination);
    if (s->side[0].restart_ns || s->side[1].restart_ns)
        return;
    bool moved = b == TW_HAND_OVER_COMMITTED || (owns(b) && !s->destination);
    if (s->destination && s->destination->machine.state == TW_DESTINATION_PAUSED && !s->operator_ns)
        s->operator_ns = now_of(s) + OPERATOR_NS;
    if (s->operator_ns && now_of(s) >= s->operator_ns) { /* looks, mends and tells */
        s->operator_ns = 0;
        s->operator_resumes++;
        tw_sim_mend(s->sim, "src", "dst");
        if (s->destination && s->side[0].host_lost && !scene_mirror_helps(s))
            tw_destination_abandon(s->destination, NULL);
        else if (s->destination)
            tw_destination_reconnect(s->destination, NULL);
    }
    bool nothing = (s->side[0].gone && !s->side[0].host_lost) || a == TW_HAND_OVER_COMMITTED;
    if (destination_waits && owns(b) && nothing && scene_mirror_helps(s))
        tw_destination_from_mirror(s->destination, NULL);
    else if (destination_waits && owns(b) && nothing)
        tw_destination_abandon(s->destination, NULL);
    if (s->side[0].host_lost && destination_waits && b == TW_HAND_OVER_PREPARED) {
        if (s->side[0].gone) /* an operator knows */
            tw_destination_commit(s->destination, s->params.epoch, NULL);
        else
            tw_destination_abort(s->destination, NULL);
    }
    b = truth(s, 1);
    if (s->side[0].gone && b == TW_HAND_OVER_COMMITTED)
        s->side[0].journal.durable = TW_HAND_OVER_COMMITTED; /* told to finish what is gone */
    if (source_waits && moved)
        tw_source_finish(s->source, NULL);
    else if (source_waits && b == TW_HAND_OVER_ABORTED)
        tw_source_reclaim(s->source, NULL);
    else if (source_waits && destination_waits)
        tw_destination_commit(s->destination, s->params.epoch, NULL);
    else if (destination_waits && a == TW_HAND_OVER_ABORTED)
        tw_destination_abort(s->destination, NULL);
}

static bool ended(struct scene *s)
{
    if (s->side[0].restart_ns || s->side[1].restart_ns)
        return false;
    return (!s->source || tw_source_done(s->source)) &&
           (!s->destination || tw_destination_done(s->destination)) && scene_mirror_ended(s);
}

/* ---- Fabric events --------------------------------------------------------------------------- */

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    struct scene_side *side = ctx;
    struct scene *s = side->scene;
    if (side == &s->side[2])
        return scene_mirror_accept(s, conn, hello, conn_ctx, err);
    if (side->is_source) {
        if (!s->source)
            return tw_fail(err, TW_NOT_FOUND, "src", NULL, NULL, "no such migration");
        *conn_ctx = tw_source_end(s->source);
        return tw_source_accept(s->source, conn, hello, err);
    }
    if (!s->destination)
        return tw_fail(err, TW_NOT_FOUND, "dst", NULL, NULL, "no such migration");
    *conn_ctx = tw_destination_end(s->destination);
    return tw_destination_accept(s->destination, conn, hello, err);
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    tw_migration_on_up(ctx, conn);
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    return tw_migration_on_chunk(ctx, conn, lane, header, payload, err);
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    tw_migration_on_down(ctx, conn, why);
}

const struct tw_fabric_events scene_events = {
    .on_accept = on_accept, .on_up = on_up, .on_chunk = on_chunk, .on_down = on_down};

/* ---- Play ------------------------------------------------------------------------------------ */

static void open_network(struct scene *s)
{
    struct tw_sim_config sim = {.seed = s->config.seed,
                                .corrupt_ppm = s->config.corrupt_ppm,
                                .bandwidth_bytes_per_s = s->config.link_bytes_per_s};
    s->sim = tw_sim_open(&sim);
    s->clock = tw_sim_clock(s->sim);
    for (unsigned i = 0; i < 2; i++) {
        struct tw_fabric_config config = {.name = i ? "dst" : "src",
                                          .clock = s->clock,
                                          .events = &scene_events,
                                          .ctx = &s->side[i],
                                          .bulk_credits = 3};
        if (tw_fabric_open(&tw_fabric_sim, s->sim, &config, &s->fabric[i], NULL) != TW_OK)
            abort();
    }
    if (tw_fabric_listen(s->fabric[1], DESTINATION_URL, NULL) != TW_OK ||
        tw_fabric_listen(s->fabric[0], SOURCE_URL, NULL) != TW_OK)
        abort();
    s->side[0].scene = s->side[1].scene = s->side[2].scene = s;
    s->side[0].is_source = true;
    scene_mirror_open(s);
}

static void open_sides(struct scene *s)
{
    const struct scene_config *c = &s->config;
    struct fake_host_config host = {.clock = s->clock,
                                    .pages = c->pages,
                                    .seed = c->seed * 3 + 1,
                                    .link = c->link,
                                    .sees_all_writers = c->sees_all_writers,
                                    .stores_per_ms = c->stores_per_ms,
                                    .unseen_percent = c->unseen_percent,
                                    .hot_pages = c->hot_pages,
                                    .unseen_until_ns = c->unseen_until_ns,
                                    .touches = c->touches,
                                    .by_line = c->by_line};
    for (unsigned i = 0; i < 2; i++) {
        struct scene_side *side = &s->side[i];
        side->scene = s;
        side->is_source = i == 0;
        host.incoming = i == 1;
        fake_host_open(&side->host, &host);
        side->host.on_continue = i ? on_destination_continue : on_source_continue;
        side->host.ctx = s;
    }
    s->side[1].host.original = s->side[0].host.host.memory;
    s->params = (struct tw_migration_params){.id = "m-1",
                                             .vm = "web",
                                             .epoch = 8,
                                             .token = "0123456789abcde",
                                             .limits = c->limits,
                                             .recover_ns = RECOVER_NS};
}

static void start(struct scene *s)
{
    struct tw_migration_env env = env_of(s, &s->side[1]);
    scene_mirror_start(s);
    if (tw_destination_start(&env, &s->params, &s->side[1].host.host, 2 * TW_SEC, &s->destination,
                             NULL) != TW_OK)
        abort();
    tw_destination_mutate(s->destination, s->config.at_destination);
    if (s->config.never_connects)
        return;
    env = env_of(s, &s->side[0]);
    unsigned failing = s->side[0].journal.fail;
    enum tw_code code =
        tw_source_start(&env, &s->params, &s->side[0].host.host, DESTINATION_URL, &s->source, NULL);
    if (code != TW_OK && !failing)
        abort();
    if (code == TW_OK)
        tw_source_mutate(s->source, s->config.at_source);
    if (code == TW_OK)
        scene_mirror_connect(s);
}

static void remember_end(struct scene *s)
{
    if (s->source) {
        tw_source_progress(s->source, &s->at_source);
        if (tw_source_error(s->source))
            s->source_error = *tw_source_error(s->source);
    }
    if (s->destination) {
        tw_destination_progress(s->destination, &s->at_destination);
        if (tw_destination_error(s->destination))
            s->destination_error = *tw_destination_error(s->destination);
    }
    s->source_end = truth(s, 0);
    s->destination_end = truth(s, 1);
    s->end_ns = now_of(s);
}

/* How far the clock may go before somebody has something to do. */
static uint64_t pace(const struct scene *s, uint64_t due)
{
    uint64_t now = now_of(s);
    uint64_t most =
        s->side[0].host.running && s->config.stores_per_ms && s->source ? 2 * TW_MS : 20 * TW_MS;
    if (s->destination && s->side[1].host.guarded)
        most = 100 * TW_US; /* a guest that waits for memory is nobody's due time */
    if (due <= now)
        return 10 * TW_US;
    return due - now < most ? due - now : most;
}

static void play_on(struct scene *s)
{
    for (unsigned loop = 0; loop < LOOPS_MAX && now_of(s) < TIME_MAX; loop++) {
        uint64_t due = TW_NEVER;
        fake_host_run(&s->side[0].host);
        fake_host_run(&s->side[1].host);
        if (s->source)
            due = tw_source_step(s->source);
        if (s->destination) {
            uint64_t d = tw_destination_step(s->destination);
            due = d < due ? d : due;
        }
        uint64_t mirror_due = scene_mirror_step(s);
        due = mirror_due < due ? mirror_due : due;
        strike_due(s);
        restart_due(s);
        control(s);
        end_stranded(s);
        check(s);
        if (s->problem[0] || ended(s))
            return;
        tw_sim_advance(s->sim, pace(s, due));
        tw_fabric_poll(s->fabric[0], 0);
        tw_fabric_poll(s->fabric[1], 0);
        if (s->mirror_fabric)
            tw_fabric_poll(s->mirror_fabric, 0);
        check(s);
    }
    s->stuck = true;
}

bool scene_play(struct scene *s, const struct scene_config *config)
{
    memset(s, 0, sizeof *s);
    s->config = *config;
    open_network(s);
    open_sides(s);
    start(s);
    play_on(s);
    remember_end(s);
    if (!s->problem[0])
        check_end(s);
    tw_source_free(s->source);
    tw_destination_free(s->destination);
    scene_mirror_close(s);
    tw_fabric_close(s->fabric[0]);
    tw_fabric_close(s->fabric[1]);
    fake_host_close(&s->side[0].host);
    fake_host_close(&s->side[1].host);
    free(s->side[1].kept);
    tw_sim_close(s->sim);
    return s->problem[0] == '\0';
}

bool scene_play_loud(struct scene *s, const struct scene_config *config)
{
    static const char *const names[] = {"source", "destination", "mirror"};
    static const struct tw_machine_table *const tables[] = {&tw_source_table, &tw_destination_table,
                                                            &tw_mirror_table};
    if (scene_play(s, config))
        return true;
    fprintf(stderr, "seed %lu, method %d: %s; source %s (%s), destination %s (%s)\n",
            (unsigned long)config->seed, (int)config->limits.method, s->problem,
            s->at_source.phase ? s->at_source.phase : "-", s->source_error.what,
            s->at_destination.phase ? s->at_destination.phase : "-", s->destination_error.what);
    for (unsigned i = 0; i < config->fault_count; i++) {
        const struct scene_fault *f = &config->faults[i];
        unsigned at = f->state & SCENE_AT_MIRROR ? 2 : f->at_source ? 0 : 1;
        fprintf(stderr, "  fault: %s.%s + %lu us: action %d x %u\n", names[at],
                tables[at]->states[f->state & ~SCENE_AT_MIRROR].name,
                (unsigned long)(f->delay_ns / TW_US), f->action, f->count);
    }
    return false;
}

struct scene_config scene_plain(uint64_t seed)
{
    return (struct scene_config){.seed = seed,
                                 .pages = 128,
                                 .link = FAKE_LINK_MARKS,
                                 .stores_per_ms = 20,
                                 .unseen_percent = 5,
                                 .hot_pages = 16,
                                 .limits = {.timeout_ns = 60 * TW_SEC}};
}
