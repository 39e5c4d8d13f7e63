/* What the program does to its region, for the program and for the test that repeats it on a copy:
 * the same functions, compiled with instrumentation and without. Each touches lines that no other
 * touches, and says how many. */
#ifndef TOWLINE_TESTS_INSTRUMENTED_WORK_H
#define TOWLINE_TESTS_INSTRUMENTED_WORK_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define REGION_AT    UINT64_C(0x5a0000000000)
#define REGION_BYTES (UINT64_C(4) << 20)
#define PAGES        (REGION_BYTES / 4096)
#define THREADS      4u

/* The control page, which does not move: words a line apart. */
enum sign { SIGN_GO, SIGN_HERE, SIGN_WRONG, SIGN_STOP, SIGN_ROUNDS };

enum scenario { FILL, TOUCH, NEIGHBOURS, MERGE, COPY, INPUT, STORM, HESITATE, READ_ONE, FORK };

static inline volatile uint64_t *word_of(uint8_t *base, uint64_t page, uint64_t line)
{
    return (volatile uint64_t *)(void *)(base + page * 4096 + line * 64);
}

static inline uint64_t value_of(uint64_t page, uint64_t line, uint64_t generation)
{
    uint64_t v = (page << 20 | line << 8 | generation) * UINT64_C(0x9e3779b97f4a7c15);
    return v ^ v >> 29;
}

/* Every byte of the region counts. */
static inline void work_fill(uint8_t *base)
{
    for (uint64_t page = 0; page < PAGES; page++)
        for (uint64_t line = 0; line < 64; line++)
            for (uint64_t i = 0; i < 8; i++)
                word_of(base, page, line)[i] = value_of(page, line, i);
}

/* Pages 0..511: a line each. Reads, and stores to every other. Returns what was wrong. */
#define TOUCHED 512u
static inline unsigned work_touch(uint8_t *base, unsigned thread)
{
    unsigned wrong = 0;
    for (uint64_t page = thread; page < TOUCHED; page += THREADS) {
        volatile uint64_t *p = word_of(base, page, page * 7 % 64);
        wrong += p[3] != value_of(page, page * 7 % 64, 3);
        if (page % 2)
            p[3] = value_of(page, 3, 100);
    }
    return wrong;
}

/* The lines beside those, of the first pages: stored to before they are read. */
#define NEIGHBOURING 128u
static inline unsigned work_neighbours(uint8_t *base, unsigned thread)
{
    unsigned wrong = 0;
    for (uint64_t page = thread; page < NEIGHBOURING; page += THREADS) {
        const uint64_t line = (page * 7 + 1) % 64;
        volatile uint64_t *p = word_of(base, page, line);
        p[1] = value_of(page, 5, 101);
        wrong += p[0] != value_of(page, line, 0) || p[2] != value_of(page, line, 2);
    }
    return wrong;
}

/* Pages 512..: all threads add to the same lines. */
#define MERGED 32u
static inline void work_merge(uint8_t *base, unsigned thread)
{
    (void)thread;
    for (uint64_t i = 0; i < MERGED; i++)
        __atomic_fetch_add(&word_of(base, TOUCHED + i, 9)[2], 1 + i, __ATOMIC_SEQ_CST);
}

/* Pages 600..: the functions of libc, over the ends of lines. */
#define COPIED (6u + 6u + 2u + 2u + 1u + 2u + 1u)
#define TEXT   "a text that is long enough to lie in two lines wherever it begins, and a little more"
static inline unsigned work_copy(uint8_t *base, unsigned thread)
{
    uint8_t *p = base + 600 * 4096, out[64];
    if (thread)
        return 0;
    memcpy(p + 100, p + 4096 + 30, 300);                 /* 6 lines from 6 */
    memset(p + 2 * 4096 + 60, 0x5a, 10);                 /* 2 */
    strcpy((char *)p + 3 * 4096 + 40, TEXT);             /* 2 */
    snprintf((char *)p + 4 * 4096 + 8, 40, "%s", "few"); /* 1 */
    memmove(p + 5 * 4096 + 70, p + 5 * 4096 + 120, 60);  /* 2: lines 1 and 2 */
    memcpy(out, p + 6 * 4096 + 64, sizeof out);          /* 1 */
    uint64_t first;
    memcpy(&first, out, sizeof first);
    return first != value_of(606, 1, 0);
}

/* Page 620: what the kernel and stdio put there, and what the kernel takes from there. */
#define INPUT_LINES (3u + 2u)
#define INPUT_BYTES 130u
static inline void work_input_put(uint8_t *base, const uint8_t *bytes)
{
    memcpy(base + 620 * 4096 + 20, bytes, INPUT_BYTES); /* 3 lines */
}

#endif
