#include "services/migration/tests/scene.h"

#include <stdlib.h>
#include <string.h>

#define MIRROR_URL "mir"
static const uint8_t mirror_token[TW_OWNER_SIZE] = "mirror-67890abc";

static void look(struct scene *s)
{
    if (!s->mirror)
        return;
    struct tw_mirror_progress p;
    tw_mirror_progress(s->mirror, &p);
    s->mirror_complete |= p.complete;
    if (p.lines_named) /* let go: what it was before stays */
        s->at_mirror = p;
    s->at_mirror.phase = p.phase;
}

void scene_mirror_open(struct scene *s)
{
    struct tw_fabric_config config = {.name = "mir",
                                      .clock = s->clock,
                                      .events = &scene_events,
                                      .ctx = &s->side[2],
                                      .bulk_credits = 3};
    if (!s->config.mirror)
        return;
    if (tw_fabric_open(&tw_fabric_sim, s->sim, &config, &s->mirror_fabric, NULL) != TW_OK ||
        tw_fabric_listen(s->mirror_fabric, MIRROR_URL, NULL) != TW_OK)
        abort();
}

void scene_mirror_start(struct scene *s)
{
    struct tw_migration_params params = s->params;
    struct tw_migration_env env = {
        .clock = s->clock, .fabric = s->mirror_fabric, .trace = scene_trace, .ctx = &s->side[2]};
    if (!s->config.mirror)
        return;
    memcpy(params.token, mirror_token, TW_OWNER_SIZE);
    if (tw_mirror_start(&env, &params, s->config.pages * TW_PAGE_SIZE, 2 * TW_SEC, &s->mirror,
                        NULL) != TW_OK)
        abort();
    tw_mirror_mutate(s->mirror, s->config.at_mirror);
}

void scene_mirror_connect(struct scene *s)
{
    if (s->config.mirror &&
        tw_source_mirror_to(s->source, s->fabric[0], MIRROR_URL, mirror_token, NULL) != TW_OK)
        abort();
}

uint64_t scene_mirror_step(struct scene *s)
{
    uint64_t due = s->mirror ? tw_mirror_step(s->mirror) : TW_NEVER;
    look(s);
    if (s->mirror_mend_ns && tw_now(s->clock) >= s->mirror_mend_ns) {
        s->mirror_mend_ns = 0;
        tw_sim_mend(s->sim, "src", "mir");
        tw_sim_mend(s->sim, "dst", "mir");
    }
    return due;
}

void scene_mirror_strike(struct scene *s, enum scene_action action)
{
    if (action == SCENE_CRASH_MIRROR) {
        look(s);
        tw_mirror_free(s->mirror);
        s->mirror = NULL;
    } else if (action == SCENE_CUT_MIRROR) {
        tw_sim_cut(s->sim, "src", "mir");
        tw_sim_cut(s->sim, "dst", "mir");
        s->mirror_mend_ns = tw_now(s->clock) + SCENE_CUT_LONG_NS;
    }
}

enum tw_code scene_mirror_accept(struct scene *s, struct tw_conn *conn,
                                 const struct tw_hello *hello, void **conn_ctx,
                                 struct tw_error *err)
{
    struct tw_migration_end *end = NULL;
    if (!s->mirror)
        return tw_fail(err, TW_NOT_FOUND, "mir", NULL, NULL, "no such mirror");
    enum tw_code code = tw_mirror_accept(s->mirror, conn, hello, &end, err);
    *conn_ctx = end;
    return code;
}

enum tw_code scene_mirror_dial(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                               void *conn_ctx, struct tw_conn **conn, struct tw_error *err)
{
    struct scene *s = ((struct scene_side *)ctx)->scene;
    struct tw_hello mine = *hello;
    memcpy(mine.owner, mirror_token, TW_OWNER_SIZE);
    return tw_fabric_connect(s->fabric[1], MIRROR_URL, &mine, deadline_ns, conn_ctx, conn, err);
}

bool scene_mirror_helps(const struct scene *s)
{
    return s->mirror && s->mirror_complete && !tw_mirror_done(s->mirror);
}

bool scene_mirror_ended(struct scene *s)
{
    if (!s->mirror || tw_mirror_done(s->mirror))
        return true;
    /* What was said to it is under way; the next look is the controller's. */
    s->mirror_told = true;
    tw_mirror_release(s->mirror, "told by the controller");
    return tw_mirror_done(s->mirror);
}

void scene_mirror_close(struct scene *s)
{
    look(s);
    tw_mirror_free(s->mirror);
    tw_fabric_close(s->mirror_fabric);
}
