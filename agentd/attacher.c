#include "agentd/attacher.h"

#include <stdio.h>

#define CATCH_KEPT   (10 * TW_SEC)
#define CATCH_FINISH (2 * TW_SEC)
#define COME_WAIT    (2 * TW_SEC) /* from a program's execve until it has made itself known */
#define READY_WAIT   (2 * TW_SEC)
#define AGAIN_WAIT   (700 * TW_MS) /* one that runs looks for an agent every half second */

static const char where[] = "tracking";

static struct tw_process_config config_of(const struct tw_attacher *a,
                                          const struct tw_tracking_wish *wish)
{
    return (struct tw_process_config){
        .exact = wish->exact,
        .stay = true,
        .copy_bytes_max = a->copy_bytes_max,
        /* One that is instrumented stops for nobody. */
        .leave = wish->kind == TW_ATTACHMENT_PROCESS || !a->lobby ? NULL : tw_instrumented_built};
}

static unsigned find(const struct tw_attacher *a, uint64_t pid)
{
    unsigned i = 0;
    while (i < TW_ATTACHER_CATCHES_MAX && a->catches[i].pid != pid)
        i++;
    return i;
}

/* ---- Choosing ------------------------------------------------------------------------------- */

/* One that carries the runtime may be just about to come. */
static bool knows(struct tw_attacher *a, uint64_t pid)
{
    if (!a->lobby)
        return false;
    if (tw_lobby_knows(a->lobby, (pid_t)pid))
        return true;
    return tw_instrumented_built((pid_t)pid) &&
           tw_lobby_await(a->lobby, (pid_t)pid, tw_after(tw_now(&tw_monotonic), AGAIN_WAIT));
}

/* The program has executed: it is attached to, or, if it has the runtime, comes by itself. */
static enum tw_code meet_caught(struct tw_attacher *a, unsigned i, struct tw_error *err)
{
    struct tw_process_catch *caught = a->catches[i].caught;
    const pid_t pid = (pid_t)a->catches[i].pid;
    a->catches[i].caught = NULL;
    const uint64_t now = tw_now(&tw_monotonic);
    enum tw_code code =
        tw_process_catch_finish(caught, tw_after(now, CATCH_FINISH), &a->catches[i].process, err);
    if (code)
        a->catches[i].pid = 0;
    if (code != TW_CANCELLED)
        return code;
    tw_lobby_await(a->lobby, pid, tw_after(tw_now(&tw_monotonic), COME_WAIT));
    return TW_OK;
}

static enum tw_code refuse(const struct tw_attacher *a, uint64_t pid, const char *wanted,
                           struct tw_error *err)
{
    const bool built = tw_instrumented_built((pid_t)pid);
    return tw_fail(err, TW_FAILED_PRECONDITION, wanted,
                   "a program made by towline-cc that has found this agent", NULL, "pid %llu %s",
                   (unsigned long long)pid,
                   !a->lobby ? "cannot come: instrumented_socket is not configured"
                   : built   ? "is one, and has not made itself known here: is "
                               "TOWLINE_INSTRUMENTED our socket?"
                             : "is none");
}

enum tw_code tw_attacher_choose(void *ctx, uint64_t pid, struct tw_tracking_wish *wish,
                                char why[TW_TRACKING_WHY_SIZE], struct tw_error *err)
{
    struct tw_attacher *a = ctx;
    const unsigned i = find(a, pid);
    if (i < TW_ATTACHER_CATCHES_MAX && a->catches[i].caught) {
        const enum tw_code code = meet_caught(a, i, err);
        if (code)
            return code;
    }
    const bool known = wish->kind != TW_ATTACHMENT_PROCESS && knows(a, pid);
    const char *wanted = wish->sharing ? "sharing" : wish->loads ? "accessed lines" : NULL;
    const bool asked = wish->kind != TW_ATTACHMENT_ANY || wanted;
    if (wish->loads && wish->kind == TW_ATTACHMENT_PROCESS)
        return tw_fail(err, TW_UNIMPLEMENTED, where, "an instrumented program", "process",
                       "from outside nobody sees which lines are loaded");
    if (wish->sharing && wish->kind == TW_ATTACHMENT_PROCESS)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "an instrumented program", "process",
                       "from outside nobody sees which threads share lines");
    if (asked && wish->kind != TW_ATTACHMENT_PROCESS && !known)
        return refuse(a, pid, wanted ? wanted : "instrumented", err);
    if (wish->kind == TW_ATTACHMENT_ANY)
        wish->kind = known ? TW_ATTACHMENT_INSTRUMENTED : TW_ATTACHMENT_PROCESS;
    if (asked)
        snprintf(why, TW_TRACKING_WHY_SIZE, "%s%sasked for", wanted ? wanted : "",
                 wish->sharing ? " was "
                 : wanted      ? " were "
                               : "");
    else if (known)
        snprintf(why, TW_TRACKING_WHY_SIZE, "it was made by towline-cc and has made itself known");
    else
        snprintf(why, TW_TRACKING_WHY_SIZE, "%s",
                 !tw_instrumented_built((pid_t)pid) ? "it was not made by towline-cc"
                 : a->lobby ? "it was made by towline-cc, but has not made itself known here (is "
                              "TOWLINE_INSTRUMENTED this agent's socket?)"
                            : "the agent has no instrumented_socket for programs of towline-cc");
    return TW_OK;
}

