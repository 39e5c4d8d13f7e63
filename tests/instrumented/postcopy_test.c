/* Instrumented programs as both ends of the migration service, with misses of single lines: real
 * threads, real atomics and copies, and an oracle that repeats their work on a copy. */
#include "hosts/instrumented/private.h"
#include "tests/instrumented/world.h"

#include "base/clock.h"
#include "base/random.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

static unsigned failures;

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __func__, __LINE__, #condition);                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

static const struct tw_migration_limits pure = {.method = TW_METHOD_POST_COPY};

/* What the destination's memory has to become. */
static uint8_t *model_of(const struct world *w)
{
    uint8_t *model = aligned_alloc(TW_PAGE_SIZE, REGION_BYTES);
    if (model == NULL)
        abort();
    memcpy(model, w->source.host->memory, REGION_BYTES);
    return model;
}

static uint64_t lines_that_differ(const uint8_t *a, const uint8_t *b)
{
    uint64_t count = 0;
    for (uint64_t at = 0; at < REGION_BYTES; at += TW_LINE_SIZE)
        count += memcmp(a + at, b + at, TW_LINE_SIZE) != 0;
    return count;
}

static uint64_t wrong(const struct world *w)
{
    return subject_peek(&w->destination.program, SIGN_WRONG);
}

/* ---- Exactly what is touched ------------------------------------------------------------------
 */

struct demand {
    uint64_t lines, asked, faults, wrong, differs, late;
};

