/* Accessed lines of real programs with real threads, against what the program loads: exactly that,
 * in each mode and by each compiler; and nothing while nobody asks for loads. */
#include "hosts/instrumented/subjects/loads.h"
#include "hosts/instrumented/test_subject.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCHS 40u   /* of the storm, at least */
#define LINES  1000u /* the same */

static uint8_t told[SUBJECT_LINES], dirty[SUBJECT_LINES], wanted[SUBJECT_LINES];
static unsigned failures;

static void expect(bool good, const char *how, const char *what)
{
    if (good)
        return;
    failures++;
    printf("FAILED  %s: %s\n", how, what);
}

static void range(uint32_t first, uint32_t last)
{
    memset(wanted + first, 1, last - first + 1);
}

static void ranges(const struct loads_range *list)
{
    for (; list->first; list++)
        range(list->first, list->last);
}

/* Fills `wanted` with what a scenario loads or stores to. */
static void want(char scenario)
{
    memset(wanted, 0, sizeof wanted);
    switch (scenario) {
    case 'a':
        for (uint32_t line = 1; line < 8; line += 2)
            range(line, line);
        range(9, 10);
        break;
    case 'b':
        range(64, 67);
        range(70, 70);
        range(80, 82);
        break;
    case 'c':
        range(128, 128);
        range(130, 130);
        break;
    case 'd':
        for (uint32_t thread = 0; thread < LOADS_THREADS; thread++)
            for (uint32_t i = 0, state = thread; i < LOADS_EACH; i++)
                wanted[loads_next(&state)] = 1;
        break;
    case 'f':
        range(200, 214);
        break;
    case 'h':
        for (const struct loads_ends *e = loads_ends; e->line; e++)
            range(e->line, e->line);
        break;
    case 'i':
        ranges(loads_texts);
        break;
    case 'j':
        ranges(loads_bytes);
        break;
    case 'k':
        ranges(loads_given);
        break;
    default:
        break;
    }
}

static void play(struct subject *s, char scenario, bool recorded, const char *how)
{
    char what[64];
    subject_tell(s, scenario);
    subject_wait(s);
    want(scenario);
    if (!recorded && scenario != 'h') { /* stores are accesses whoever asks */
        memset(wanted, 0, sizeof wanted);
        if (scenario == 'f')
            range(205, 214);
    }
    subject_collect_accessed(s, told);
    snprintf(what, sizeof what, "scenario %c tells other lines than it accessed", scenario);
    expect(memcmp(told, wanted, sizeof told) == 0, how, what);
}

/* Each epoch has what was loaded in it: the same lines are told again when they are loaded again.
 */
static void expect_exact(struct subject *s, bool recorded, const char *how)
{
    for (unsigned round = 0; round < 2; round++) {
        for (const char *scenario = "abcdefhijk"; *scenario; scenario++)
            play(s, *scenario, recorded, how);
    }
}

/* Loads are no stores. */
static void expect_dirty_apart(struct subject *s, const struct tw_instrumented_config *config,
                               const char *how)
{
    subject_collect(s, dirty);
    subject_tell(s, 'd');
    subject_wait(s);
    expect(subject_collect(s, dirty) == 0, how, "a load makes a line dirty");
    subject_tell(s, 'f');
    subject_wait(s);
    expect(subject_collect(s, dirty) == 10 && dirty[205] && dirty[214], how,
           "stores are not told beside loads");
    subject_tell(s, 'l');
    subject_wait(s);
    expect(subject_collect(s, dirty) == 5 && dirty[220] && dirty[224], how,
           "a load takes a store away");
    subject_tell(s, 'c');
    subject_wait(s);
    expect(subject_collect(s, dirty) == 0 || config->mode == TW_INST_OWNED, how,
           "a compare-exchange that fails makes a line dirty");
    subject_collect_accessed(s, told);
}

