#include "services/tracking/tracking_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum tw_code tw_tracking_open(const struct tw_tracking_env *env, struct tw_tracking **tracking,
                              struct tw_error *err)
{
    struct tw_tracking *t = calloc(1, sizeof *t);
    if (!t)
        return tw_fail_errno(err, ENOMEM, "tracking", "cannot start");
    t->env = *env;
    *tracking = t;
    return TW_OK;
}

void tw_tracking_close(struct tw_tracking *tracking)
{
    if (!tracking)
        return;
    while (tracking->sessions)
        tw_tracking_session_close(tracking->sessions);
    free(tracking);
}

uint64_t tw_tracking_step(struct tw_tracking *tracking, uint64_t slice_ns)
{
    uint64_t next = TW_NEVER;
    for (struct tw_tracked *p = tracking->programs; p; p = p->next) {
        uint64_t due = tw_tracked_step(p, slice_ns);
        if (due < next)
            next = due;
    }
    return next;
}

/* ---- Programs ------------------------------------------------------------------------------- */

static void program_release(struct tw_tracked *program)
{
    if (--program->sessions > 0)
        return;
    struct tw_tracked **link = &program->tracking->programs;
    while (*link != program)
        link = &(*link)->next;
    *link = program->next;
    program->at.ops->close(program->at.ctx);
    free(program);
}

static enum tw_code program_attach(struct tw_tracking *t, uint64_t pid,
                                   const struct tw_tracking_wish *wish, struct tw_tracked **program,
                                   struct tw_error *err)
{
    struct tw_tracked *p = calloc(1, sizeof *p);
    if (!p)
        return tw_fail_errno(err, ENOMEM, "tracking", "cannot track another program");
    enum tw_code code = t->env.attach(t->env.ctx, pid, wish, &p->at, err);
    if (code) {
        free(p);
        return code;
    }
    p->tracking = t;
    p->pid = pid;
    p->wish = *wish;
    if (p->at.ops->observe && !p->at.compares_on_demand &&
        (code = p->at.ops->observe(p->at.ctx, tw_tracked_told, p, err))) {
        p->at.ops->close(p->at.ctx);
        free(p);
        return code;
    }
    p->next = t->programs;
    t->programs = p;
    *program = p;
    return TW_OK;
}

static enum tw_code program_fits(const struct tw_tracked *p, const struct tw_tracking_wish *wish,
                                 struct tw_error *err)
{
    const char *what = wish->sharing && !p->wish.sharing ? "sharing"
                       : wish->exact && !p->wish.exact   ? "exact"
                                                         : NULL;
    if (!what || (*what == 'e' && p->at.kind == TW_ATTACHMENT_INSTRUMENTED))
        return TW_OK;
    return tw_fail(err, TW_FAILED_PRECONDITION, what, "a program that nobody tracks yet", NULL,
                   "pid %llu is tracked without already", (unsigned long long)p->pid);
}

/* The first that wants loads has the program record them. */
static enum tw_code loads_begin(struct tw_tracked *p, struct tw_error *err)
{
    if (!p->at.sees_loads)
        return tw_fail(err, TW_UNIMPLEMENTED, "accessed lines", "an attachment that sees loads",
                       NULL, "pid %llu is seen by its stores only", (unsigned long long)p->pid);
    const enum tw_code code =
        p->with_loads == 0 && p->at.ops->loads ? p->at.ops->loads(p->at.ctx, true, err) : TW_OK;
    p->with_loads += code == TW_OK;
    return code;
}

static void loads_end(struct tw_tracked *p)
{
    if (--p->with_loads == 0 && p->at.ops->loads)
        p->at.ops->loads(p->at.ctx, false, NULL);
}

/* The first that wants contents compared has it done. */
static enum tw_code bytes_begin(struct tw_tracked *p, struct tw_error *err)
{
    if (!p->at.ops->observe)
        return tw_fail(err, TW_UNIMPLEMENTED, "bytes", "an attachment that compares contents", NULL,
                       "pid %llu is tracked without", (unsigned long long)p->pid);
    enum tw_code code = TW_OK;
    if (p->at.compares_on_demand && p->with_bytes == 0)
        code = p->at.ops->observe(p->at.ctx, tw_tracked_told, p, err);
    p->with_bytes += code == TW_OK;
    return code;
}

static void bytes_end(struct tw_tracked *p)
{
    if (--p->with_bytes == 0 && p->at.compares_on_demand)
        p->at.ops->observe(p->at.ctx, NULL, NULL, NULL);
}

/* A program that has ended keeps its pid here for as long as somebody reads: a new one of the same
 * pid is another program. */
static enum tw_code program_get(struct tw_tracking *t, uint64_t pid,
                                const struct tw_tracking_wish *wish, struct tw_tracked **program,
                                struct tw_error *err)
{
    for (struct tw_tracked *p = t->programs; p; p = p->next) {
        if (p->pid != pid || p->wish.kind != wish->kind || p->ended || !p->at.ops->alive(p->at.ctx))
            continue;
        *program = p;
        return program_fits(p, wish, err);
    }
    return program_attach(t, pid, wish, program, err);
}