/* All threads wait for one line before anybody serves them, so that they merge for certain. */
static void merge(struct world *w)
{
    const struct tw_inst_header *h = w->destination.program.program->header;
    const uint64_t before = __atomic_load_n(&h->wants, __ATOMIC_SEQ_CST);
    const uint64_t end = tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
    world_tell(&w->destination, MERGE);
    while (__atomic_load_n(&h->wants, __ATOMIC_SEQ_CST) < before + THREADS) {
        if (tw_now(&tw_monotonic) > end)
            abort();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    world_wait(&w->destination);
}

/* The background stands still until the program has done all of its work on demand. */
static struct demand play(struct tw_migration_mutations source,
                          struct tw_migration_mutations destination,
                          struct tw_instrumented_region_mutations region)
{
    struct world w;
    struct demand d = {0};
    uint8_t bytes[INPUT_BYTES];
    world_open(&w, 0);
    uint8_t *model = model_of(&w);
    w.pause_at_switch = true;
    world_start(&w, &pure);
    world_mutate(&w, source, destination);
    tw_instrumented_region_mutate(w.destination.region, region);
    if (!world_switch(&w))
        abort();
    world_do(&w.destination, TOUCH);
    world_do(&w.destination, NEIGHBOURS);
    merge(&w);
    world_do(&w.destination, COPY);
    world_do(&w.destination, INPUT);
    world_do(&w.destination, FORK);
    world_look(&w);
    d.lines = w.sent.lines_on_demand;
    d.asked = w.sent.foresight.misses;
    d.faults = w.received.faults;
    d.wrong = wrong(&w);
    for (unsigned thread = 0; thread < THREADS; thread++) {
        work_touch(model, thread);
        work_neighbours(model, thread);
        work_merge(model, thread);
        work_copy(model, thread);
    }
    for (unsigned i = 0; i < INPUT_BYTES; i++)
        bytes[i] = (uint8_t)(i * 3 + 1);
    work_input_put(model, bytes);
    EXPECT(w.received.lines_left || destination.count_twice, "the background stood still");
    tw_source_pause(w.from, false);
    world_finish(&w);
    d.differs = lines_that_differ(model, w.destination.host->memory);
    d.late = w.received.lines_late;
    if (memcmp(&region, &(struct tw_instrumented_region_mutations){0}, sizeof region) == 0 &&
        !source.send_twice) {
        EXPECT(w.source.durable == TW_HAND_OVER_COMMITTED, "%s", w.sent.phase);
        EXPECT(w.destination.durable == TW_HAND_OVER_COMMITTED, "%s", w.received.phase);
        EXPECT(w.sent.memory_compared && w.sent.memory_equal, "by the service's own digest");
        EXPECT(w.received.lines_to_come == REGION_BYTES / TW_LINE_SIZE, "all of it");
        EXPECT(w.received.lines_left == 0, "completion");
        EXPECT(w.sent.lines_on_demand == d.lines, "nobody waits in the end");
        EXPECT(w.sent.bytes_on_demand <= d.lines * 2 * TW_LINE_SIZE + d.lines * 16, "%lu bytes",
               (unsigned long)w.sent.bytes_on_demand);
        EXPECT(w.received.fault_p50_ns && w.received.fault_p50_ns <= w.received.fault_p99_ns,
               "waits are timed");
        printf("%lu faults, %lu lines on demand in %lu bytes, p50 %.0f us, p99 %.0f us\n",
               (unsigned long)d.faults, (unsigned long)d.lines,
               (unsigned long)w.sent.bytes_on_demand, (double)w.received.fault_p50_ns / 1e3,
               (double)w.received.fault_p99_ns / 1e3);
    }
    free(model);
    world_close(&w);
    return d;
}

#define NEEDED (TOUCHED + NEIGHBOURING + MERGED + COPIED + INPUT_LINES)

static void each_miss_fetches_its_line_once(void)
{
    const struct demand d =
        play((struct tw_migration_mutations){0}, (struct tw_migration_mutations){0},
             (struct tw_instrumented_region_mutations){0});
    EXPECT(d.lines == NEEDED, "%lu lines, needed %u", (unsigned long)d.lines, (unsigned)NEEDED);
    EXPECT(d.asked == d.lines, "%lu demands for %lu lines", (unsigned long)d.asked,
           (unsigned long)d.lines);
    EXPECT(d.faults >= d.lines + THREADS - 1, "%lu waits merge", (unsigned long)d.faults);
    EXPECT(d.wrong == 0, "%lu values", (unsigned long)d.wrong);
    EXPECT(d.differs == 0, "%lu lines", (unsigned long)d.differs);
    EXPECT(d.late == 0, "%lu lines", (unsigned long)d.late);
}

/* ---- The checks bite --------------------------------------------------------------------------
 */

static void late_data_would_spoil_what_the_program_has_stored(void)
{
    const struct tw_migration_mutations twice = {.send_twice = true};
    struct demand d = play(twice, (struct tw_migration_mutations){0},
                           (struct tw_instrumented_region_mutations){0});
    EXPECT(d.late >= NEEDED && d.differs == 0 && d.wrong == 0, "%lu late, %lu lines differ",
           (unsigned long)d.late, (unsigned long)d.differs);
    d = play(twice, (struct tw_migration_mutations){.late_overwrites = true},
             (struct tw_instrumented_region_mutations){0});
    EXPECT(d.differs > 100, "R6 broken: %lu lines differ", (unsigned long)d.differs);
}

static void without_merging_a_line_is_asked_for_by_each(void)
{
    const struct demand d =
        play((struct tw_migration_mutations){0}, (struct tw_migration_mutations){.ask_each = true},
             (struct tw_instrumented_region_mutations){0});
    EXPECT(d.asked > d.lines, "%lu demands for %lu lines", (unsigned long)d.asked,
           (unsigned long)d.lines);
    EXPECT(d.lines == NEEDED && d.differs == 0, "the source sends it once all the same");
}

static void a_page_may_not_be_opened_by_one_line(void)
{
    const struct demand d =
        play((struct tw_migration_mutations){0}, (struct tw_migration_mutations){0},
             (struct tw_instrumented_region_mutations){.open_page = true});
    EXPECT(d.wrong > 0, "a neighbour was read before it came");
}

/* ---- Other ways -------------------------------------------------------------------------------
 */

static void it_completes_without_any_demand(void)
{
    struct world w;
    world_open(&w, 0);
    uint8_t *model = model_of(&w);
    world_start(&w, &pure);
    world_finish(&w);
    EXPECT(w.received.faults == 0 && w.sent.lines_on_demand == 0, "%lu faults",
           (unsigned long)w.received.faults);
    EXPECT(w.destination.durable == TW_HAND_OVER_COMMITTED, "%s", w.received.phase);
    EXPECT(lines_that_differ(model, w.destination.host->memory) == 0, "memory");
    free(model);
    world_close(&w);
}

/* Rounds while four threads store; they are stopped by the memory's leaving. */
static void stores_are_followed(enum tw_migration_method method)
{
    const struct tw_migration_limits limits = {.method = method,
                                               .bandwidth_bytes_per_s = 64 << 20,
                                               .max_rounds = 6,
                                               .on_no_convergence = TW_ON_NO_CONVERGENCE_STOP};
    struct world w;
    world_open(&w, 0);
    world_do(&w.source, STORM);
    world_start(&w, &limits);
    world_finish(&w);
    struct tw_instrumented_region_stats stats;
    tw_instrumented_region_stats_get(w.source.region, &stats);
    EXPECT(w.destination.durable == TW_HAND_OVER_COMMITTED, "%s", w.received.phase);
    EXPECT(w.sent.round_count >= 2 && w.sent.rounds[1].lines > 0, "%u rounds", w.sent.round_count);
    EXPECT(w.sent.lines_found_by_compare_only == 0, "%lu lines were not marked",
           (unsigned long)w.sent.lines_found_by_compare_only);
    EXPECT(lines_that_differ(w.source.host->memory, w.destination.host->memory) == 0, "memory");
    printf("%s: %u rounds, %lu lines follow, %lu stores carried\n",
           method == TW_METHOD_HYBRID ? "hybrid" : "pre-copy", w.sent.round_count,
           (unsigned long)w.sent.lines_to_come, (unsigned long)stats.carried);
    world_close(&w);
}

/* ---- The host alone ---------------------------------------------------------------------------
 */

static bool stop_ends(struct world *w, unsigned looks)
{
    const struct tw_host *h = w->source.host;
    enum tw_code code = TW_OK;
    for (unsigned i = 0; i < looks; i++) {
        if (h->ops->poll(h->ctx, NULL, &code, NULL)) {
            EXPECT(code == TW_OK, "%d", (int)code);
            return true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

/* Whether memory has the store of a thread that hesitated before it when it was stopped. */
static bool hesitant_store_is_there(bool forget)
{
    struct world w;
    world_open(&w, 0);
    const struct tw_host *h = w.source.host;
    tw_instrumented_region_mutate(
        w.source.region, (struct tw_instrumented_region_mutations){.forget_in_flight = forget});
    world_tell(&w.source, HESITATE);
    subject_await(&w.source.program, SIGN_HERE, 1);
    EXPECT(h->ops->begin(h->ctx, TW_HOST_STOP, NULL, TW_NEVER, NULL) == TW_OK, "stop");
    bool stopped = stop_ends(&w, 20);
    EXPECT(stopped == forget, "a store is under way");
    const uint64_t then = *word_of(h->memory, 3, 3);
    subject_poke(&w.source.program, SIGN_GO, 1);
    subject_await(&w.source.program, SIGN_HERE, 2);
    stopped = stopped || stop_ends(&w, 20000);
    EXPECT(stopped, "the store was made");
    const bool there = (forget ? then : *word_of(h->memory, 3, 3)) == 4711;
    h->ops->begin(h->ctx, TW_HOST_CONTINUE, NULL, TW_NEVER, NULL);
    enum tw_code code;
    h->ops->poll(h->ctx, NULL, &code, NULL);
    world_wait(&w.source);
    world_close(&w);
    return there;
}

static void a_stop_waits_for_stores_under_way(void)
{
    EXPECT(hesitant_store_is_there(false), "in the memory that is handed over");
    EXPECT(!hesitant_store_is_there(true), "lost where nobody waits for it");
}

static void a_stop_that_cannot_end_lets_the_program_run_on(void)
{
    struct world w;
    struct tw_error err;
    enum tw_code code = TW_OK;
    world_open(&w, 0);
    const struct tw_host *h = w.source.host;
    world_tell(&w.source, HESITATE);
    subject_await(&w.source.program, SIGN_HERE, 1);
    h->ops->begin(h->ctx, TW_HOST_STOP, NULL, tw_now(&tw_monotonic), &err);
    EXPECT(h->ops->poll(h->ctx, NULL, &code, &err) && code == TW_DEADLINE_EXCEEDED, "%d",
           (int)code);
    subject_poke(&w.source.program, SIGN_GO, 1);
    world_wait(&w.source);
    world_do(&w.source, FILL);
    world_close(&w);
}

/* The state says where the region lies, and strangers' bytes are looked at. */
static void a_state_of_another_region_is_refused(void)
{
    struct world w;
    struct tw_error err;
    struct tw_host_state state = {0};
    enum tw_code code;
    world_open(&w, 0);
    const struct tw_host *h = w.source.host;
    h->ops->begin(h->ctx, TW_HOST_SAVE_STATE, NULL, TW_NEVER, &err);
    h->ops->poll(h->ctx, &state, &code, &err);
    EXPECT(code == TW_OK && state.size == 32, "%zu bytes", state.size);
    for (size_t i = 0; i <= state.size; i++) {
        struct tw_host_state bad = {.data = malloc(state.size), .size = state.size - (i == 32)};
        memcpy(bad.data, state.data, state.size);
        bad.data[i % 32] ^= 1;
        h->ops->begin(h->ctx, TW_HOST_LOAD_STATE, &bad, TW_NEVER, &err);
        h->ops->poll(h->ctx, NULL, &code, &err);
        const bool reserved = i >= 12 && i < 16;
        EXPECT((code == TW_OK) == reserved, "byte %zu: %d", i, (int)code);
        free(bad.data);
    }
    free(state.data);
    world_close(&w);
}

/* ---- A program that writes nonsense into the file ---------------------------------------------
 */

static void scribble(const struct tw_instrumented *p, struct tw_random *r)
{
    for (unsigned i = 0; i < 64; i++) {
        struct tw_inst_thread *t = &p->threads[tw_random_below(r, TW_INST_THREADS_MAX)];
        t->tid = (uint32_t)tw_random_next(r) | 1;
        t->in_flight = tw_random_next(r) >> tw_random_below(r, 20);
        t->want_first = tw_random_next(r) >> tw_random_below(r, 60);
        t->want_lines = tw_random_next(r) >> tw_random_below(r, 60);
        if (tw_random_below(r, 2))
            t->want_first = tw_line_of(REGION_AT) - 5 + tw_random_below(r, 70000);
        t->want_since_ns = tw_random_next(r);
        t->wants++;
    }
    p->header->wants++;
    p->header->threads_top = tw_random_below(r, 2) ? UINT32_MAX : TW_INST_THREADS_MAX;
}

static void nonsense_harms_only_the_program(void)
{
    struct world w;
    struct tw_random r = {3};
    struct tw_host_fault faults[16];
    enum tw_code code;
    world_open(&w, 0);
    const struct tw_host *h = w.destination.host;
    h->faults->guard(h->ctx, &code, NULL);
    EXPECT(code == TW_OK, "%d", (int)code);
    uint64_t told = 0;
    for (unsigned round = 0; round < 200; round++) {
        scribble(w.destination.program.program, &r);
        h->ops->sync(h->ctx);
        for (unsigned i = 0; i < 100; i++) {
            const size_t n = h->faults->take(h->ctx, faults, 16);
            for (size_t k = 0; k < n; k++)
                EXPECT(faults[k].address < REGION_BYTES &&
                           faults[k].since_ns <= tw_now(&tw_monotonic),
                       "%#lx", (unsigned long)faults[k].address);
            told += n;
        }
    }
    EXPECT(told > 1000, "%lu", (unsigned long)told);
    world_close(&w);
}

/* What it says of a region is looked at before anything is mapped. */
static void a_region_that_is_none_is_refused(void)
{
    struct world w;
    struct tw_error err;
    struct tw_instrumented_region *region;
    world_open(&w, 0);
    struct tw_instrumented *p = w.source.program.program;
    struct tw_inst_region *told = &p->header->regions[0];
    const struct tw_inst_region good = *told;
    const struct tw_inst_region bad[] = {
        {.address = good.address, .bytes = good.bytes + 1, .fd = good.fd},
        {.address = good.address, .bytes = good.bytes * 2, .fd = good.fd},
        {.address = good.address, .bytes = UINT64_MAX & ~UINT64_C(4095), .fd = good.fd},
        {.address = good.address + 4096, .bytes = good.bytes, .fd = good.fd},
        {.address = good.address, .bytes = good.bytes, .fd = 0},
        {.address = good.address, .bytes = good.bytes, .fd = -1},
        {.address = good.address, .bytes = good.bytes, .fd = 9999},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        *told = bad[i];
        const struct tw_instrumented_region_config config = {.address = bad[i].address};
        EXPECT(tw_instrumented_region_open(p, &config, 0, &region, &err) != TW_OK, "%zu", i);
    }
    *told = good;
    const struct tw_instrumented_region_config elsewhere = {.address = good.address * 2};
    EXPECT(tw_instrumented_region_open(p, &elsewhere, 0, &region, &err) == TW_NOT_FOUND, "none");
    world_close(&w);
}

/* ---- Nobody brings the line -------------------------------------------------------------------
 */

static void expect_killed_by(struct subject *program, int number, const char *what)
{
    int status = 0;
    const uint64_t end = tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
    while (waitpid(program->pid, &status, WNOHANG) == 0 && tw_now(&tw_monotonic) < end)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == number, "%s: status %#x", what,
           (unsigned)status);
}

/* The agent goes while lines are absent: who touches one never reads zeros instead. */
static void patience_ends_in_sigbus(bool agent_goes)
{
    struct world w;
    world_open(&w, 300 * TW_MS);
    w.pause_at_switch = true;
    world_start(&w, &pure);
    if (!world_switch(&w))
        abort();
    struct subject *program = &w.destination.program;
    if (agent_goes) {
        tw_destination_free(w.to);
        w.to = NULL;
        tw_instrumented_region_close(w.destination.region);
        w.destination.region = NULL;
        tw_instrumented_close(program->program);
        program->program = NULL;
    }
    world_tell(&w.destination, READ_ONE);
    expect_killed_by(program, SIGBUS, agent_goes ? "no agent" : "an agent that does nothing");
    world_close(&w);
}

/* A sleeper that is not woken sleeps until its patience is over, whatever has come. */
static void who_sleeps_is_woken(void)
{
    struct world w;
    world_open(&w, 2 * TW_SEC);
    w.pause_at_switch = true;
    world_start(&w, &pure);
    if (!world_switch(&w))
        abort();
    tw_instrumented_region_mutate(w.destination.region,
                                  (struct tw_instrumented_region_mutations){.sleep_on = true});
    const uint64_t start = tw_now(&tw_monotonic);
    world_tell(&w.destination, READ_ONE);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL); /* it sleeps by now */
    world_wait(&w.destination);
    EXPECT(tw_now(&tw_monotonic) - start > TW_SEC, "nobody woke it");
    EXPECT(wrong(&w) == 0, "and yet it read what had come");
    world_close(&w);
}

int main(void)
{
    each_miss_fetches_its_line_once();
    late_data_would_spoil_what_the_program_has_stored();
    without_merging_a_line_is_asked_for_by_each();
    a_page_may_not_be_opened_by_one_line();
    it_completes_without_any_demand();
    stores_are_followed(TW_METHOD_HYBRID);
    stores_are_followed(TW_METHOD_PRE_COPY);
    a_stop_waits_for_stores_under_way();
    a_stop_that_cannot_end_lets_the_program_run_on();
    a_state_of_another_region_is_refused();
    nonsense_harms_only_the_program();
    a_region_that_is_none_is_refused();
    patience_ends_in_sigbus(false);
    patience_ends_in_sigbus(true);
    who_sleeps_is_woken();
    return failures != 0;
}
