#include "hosts/process/stay.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#define HOLD_MAX   (5 * TW_SEC)
#define EVENT_STOP 128

/* Ends a wait of the tracing thread. */
static int wake_number(void)
{
    return SIGRTMIN + 2;
}

static void on_wake(int number)
{
    (void)number;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void hold(struct tw_stay *s, enum tw_hold what)
{
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), HOLD_MAX);
    atomic_store(&s->go, false);
    atomic_store(&s->hold, what);
    while (!atomic_load(&s->go) && !atomic_load(&s->quit) && tw_now(&tw_monotonic) < deadline)
        nap();
    atomic_store(&s->hold, TW_HOLD_LATER);
}

/* The next stop; false when there is none any more. The end is left for the parent to see. */
static bool next_stop(const struct tw_stay *s, pid_t tid, int *status)
{
    while (!atomic_load(&s->quit)) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)tid, &info, WSTOPPED | WEXITED | WNOWAIT | __WALL) != 0) {
            if (errno != EINTR)
                return false;
        } else if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) {
            return false;
        } else if (waitpid(tid, status, __WALL | WNOHANG) == tid) {
            return WIFSTOPPED(*status);
        }
    }
    return false;
}

static void follow(struct tw_stay *s, pid_t tid)
{
    long how = PTRACE_CONT, number = 0;
    int status;
    while (ptrace((enum __ptrace_request)how, tid, NULL, number) == 0 &&
           next_stop(s, tid, &status)) {
        const int event = status >> 16;
        if (event == PTRACE_EVENT_EXEC)
            return;
        if (event == PTRACE_EVENT_EXIT) {
            hold(s, TW_HOLD_END);
            return;
        }
        const bool group_stop = event == EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
        how = group_stop ? PTRACE_LISTEN : PTRACE_CONT;
        number = event == 0 ? WSTOPSIG(status) : 0;
    }
}

void tw_stay_run(struct tw_stay *stay, const struct tw_tracee *t)
{
    const struct sigaction wake = {.sa_handler = on_wake};
    sigset_t set;
    sigaction(wake_number(), &wake, NULL);
    sigemptyset(&set);
    sigaddset(&set, wake_number());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    hold(stay, TW_HOLD_START);
    if (!atomic_load(&stay->quit))
        follow(stay, t->tid);
    atomic_store(&stay->hold, TW_HOLD_NONE);
    atomic_store(&stay->over, true);
}

enum tw_hold tw_stay_hold(const struct tw_stay *stay)
{
    return (enum tw_hold)atomic_load(&stay->hold);
}

/* In this order: once it goes, it says itself how it is held. */
void tw_stay_go(struct tw_stay *stay)
{
    atomic_store(&stay->hold, TW_HOLD_LATER);
    atomic_store(&stay->go, true);
}

/* Again and again, for the first signal may come just before a wait. */
void tw_stay_end(struct tw_stay *stay, pthread_t tracer)
{
    atomic_store(&stay->quit, true);
    while (!atomic_load(&stay->over)) {
        pthread_kill(tracer, wake_number());
        nap();
    }
}
