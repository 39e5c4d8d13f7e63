#include "rpc/transport.h"

#include "base/clock.h"

#include <signal.h>
#include <time.h>

static enum tw_code code_of_nng(int number)
{
    switch (number) {
    case NNG_ETIMEDOUT:
        return TW_DEADLINE_EXCEEDED;
    case NNG_ECANCELED:
        return TW_CANCELLED;
    case NNG_ENOMEM:
    case NNG_ENOFILES:
    case NNG_ENOSPC:
    case NNG_EMSGSIZE:
        return TW_RESOURCE_EXHAUSTED;
    case NNG_EINVAL:
    case NNG_EADDRINVAL:
    case NNG_ENOTSUP:
        return TW_INVALID_ARGUMENT;
    case NNG_EADDRINUSE:
        return TW_ALREADY_EXISTS;
    case NNG_EPERM:
        return TW_PERMISSION_DENIED;
    case NNG_ECLOSED:
    case NNG_ECONNREFUSED:
    case NNG_ECONNABORTED:
    case NNG_ECONNRESET:
    case NNG_ECONNSHUT:
    case NNG_EUNREACHABLE:
    case NNG_EPEERAUTH:
        return TW_UNAVAILABLE;
    default:
        return TW_INTERNAL;
    }
}

enum tw_code tw_fail_nng(struct tw_error *err, int number, const char *where, const char *what)
{
    return tw_fail(err, code_of_nng(number), where, NULL, NULL, "%s: %s", what,
                   nng_strerror(number));
}

uint32_t tw_remaining_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = tw_now(&tw_monotonic);
    if (now_ns >= deadline_ns)
        return 0;
    uint64_t ms = (deadline_ns - now_ns + TW_MS - 1) / TW_MS;
    return ms > INT32_MAX ? INT32_MAX : (uint32_t)ms;
}

void tw_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool tw_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
    struct timespec when = {.tv_sec = (time_t)(deadline_ns / TW_SEC),
                            .tv_nsec = (long)(deadline_ns % TW_SEC)};
    if (deadline_ns == TW_NEVER)
        return pthread_cond_wait(cond, lock) == 0;
    return pthread_cond_timedwait(cond, lock, &when) == 0;
}

int tw_thread_start(pthread_t *thread, const char *name, void *(*main)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, main, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == 0)
        pthread_setname_np(*thread, name);
    return failed;
}
