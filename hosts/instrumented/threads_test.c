/* Real threads, and a signal handler, store at random while epochs are closed: nothing is lost, and
 * nothing is reported that nobody stores to.
 *
 * The reader copies the lines of each epoch after it has settled, as a migration does. When the
 * threads have ended, one more epoch must make the copy equal to the program's memory. */
#include "hosts/instrumented/test_subject.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_NS     (TW_SEC)
#define EPOCHS_MIN 10u /* however slow the machine is */
#define LINE(at)   ((size_t)(at)*TW_LINE_SIZE)

static uint8_t copy[SUBJECT_BYTES], now[SUBJECT_BYTES], dirty[SUBJECT_LINES];

struct tally {
    uint64_t epochs, reported, invented, lost;
};

/* Reads the reported lines one by one, each after the epoch is closed. */
static void copy_epoch(struct subject *s, struct tally *t)
{
    t->reported += subject_collect(s, dirty);
    t->epochs++;
    for (size_t line = 0; line < SUBJECT_LINES; line++) {
        uint8_t bytes[TW_LINE_SIZE];
        if (!dirty[line])
            continue;
        if (tw_instrumented_read(s->program, s->region + LINE(line), bytes, sizeof bytes, NULL))
            abort();
        t->invented += line % 2; /* they store to even lines only */
        memcpy(copy + LINE(line), bytes, sizeof bytes);
    }
}

static struct tally storm(const char *path, const struct tw_instrumented_config *config,
                          struct tw_instrumented_stats *stats)
{
    struct subject s;
    struct tally t = {0};
    subject_open(&s, path, config);
    subject_read(&s, copy);
    subject_tell(&s, 'a');
    subject_wait(&s);
    const uint64_t end = tw_after(tw_now(&tw_monotonic), RUN_NS);
    while (tw_now(&tw_monotonic) < end || t.epochs < EPOCHS_MIN)
        copy_epoch(&s, &t);
    subject_poke(&s, 0, 1);
    subject_wait(&s);
    copy_epoch(&s, &t);
    subject_read(&s, now);
    memset(now, 0, 8); /* line 0 is ours: nobody else stores there */
    memset(copy, 0, 8);
    for (size_t line = 0; line < SUBJECT_LINES; line++)
        t.lost += memcmp(copy + LINE(line), now + LINE(line), TW_LINE_SIZE) != 0;
    t.invented += subject_collect(&s, dirty); /* nobody has stored since */
    tw_instrumented_stats_get(s.program, stats);
    subject_close(&s);
    return t;
}

static int run(const char *compiler, const char *mode, const struct tw_instrumented_config *config)
{
    char path[512];
    struct tw_instrumented_stats stats;
    snprintf(path, sizeof path, TEST_SUBJECTS "storm-%s", compiler);
    const struct tally t = storm(path, config, &stats);
    const bool bad =
        t.lost || t.invented || t.reported < 1000 || stats.threads_refused || stats.unsettled;
    printf("%-5s %-7s %llu epochs, %llu lines, %llu invented, %llu carried, %llu events, "
           "%llu ring full, %llu lost%s\n",
           compiler, mode, (unsigned long long)t.epochs, (unsigned long long)t.reported,
           (unsigned long long)t.invented, (unsigned long long)stats.carried_lines,
           (unsigned long long)(stats.loads + stats.stores), (unsigned long long)stats.ring_full,
           (unsigned long long)t.lost, bad ? "  FAILED" : "");
    return bad;
}

int main(void)
{
    static const struct tw_instrumented_config mark = {.mode = TW_INST_MARK},
                                               sharing = {.mode = TW_INST_SHARING},
                                               owned = {.mode = TW_INST_OWNED,
                                                        .cache = {.cores = 4,
                                                                  .l1 = {4096, 4},
                                                                  .last = {65536, 8}}},
                                               /* so small that lines leave all the time */
        tight = {.mode = TW_INST_OWNED, .cache = {.cores = 2, .last = {2048, 4}}};
    static const char *const compilers[] = {
        "gcc",
#ifdef TEST_CLANG
        "clang",
#endif
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof compilers / sizeof compilers[0]; i++) {
        failed |= run(compilers[i], "mark", &mark);
        failed |= run(compilers[i], "sharing", &sharing);
        failed |= run(compilers[i], "owned", &owned);
        failed |= run(compilers[i], "tight", &tight);
    }
    return failed;
}