/* Nothing is missed or invented while epochs end in the midst of it. */
static void storm(struct subject *s, const char *how)
{
    static uint8_t all[SUBJECT_LINES], memory[SUBJECT_BYTES];
    uint64_t told_lines = 0, missed = 0, invented = 0;
    memset(all, 0, sizeof all);
    subject_collect_accessed(s, told);
    subject_tell(s, 'g');
    subject_wait(s);
    const uint64_t end = tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
    unsigned epochs = 0;
    for (; epochs < EPOCHS || (told_lines < LINES && tw_now(&tw_monotonic) < end); epochs++) {
        told_lines += subject_collect_accessed(s, told);
        for (uint32_t line = 0; line < LOADS_LINES; line++)
            all[line] |= told[line];
    }
    subject_poke(s, 0, 1);
    subject_wait(s);
    subject_collect_accessed(s, told);
    subject_read(s, memory);
    for (uint32_t line = 1; line < LOADS_LINES; line++) {
        const bool loaded = memory[LOADS_NOTES * TW_LINE_SIZE + line];
        all[line] |= told[line];
        missed += loaded && !all[line];
        invented += !loaded && all[line];
    }
    printf("%s: %llu lines in %u epochs, %llu missed, %llu invented\n", how,
           (unsigned long long)told_lines, epochs, (unsigned long long)missed,
           (unsigned long long)invented);
    expect(missed == 0, how, "a load is missed");
    expect(invented == 0, how, "a load is invented");
    expect(told_lines >= LINES, how, "the threads hardly load");
    expect(subject_collect_accessed(s, told) == 0, how, "something is told when nobody loads");
    subject_poke(s, 0, 0);
}

static bool records_loads(const struct subject *s)
{
    struct tw_instrumented_stats stats;
    tw_instrumented_stats_get(s->program, &stats);
    return stats.records_loads;
}

static void run(const char *compiler, const char *mode, struct tw_instrumented_config config)
{
    char path[512], how[64];
    struct tw_error err;
    struct subject s;
    snprintf(path, sizeof path, TEST_SUBJECTS "loads-%s", compiler);
    snprintf(how, sizeof how, "%s, %s", compiler, mode);
    config.loads = true;
    subject_open(&s, path, &config);
    subject_track_accessed(&s);
    expect_exact(&s, true, how);
    expect_dirty_apart(&s, &config, how);
    storm(&s, how);
    /* Switched off, and on again, while it is tracked. */
    const uint64_t end = tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
    const bool always = config.mode == TW_INST_OWNED;
    expect(tw_instrumented_loads(s.program, false, end, &err) == TW_OK, how, "ends");
    while (!always && records_loads(&s) && tw_now(&tw_monotonic) < end)
        continue; /* nobody waits for this usually */
    expect_exact(&s, always, how);
    expect(tw_instrumented_loads(s.program, true, end, &err) == TW_OK, how, "begins again");
    expect_exact(&s, true, how);
    subject_close(&s);
}

/* Nobody has asked for loads yet. */
static void run_without(struct tw_instrumented_config config)
{
    struct subject s;
    subject_open(&s, TEST_SUBJECTS "loads-gcc", &config);
    subject_track_accessed(&s);
    expect(!records_loads(&s), "gcc, without", "loads are recorded");
    expect_exact(&s, false, "gcc, without");
    subject_close(&s);
}

int main(void)
{
    static const struct tw_instrumented_config mark = {.mode = TW_INST_MARK},
                                               sharing = {.mode = TW_INST_SHARING},
                                               owned = {.mode = TW_INST_OWNED,
                                                        .cache = {.cores = 4,
                                                                  .l1 = {4096, 4},
                                                                  .last = {65536, 8}}};
    static const char *const compilers[] = {
        "gcc",
#ifdef TEST_CLANG
        "clang",
#endif
    };
    run_without(mark);
    for (size_t i = 0; i < sizeof compilers / sizeof compilers[0]; i++) {
        run(compilers[i], "mark", mark);
        run(compilers[i], "sharing", sharing);
        run(compilers[i], "owned", owned);
    }
    return failures != 0;
}
