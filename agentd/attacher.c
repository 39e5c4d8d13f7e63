#include "agentd/attacher.h"

#define CATCH_KEPT   (10 * TW_SEC)
#define CATCH_FINISH (2 * TW_SEC)

static struct tw_process_config config_of(const struct tw_attacher *a, bool exact)
{
    return (struct tw_process_config){
        .exact = exact, .stay = true, .copy_bytes_max = a->copy_bytes_max};
}

/* Takes the catch of this program out of the list; NULL when there is none. */
static struct tw_process_catch *take(struct tw_attacher *a, uint64_t pid)
{
    for (unsigned i = 0; i < TW_ATTACHER_CATCHES_MAX; i++) {
        if (a->catches[i].caught && a->catches[i].pid == pid) {
            struct tw_process_catch *caught = a->catches[i].caught;
            a->catches[i].caught = NULL;
            return caught;
        }
    }
    return NULL;
}

enum tw_code tw_attacher_attach(void *ctx, uint64_t pid, bool exact, struct tw_attachment *out,
                                struct tw_error *err)
{
    struct tw_attacher *a = ctx;
    const struct tw_process_config config = config_of(a, exact);
    struct tw_process *process;
    struct tw_process_catch *caught = take(a, pid);
    enum tw_code code =
        caught ? tw_process_catch_finish(caught, tw_after(tw_now(&tw_monotonic), CATCH_FINISH),
                                         &process, err)
               : tw_process_attach(&config, (pid_t)pid, &process, err);
    if (!code)
        *out = tw_process_attachment(process);
    return code;
}

enum tw_code tw_attacher_catch(struct tw_attacher *a, uint64_t pid, bool exact,
                               struct tw_error *err)
{
    const struct tw_process_config config = config_of(a, exact);
    tw_attacher_let_go(a, pid);
    for (unsigned i = 0; i < TW_ATTACHER_CATCHES_MAX; i++) {
        if (a->catches[i].caught)
            continue;
        a->catches[i].pid = pid;
        a->catches[i].exact = exact;
        a->catches[i].until_ns = tw_after(tw_now(&tw_monotonic), CATCH_KEPT);
        return tw_process_catch_begin(&config, (pid_t)pid, &a->catches[i].caught, err);
    }
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, "tracking", NULL, NULL,
                   "%u programs are being started already", TW_ATTACHER_CATCHES_MAX);
}

void tw_attacher_let_go(struct tw_attacher *a, uint64_t pid)
{
    tw_process_let_go(take(a, pid));
}

void tw_attacher_tidy(struct tw_attacher *a, uint64_t now_ns)
{
    for (unsigned i = 0; i < TW_ATTACHER_CATCHES_MAX; i++)
        if (a->catches[i].caught && now_ns >= a->catches[i].until_ns)
            tw_attacher_let_go(a, a->catches[i].pid);
}
