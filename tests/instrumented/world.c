#include "tests/instrumented/world.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS (60 * TW_SEC)
#define SLICE_NS    (50 * TW_US)

static void die(const char *what)
{
    fprintf(stderr, "world: %s\n", what);
    abort();
}

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[512];
    if (code)
        die(tw_error_text(err, text, sizeof text));
}

static uint64_t soon(void)
{
    return tw_after(tw_now(&tw_monotonic), PATIENCE_NS);
}

/* ---- What an agent provides to its side -------------------------------------------------------
 */

static enum tw_code journal(void *ctx, enum tw_hand_over state, struct tw_error *err)
{
    (void)err;
    ((struct world_side *)ctx)->durable = state;
    return TW_OK;
}

/* The VM stands still from there on, and only what it waits for is to be sent behind that. */
static void trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                  const char *why)
{
    const struct world *w = ((struct world_side *)ctx)->world;
    (void)from;
    (void)why;
    if (w->pause_at_switch && strcmp(machine->table->states[to].name, "saving_state") == 0)
        tw_source_pause(w->from, true);
}

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    struct world *w = ((struct world_side *)ctx)->world;
    if (w->to == NULL || ctx != &w->destination)
        return tw_fail(err, TW_NOT_FOUND, "world", NULL, NULL, "no such migration");
    *conn_ctx = tw_destination_end(w->to);
    return tw_destination_accept(w->to, conn, hello, err);
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

static const struct tw_fabric_events events = {
    .on_accept = on_accept, .on_up = on_up, .on_chunk = on_chunk, .on_down = on_down};

/* ---- Opening ----------------------------------------------------------------------------------
 */

static void open_side(struct world_side *side, const char *name, bool incoming,
                      uint64_t patience_ns)
{
    const struct tw_instrumented_config moving = {.mode = TW_INST_MOVING};
    const struct tw_instrumented_region_config region = {
        .address = REGION_AT, .incoming = incoming, .patience_ns = patience_ns};
    const struct tw_fabric_config fabric = {
        .name = name, .clock = &tw_monotonic, .events = &events, .ctx = side};
    struct tw_error err;
    subject_prepare(&side->program);
    subject_listen(&side->program);
    subject_start(&side->program, TEST_MOVER);
    subject_attach(&side->program, &moving);
    subject_region(&side->program); /* of the control page */
    must(tw_instrumented_region_open(side->program.program, &region, soon(), &side->region, &err),
         &err);
    side->host = tw_instrumented_region_host(side->region);
    must(tw_fabric_open(&tw_fabric_tcp, NULL, &fabric, &side->fabric, &err), &err);
}

void world_open(struct world *w, uint64_t patience_ns)
{
    *w = (struct world){0};
    w->source.world = w->destination.world = w;
    open_side(&w->source, "src", false, patience_ns);
    open_side(&w->destination, "dst", true, patience_ns);
    world_do(&w->source, FILL);
}

static void close_side(struct world_side *side)
{
    tw_fabric_close(side->fabric);
    tw_instrumented_region_close(side->region);
    subject_close(&side->program);
}

void world_close(struct world *w)
{
    tw_source_free(w->from);
    tw_destination_free(w->to);
    close_side(&w->source);
    close_side(&w->destination);
}

void world_start(struct world *w, const struct tw_migration_limits *limits)
{
    struct tw_error err;
    w->params = (struct tw_migration_params){
        .id = "m-1", .vm = "region", .epoch = 8, .token = "0123456789abcde", .limits = *limits};
    struct tw_migration_env env = {.clock = &tw_monotonic,
                                   .fabric = w->destination.fabric,
                                   .journal = journal,
                                   .ctx = &w->destination};
    must(tw_fabric_listen(w->destination.fabric, "127.0.0.1:0", &err), &err);
    must(tw_destination_start(&env, &w->params, w->destination.host, PATIENCE_NS, &w->to, &err),
         &err);
    env.fabric = w->source.fabric;
    env.trace = trace;
    env.ctx = &w->source;
    must(tw_source_start(&env, &w->params, w->source.host, tw_fabric_address(w->destination.fabric),
                         &w->from, &err),
         &err);
}

void world_mutate(struct world *w, struct tw_migration_mutations source,
                  struct tw_migration_mutations destination)
{
    tw_source_mutate(w->from, source);
    tw_destination_mutate(w->to, destination);
}

/* ---- Running ----------------------------------------------------------------------------------
 */

void world_look(struct world *w)
{
    tw_source_progress(w->from, &w->sent);
    tw_destination_progress(w->to, &w->received);
}

void world_step(struct world *w)
{
    if (w->from == NULL)
        return;
    tw_source_step(w->from);
    tw_destination_step(w->to);
    world_look(w);
    tw_fabric_poll(w->source.fabric, 0);
    tw_fabric_poll(w->destination.fabric, tw_after(tw_now(&tw_monotonic), SLICE_NS));
}

bool world_switch(struct world *w)
{
    const uint64_t end = soon();
    while (strcmp(w->received.phase ? w->received.phase : "", "fetching")) {
        if (tw_source_done(w->from) || tw_destination_done(w->to))
            return false;
        if (tw_now(&tw_monotonic) > end)
            die("no switch in time");
        world_step(w);
    }
    return true;
}

void world_finish(struct world *w)
{
    const uint64_t end = soon();
    while (!tw_source_done(w->from) || !tw_destination_done(w->to)) {
        if (tw_now(&tw_monotonic) > end)
            die("no end in time");
        world_step(w);
    }
    world_look(w);
}

void world_tell(struct world_side *side, enum scenario scenario)
{
    subject_tell(&side->program, (char)scenario);
}

void world_wait(struct world_side *side)
{
    struct pollfd p = {.fd = side->program.from, .events = POLLIN};
    const uint64_t end = soon();
    while (poll(&p, 1, 0) == 0) {
        if (tw_now(&tw_monotonic) > end)
            die("no answer in time");
        if (side->world->from)
            world_step(side->world);
        else
            poll(&p, 1, 10);
    }
    subject_wait(&side->program);
}

void world_do(struct world_side *side, enum scenario scenario)
{
    world_tell(side, scenario);
    world_wait(side);
}
