#include "cli/follow.h"

#include "base/clock.h"

#include <signal.h>
#include <time.h>

#define AWAY_DEFAULT_MS 60000u
#define AWAY_PAUSE_MS   200u

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void tow_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    /* A second one ends the program at once. */
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool tow_interrupted(void)
{
    return interrupted != 0;
}

void tow_sleep_ms(unsigned ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

void tow_absence_init(struct tow_absence *absence, const struct tow *tow)
{
    *absence =
        (struct tow_absence){.limit_ms = tow->timeout_given ? tow->timeout_ms : AWAY_DEFAULT_MS};
}

uint64_t tow_absence_ms(const struct tow_absence *absence)
{
    if (absence->since_ns == 0)
        return 0;
    return (tw_now(&tw_monotonic) - absence->since_ns) / TW_MS + 1;
}

bool tow_absence_bridge(struct tow_absence *absence, enum tw_code code)
{
    if (code != TW_UNAVAILABLE && code != TW_DEADLINE_EXCEEDED) {
        absence->since_ns = 0;
        return code == TW_OK;
    }
    if (absence->since_ns == 0)
        absence->since_ns = tw_now(&tw_monotonic);
    if (tow_absence_ms(absence) > absence->limit_ms)
        return false;
    tow_sleep_ms(AWAY_PAUSE_MS);
    return true;
}
