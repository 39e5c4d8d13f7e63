/* A program whose threads write lines at random and say which, against the attachment.
 *
 *   rounds   the threads stop, a pass follows: what is told is exactly what was written (of a page
 *            without a copy, the page)
 *   running  passes while they write in bursts: whatever was told is brought into a replica, read
 *            after the telling. After each burst one more pass makes replica and memory equal (an
 *            order other than protect-then-read would lose updates), and nothing was told that was
 *            never written.
 *
 *   process_property_test [--seed N] [--rounds N] */
#include "base/random.h"
#include "hosts/process/test_session.h"
#include "hosts/process/test_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE  ((uint64_t)TW_PAGE_SIZE)
#define PAGES 512u

static uint64_t seed;

static void expect(bool good, const char *what, uint64_t page)
{
    if (good)
        return;
    fprintf(stderr, "seed %llu: page %llu: %s\n", (unsigned long long)seed,
            (unsigned long long)page, what);
    exit(1);
}

static struct tw_process *attach_somehow(const struct target *t, struct tw_random *r)
{
    const struct tw_process_config config = {
        .exact = tw_random_below(r, 3) == 0,
        /* Sometimes not enough for all pages. */
        .copy_bytes_max = (PAGES / 4 + tw_random_below(r, 2 * PAGES)) * PAGE,
    };
    struct tw_process *attached;
    struct tw_error err;
    char text[600];
    if (tw_process_attach(&config, t->pid, &attached, &err)) {
        fprintf(stderr, "%s\n", tw_error_text(&err, text, sizeof text));
        exit(1);
    }
    return attached;
}

static void clear_written(struct target *t)
{
    for (unsigned i = 0; i < PAGES; i++)
        atomic_store(&t->control->written[i], 0);
}

/* ---- Rounds ---------------------------------------------------------------------------------- */

static void check_round(const struct target *t, const struct session *s, uint64_t memory)
{
    uint64_t told = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        const uint64_t written = atomic_load(&t->control->written[i]);
        bool whole;
        const uint64_t lines = session_lines(s, memory + i * PAGE, &whole);
        expect((written & ~lines) == 0, "a written line was not told", i);
        expect(whole ? written != 0 : lines == written, "told, but not written", i);
        told += lines != 0;
    }
    expect(told == s->count, "told of a page that is not watched", 0);
}

static void run_rounds(struct target *t, struct tw_random *r)
{
    const uint64_t memory = target_map(t, (enum target_kind)tw_random_below(r, 4), PAGES * PAGE);
    struct tw_process *attached = attach_somehow(t, r);
    struct session s;
    for (uint64_t i = tw_random_below(r, PAGES); i > 0; i--)
        target_store(t, memory + tw_random_below(r, PAGES * 64) * 64, 1);
    session_start(&s, attached, "rounds", memory, PAGES * PAGE);
    for (unsigned round = 0; round < 6; round++) {
        clear_written(t);
        t->control->threads = 1 + (uint32_t)tw_random_below(r, 3);
        t->control->stores = tw_random_below(r, 2000);
        target_do(t, TARGET_ROUND, memory, PAGES, tw_random_next(r) >> 8);
        session_collect(&s);
        check_round(t, &s, memory);
    }
    session_end(&s);
    tw_process_detach(attached);
    target_do(t, TARGET_UNMAP, memory, PAGES * PAGE, 0);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void apply(const struct target *t, const struct session *s, uint64_t memory,
                  uint8_t *replica)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct told_page *page = &s->pages[i];
        const uint64_t at = page->address - memory;
        uint8_t now[TW_PAGE_SIZE];
        expect(at < PAGES * PAGE, "told of a page that is not watched", at / PAGE);
        const uint64_t written = atomic_load(&t->control->written[at / PAGE]);
        expect(page->whole ? written != 0 : (page->lines & ~written) == 0,
               "told, but never written", at / PAGE);
        target_read_memory(t, page->address, now, sizeof now);
        for (uint64_t lines = page->lines; lines; lines &= lines - 1) {
            const unsigned line = (unsigned)__builtin_ctzll(lines);
            memcpy(replica + at + line * 64, now + line * 64, 64);
        }
    }
}

static void run_running(struct target *t, struct tw_random *r)
{
    const uint64_t memory = target_map(t, (enum target_kind)tw_random_below(r, 4), PAGES * PAGE);
    struct tw_process *attached = attach_somehow(t, r);
    uint8_t *replica = malloc(PAGES * PAGE), *final = malloc(PAGES * PAGE);
    struct session s;
    if (!replica || !final)
        exit(1);
    clear_written(t);
    session_start(&s, attached, "running", memory, PAGES * PAGE);
    target_read_memory(t, memory, replica, PAGES * PAGE);
    atomic_store(&t->control->stop, 0);
    /* Short bursts: an update that is lost in the middle must not be covered by later ones. */
    for (unsigned burst = 0; burst < 12; burst++) {
        t->control->threads = 1 + (uint32_t)tw_random_below(r, 3);
        t->control->stores = tw_random_below(r, 4 * PAGES);
        target_begin(t, TARGET_ROUND, memory, PAGES, tw_random_next(r) >> 8);
        for (uint64_t i = 1 + tw_random_below(r, 4); i > 0; i--) {
            session_collect(&s);
            apply(t, &s, memory, replica);
        }
        target_wait(t);
        session_collect(&s);
        apply(t, &s, memory, replica);
        target_read_memory(t, memory, final, PAGES * PAGE);
        for (unsigned i = 0; i < PAGES; i++)
            expect(memcmp(replica + i * PAGE, final + i * PAGE, PAGE) == 0, "an update was lost",
                   i);
    }
    free(replica);
    free(final);
    session_end(&s);
    tw_process_detach(attached);
    target_do(t, TARGET_UNMAP, memory, PAGES * PAGE, 0);
}

int main(int argc, char **argv)
{
    unsigned rounds = 12;
    seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--rounds") == 0)
            rounds = (unsigned)strtoul(argv[i + 1], NULL, 10);
    }
    target_start(&target);
    for (unsigned i = 0; i < rounds; i++, seed++) {
        struct tw_random r = {seed};
        run_rounds(&target, &r);
        run_running(&target, &r);
    }
    target_end(&target);
    printf("%u rounds, no difference\n", rounds);
    return 0;
}
