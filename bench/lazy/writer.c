/* towline-bench-writer: what the small guest does (guests/sparse.h), as a process: one word in each
 * page of its memory, in order, each checked before it is written again.
 *   towline-bench-writer PAGES RATE
 * RATE in pages a second. Standard output: READY, then a line behind each pass. Ends when a word is
 * not what it should be. */
#include "guests/sparse.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define BATCH     64u /* pages between two looks at the clock */
#define PAGES_MAX (1u << 18)
#define RATE_MAX  10000000u

static unsigned parse(const char *text, unsigned most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    return errno || *end || value > most ? 0 : (unsigned)value;
}

/* As the guest's `fill`: no page holds zeros, and the word has generation 0. */
static void fill(uint8_t *memory, unsigned pages)
{
    for (unsigned page = 0; page < pages; page++) {
        uint32_t *words = (uint32_t *)(void *)(memory + (size_t)page * TW_SPARSE_PAGE);
        for (uint32_t i = 0; i < TW_SPARSE_PAGE / 4; i++)
            words[i] = tw_sparse_dense(page, 0, i);
    }
}

static volatile uint32_t *word(uint8_t *memory, unsigned page)
{
    return (volatile uint32_t *)(void *)(memory + (tw_sparse_word(page) - TW_SPARSE_DATA));
}

static bool visit(uint8_t *memory, unsigned page, uint32_t generation)
{
    volatile uint32_t *w = word(memory, page);
    if (w[0] != tw_sparse_hash(page, generation) || w[1] != generation)
        return false;
    w[0] = tw_sparse_hash(page, generation + 1);
    w[1] = generation + 1;
    return true;
}

static void start(uint8_t *memory, unsigned pages)
{
    fill(memory, pages);
    for (unsigned page = 0; page < pages; page++) {
        word(memory, page)[0] = tw_sparse_hash(page, 0);
        word(memory, page)[1] = 0;
    }
}

static int run(uint8_t *memory, unsigned pages, unsigned rate)
{
    const struct timespec pause = {.tv_nsec = (long)(UINT64_C(1000000000) * BATCH / rate)};
    for (uint32_t generation = 0;; generation++) {
        for (unsigned page = 0; page < pages; page++) {
            if (!visit(memory, page, generation)) {
                printf("BAD page=%u expected=%u found=%u\n", page, generation,
                       word(memory, page)[1]);
                return 1;
            }
            if (page % BATCH == BATCH - 1)
                nanosleep(&pause, NULL);
        }
        printf("pass=%u\n", generation + 1);
    }
}

int main(int argc, char **argv)
{
    unsigned pages = argc == 3 ? parse(argv[1], PAGES_MAX) : 0;
    unsigned rate = argc == 3 ? parse(argv[2], RATE_MAX) : 0;
    if (!pages || rate < BATCH) {
        fprintf(stderr,
                "usage: towline-bench-writer PAGES RATE\n  expected 1 to %u pages, %u to %u "
                "of them a second\n",
                PAGES_MAX, BATCH, RATE_MAX);
        return 2;
    }
    uint8_t *memory = mmap(NULL, (size_t)pages * TW_SPARSE_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("towline-bench-writer: mmap");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    start(memory, pages);
    puts("READY");
    return run(memory, pages, rate);
}
