/* Passes over programs: begun when somebody waits for one and its time has come, done in slices. */
#include "services/tracking/tracking_impl.h"

#include <stdlib.h>

#define SHARED_A_PASS 256u /* lines that threads share, taken of one pass */

typedef void (*epoch_fn)(struct tw_tracking_session *session, struct tw_epoch *epoch, void *arg);

static bool waits(const struct tw_epoch *e)
{
    return e->used &&
           (tw_epoch_state(e) == TW_EPOCH_ARMING || tw_epoch_state(e) == TW_EPOCH_COLLECTING);
}

static void each_waiting(struct tw_tracked *p, epoch_fn fn, void *arg)
{
    for (struct tw_tracking_session *s = p->tracking->sessions; s; s = s->next) {
        for (unsigned i = 0; s->program == p && i < TW_TRACKING_EPOCHS_MAX; i++)
            if (waits(&s->epochs[i]))
                fn(s, &s->epochs[i], arg);
    }
}

static void earliest(struct tw_tracking_session *s, struct tw_epoch *e, void *arg)
{
    uint64_t *due = arg;
    (void)s;
    if (e->not_before_ns < *due)
        *due = e->not_before_ns;
}

/* Who is not due yet is served as well: the pass is made anyhow. */
static void board(struct tw_tracking_session *s, struct tw_epoch *e, void *arg)
{
    (void)s, (void)arg;
    e->in_pass = true;
}

static void served(struct tw_tracking_session *s, struct tw_epoch *e, void *arg)
{
    (void)arg;
    if (e->in_pass)
        tw_epoch_passed(s, e);
}

static void serve(struct tw_tracked *p)
{
    each_waiting(p, served, NULL);
    p->at.ops->settle(p->at.ctx);
}

static void failed(struct tw_tracking_session *s, struct tw_epoch *e, void *arg)
{
    (void)s;
    if (e->in_pass)
        tw_epoch_pass_failed(e, arg);
}

static void ended(struct tw_tracking_session *s, struct tw_epoch *e, void *arg)
{
    (void)arg;
    tw_epoch_program_ended(s, e);
}

#define HOLD_LOOK (5 * TW_MS) /* how often we look whether the program is about to end */

static enum tw_hold hold_of(const struct tw_tracked *p)
{
    return p->at.ops->hold ? p->at.ops->hold(p->at.ctx) : TW_HOLD_NONE;
}

static bool is_held(enum tw_hold hold)
{
    return hold == TW_HOLD_START || hold == TW_HOLD_END;
}

static void let_go(struct tw_tracked *p)
{
    if (p->let_go)
        p->at.ops->go(p->at.ctx);
    p->let_go = false;
}

static void program_failed(struct tw_tracked *p, const struct tw_error *err)
{
    struct tw_error why = *err;
    p->passing = false;
    let_go(p);
    if (p->at.ops->alive(p->at.ctx)) {
        each_waiting(p, failed, &why);
        return;
    }
    p->ended = true;
    p->end = why;
    p->end.code = TW_ABORTED;
    each_waiting(p, ended, NULL);
}

/* ---- Lines that threads share ---------------------------------------------------------------- */

static void share_with(struct tw_tracking_session *s, const struct tw_shared_line *line)
{
    const uint64_t page = line->address & ~((uint64_t)TW_PAGE_SIZE - 1);
    const uint64_t bit = UINT64_C(1) << (tw_line_of(line->address) % TW_LINES_PER_PAGE);
    if (!(tw_tracked_ranges_mask(&s->ranges, page) & bit))
        return;
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++)
        if (s->epochs[i].used && s->epochs[i].tracker)
            tw_shared_lines_add(&s->epochs[i].sharing, line);
}

/* What the pass found belongs to all epochs that it was made in. */
static void share_out(struct tw_tracked *p)
{
    if (!p->wish.sharing || !p->at.ops->sharing)
        return;
    struct tw_shared_line *lines = calloc(SHARED_A_PASS, sizeof *lines);
    size_t count = p->at.ops->sharing(p->at.ctx, lines, lines ? SHARED_A_PASS : 0);
    if (count > SHARED_A_PASS)
        count = SHARED_A_PASS;
    for (struct tw_tracking_session *s = p->tracking->sessions; s && lines; s = s->next)
        for (size_t i = 0; s->program == p && i < count; i++)
            share_with(s, &lines[i]);
    free(lines);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void end(struct tw_tracked *p)
{
    struct tw_error err;
    tw_fail(&err, TW_ABORTED, "program", NULL, NULL,
            "pid %llu has ended or executed another program", (unsigned long long)p->pid);
    program_failed(p, &err);
}

static void begin(struct tw_tracked *p)
{
    struct tw_error err = {0};
    p->let_go = is_held(hold_of(p));
    each_waiting(p, board, NULL);
    if (p->at.ops->pass_begin(p->at.ctx, &err))
        program_failed(p, &err);
    else
        p->passing = true;
}

/* One more pass over what the program left behind, where that is there. */
static void look_alive(struct tw_tracked *p)
{
    if (p->at.ops->alive(p->at.ctx))
        return;
    p->last = p->at.outlives;
    if (p->last)
        begin(p);
    else
        end(p);
}

static void go_on(struct tw_tracked *p, uint64_t slice_ns)
{
    struct tw_error err = {0};
    bool done = false;
    if (p->at.ops->step(p->at.ctx, slice_ns, &done, &err)) {
        program_failed(p, &err);
    } else if (done) {
        p->passing = false;
        share_out(p);
        serve(p);
        let_go(p);
        if (p->last)
            end(p);
    }
}

/* When a pass is to begin. A program that is held is not kept waiting for its budget; before its
 * start, it is for who asked for it to begin. */
static uint64_t next_pass(struct tw_tracked *p)
{
    const enum tw_hold hold = hold_of(p);
    uint64_t due = TW_NEVER;
    each_waiting(p, earliest, &due);
    if (hold == TW_HOLD_END || (hold == TW_HOLD_START && due != TW_NEVER))
        due = 0;
    return due;
}

static uint64_t look_again(const struct tw_tracked *p, uint64_t due)
{
    if (hold_of(p) == TW_HOLD_NONE)
        return due;
    const uint64_t look = tw_after(tw_now(p->tracking->env.clock), HOLD_LOOK);
    return look < due ? look : due;
}

uint64_t tw_tracked_step(struct tw_tracked *program, uint64_t slice_ns)
{
    if (program->ended)
        return TW_NEVER;
    if (!program->passing)
        look_alive(program);
    if (program->ended)
        return TW_NEVER;
    if (!program->passing) {
        const uint64_t due = next_pass(program);
        if (tw_now(program->tracking->env.clock) < due)
            return look_again(program, due);
        begin(program);
    }
    if (program->passing)
        go_on(program, slice_ns);
    if (program->passing)
        return 0;
    if (program->ended)
        return TW_NEVER;
    return look_again(program, next_pass(program));
}
