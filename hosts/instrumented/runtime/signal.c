/* Signal handlers: one may interrupt a thread between an announcement and its store. The store is
 * announced and marked again when the handler returns; meanwhile the thread announces the
 * handler's own stores. A handler that leaves by longjmp never comes back to the store. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <errno.h>
#include <signal.h>

typedef void handler_fn(int);
typedef void action_fn(int, siginfo_t *, void *);

/* The program's handlers, as addresses. A changed one is seen at once, as with the kernel's. */
static uintptr_t handlers[_NSIG];
static bool plain[_NSIG]; /* it was given without SA_SIGINFO */

static void on_signal(int number, siginfo_t *info, void *context)
{
    struct tw_inst_thread *record = tw_rt_self.record;
    const uint32_t generation = tw_rt_self.generation;
    uint64_t in_flight = 0;
    if (record && generation == tw_rt.generation) {
        in_flight = record->in_flight;
        tw_rt_announce(record, 0);
    }
    ((action_fn *)__atomic_load_n(&handlers[number], __ATOMIC_ACQUIRE))(number, info, context);
    if (in_flight)
        tw_rt_store_again(in_flight);
    else if (record && tw_rt_self.record == record && tw_rt_mode() != TW_INST_DETACHED)
        tw_rt_announce(record, 0);
}

static bool is_wrappable(const struct sigaction *action)
{
    return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
}

/* What the kernel is told instead; it would pass a plain handler's arguments alone. */
static const struct sigaction *wrap(int number, const struct sigaction *action,
                                    struct sigaction *wrapped)
{
    if (action == NULL || !is_wrappable(action))
        return action;
    __atomic_store_n(&plain[number], !(action->sa_flags & SA_SIGINFO), __ATOMIC_RELEASE);
    __atomic_store_n(&handlers[number], (uintptr_t)action->sa_sigaction, __ATOMIC_RELEASE);
    *wrapped = *action;
    wrapped->sa_sigaction = on_signal;
    wrapped->sa_flags |= SA_SIGINFO;
    return wrapped;
}

TW_RT_EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    if (number <= 0 || number >= _NSIG)
        return tw_real(sigaction)(number, action, old);
    struct sigaction wrapped, was;
    const uintptr_t handler_was = __atomic_load_n(&handlers[number], __ATOMIC_ACQUIRE);
    const bool plain_was = __atomic_load_n(&plain[number], __ATOMIC_ACQUIRE);
    if (tw_real(sigaction)(number, wrap(number, action, &wrapped), &was) < 0) {
        __atomic_store_n(&handlers[number], handler_was, __ATOMIC_RELEASE);
        __atomic_store_n(&plain[number], plain_was, __ATOMIC_RELEASE);
        return -1;
    }
    if (old == NULL)
        return 0;
    if (was.sa_sigaction == on_signal) {
        was.sa_sigaction = (action_fn *)handler_was;
        was.sa_flags &= plain_was ? ~SA_SIGINFO : ~0;
    }
    tw_rt_store_begin((uintptr_t)old, sizeof *old);
    *old = was;
    tw_rt_store_end((uintptr_t)old, sizeof *old, TW_RT_PC);
    return 0;
}

TW_RT_EXPORT handler_fn *signal(int number, handler_fn *handler)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    sigemptyset(&action.sa_mask);
    return sigaction(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}