/* What a session wants beside its lines. */
static void extras_end(struct tw_tracking_session *s)
{
    if (s->loads)
        loads_end(s->program);
    if (s->bytes)
        bytes_end(s->program);
}

static enum tw_code extras_begin(struct tw_tracking_session *s, const struct tw_tracking_wish *wish,
                                 struct tw_error *err)
{
    enum tw_code code = wish->loads ? loads_begin(s->program, err) : TW_OK;
    s->loads = wish->loads && !code;
    if (!code && wish->bytes)
        code = bytes_begin(s->program, err);
    s->bytes = wish->bytes && !code;
    if (code)
        extras_end(s);
    return code;
}

/* ---- Sessions ------------------------------------------------------------------------------- */

enum tw_code tw_tracking_session_open(struct tw_tracking *tracking, uint64_t pid,
                                      const struct tw_tracking_wish *wish, uint32_t owner,
                                      struct tw_tracking_session **session, struct tw_error *err)
{
    struct tw_tracking_wish chosen = *wish;
    if (tracking->session_count == TW_TRACKING_SESSIONS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "tracking", NULL, NULL,
                       "there are %u sessions already", tracking->session_count);
    struct tw_tracking_session *s = calloc(1, sizeof *s);
    if (!s)
        return tw_fail_errno(err, ENOMEM, "tracking", "cannot open another session");
    enum tw_code code = TW_OK;
    if (tracking->env.choose)
        code = tracking->env.choose(tracking->env.ctx, pid, &chosen, s->why, err);
    if (!code)
        code = program_get(tracking, pid, &chosen, &s->program, err);
    if (code) {
        free(s);
        return code;
    }
    s->program->sessions++;
    code = extras_begin(s, wish, err);
    if (code) {
        program_release(s->program);
        free(s);
        return code;
    }
    s->id = ++tracking->next_id;
    s->owner = owner;
    s->next = tracking->sessions;
    tracking->sessions = s;
    tracking->session_count++;
    *session = s;
    return TW_OK;
}

void tw_tracking_session_close(struct tw_tracking_session *session)
{
    if (!session)
        return;
    struct tw_tracked *program = session->program;
    struct tw_tracking *t = program->tracking;
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++)
        tw_epoch_free(&session->epochs[i]);
    if (session->watch)
        program->at.ops->unwatch(program->at.ctx, session->watch);
    tw_tracked_ranges_free(&session->ranges);
    struct tw_tracking_session **link = &t->sessions;
    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    t->session_count--;
    extras_end(session);
    program_release(program);
    free(session);
}

enum tw_code tw_tracking_watch(struct tw_tracking_session *session, const struct tw_range *ranges,
                               size_t count, struct tw_error *err)
{
    struct tw_tracked *p = session->program;
    if (session->watch)
        return tw_fail(err, TW_FAILED_PRECONDITION, "session", "ranges given once", NULL,
                       "its ranges are watched already");
    if (count > TW_TRACKING_RANGES_MAX) {
        char given[24];
        snprintf(given, sizeof given, "%zu", count);
        return tw_fail(err, TW_INVALID_ARGUMENT, "ranges", "at most 4096", given, "too many");
    }
    if (p->ended)
        return *err = p->end, p->end.code;
    enum tw_code code = tw_tracked_ranges_set(&session->ranges, ranges, count, err);
    if (!code)
        code = p->at.ops->watch(p->at.ctx, session->ranges.pages, session->ranges.page_count,
                                &session->watch, err);
    if (code) {
        session->watch = NULL;
        tw_tracked_ranges_free(&session->ranges);
    }
    session->counts_bytes = !code && p->at.ops->observe &&
                            (session->bytes || !p->at.compares_on_demand) &&
                            !tw_tracked_ranges_cut(&session->ranges);
    return code;
}

void tw_tracking_session_info(const struct tw_tracking_session *session,
                              struct tw_tracking_session_info *out)
{
    *out = (struct tw_tracking_session_info){
        .id = session->id,
        .pid = session->program->pid,
        .owner = session->owner,
        .exact = session->program->wish.exact,
        .sharing = session->program->wish.sharing,
        .loads = session->loads,
        .shared = session->shared,
        .shared_falsely = session->shared_falsely,
        .why = session->why,
        .watching = session->watch != NULL,
        .ended = session->program->ended,
        .counts_bytes = session->counts_bytes,
        .counts_same = tw_tracking_counts_same(session),
        .total = session->total,
        .last = session->last,
        .attachment = &session->program->at,
    };
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++)
        out->epochs += session->epochs[i].used;
}

struct tw_tracking_session *tw_tracking_next(const struct tw_tracking *tracking,
                                             const struct tw_tracking_session *session)
{
    return session ? session->next : tracking->sessions;
}