/* ---- Attaching ------------------------------------------------------------------------------ */

static enum tw_code attach_instrumented(struct tw_attacher *a, uint64_t pid,
                                        const struct tw_tracking_wish *wish,
                                        struct tw_attachment *out, struct tw_error *err)
{
    const struct tw_instrumented_config config = {.mode = wish->sharing ? TW_INST_SHARING
                                                                        : TW_INST_MARK,
                                                  .loads = wish->loads,
                                                  .copy_bytes_max = a->copy_bytes_max};
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), READY_WAIT);
    struct tw_instrumented *program;
    const enum tw_code code =
        tw_lobby_track(a->lobby, (pid_t)pid, &config, deadline, &program, err);
    if (!code)
        *out = tw_instrumented_attachment(program);
    return code;
}

enum tw_code tw_attacher_attach(void *ctx, uint64_t pid, const struct tw_tracking_wish *wish,
                                struct tw_attachment *out, struct tw_error *err)
{
    struct tw_attacher *a = ctx;
    const unsigned i = find(a, pid);
    struct tw_process *process = NULL;
    if (wish->kind == TW_ATTACHMENT_INSTRUMENTED)
        return attach_instrumented(a, pid, wish, out, err);
    if (i < TW_ATTACHER_CATCHES_MAX) {
        process = a->catches[i].process;
        a->catches[i].process = NULL;
        a->catches[i].pid = 0;
    }
    const struct tw_process_config config = config_of(a, wish);
    enum tw_code code = TW_OK;
    if (!process)
        code = tw_process_attach(&config, (pid_t)pid, &process, err);
    if (!code)
        *out = tw_process_attachment(process);
    return code;
}

/* ---- Programs that are about to start ------------------------------------------------------- */

enum tw_code tw_attacher_catch(struct tw_attacher *a, uint64_t pid,
                               const struct tw_tracking_wish *wish, struct tw_error *err)
{
    const struct tw_process_config config = config_of(a, wish);
    tw_attacher_let_go(a, pid);
    const unsigned i = find(a, 0);
    if (i == TW_ATTACHER_CATCHES_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, NULL, NULL,
                       "%u programs are being started already", TW_ATTACHER_CATCHES_MAX);
    const enum tw_code code =
        tw_process_catch_begin(&config, (pid_t)pid, &a->catches[i].caught, err);
    if (code)
        return code;
    a->catches[i].pid = pid;
    a->catches[i].until_ns = tw_after(tw_now(&tw_monotonic), CATCH_KEPT);
    return TW_OK;
}

void tw_attacher_let_go(struct tw_attacher *a, uint64_t pid)
{
    const unsigned i = find(a, pid);
    if (a->lobby)
        tw_lobby_let_go(a->lobby, (pid_t)pid);
    if (pid == 0 || i == TW_ATTACHER_CATCHES_MAX)
        return;
    tw_process_let_go(a->catches[i].caught);
    tw_process_detach(a->catches[i].process);
    a->catches[i].caught = NULL;
    a->catches[i].process = NULL;
    a->catches[i].pid = 0;
}

void tw_attacher_tidy(struct tw_attacher *a, uint64_t now_ns)
{
    for (unsigned i = 0; i < TW_ATTACHER_CATCHES_MAX; i++)
        if (a->catches[i].pid && now_ns >= a->catches[i].until_ns)
            tw_attacher_let_go(a, a->catches[i].pid);
}
