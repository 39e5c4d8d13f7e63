/* The small guest: a multiboot program that writes memory in a known pattern and checks it.
 *
 * What it writes can be checked from inside and outside: the word of a page carries its
 * generation, which is the number of passes over memory so far, and a hash of page and
 * generation. The guest knows the generation that it expects, so a page that is old but
 * consistent is noticed as well as a torn one. It needs 4 MiB of memory and no disk.
 *
 * Command line (all optional):
 *   mode=sparse   one word in each page, in order (default)
 *   mode=random   the same, each pass in another order
 *   mode=dense    every word of every page
 *   mode=idle     writes nothing but its clock
 *   pages=N       pages to work on; 0 = as many as fit (default)
 *   rate=N        pages written a second; 0 = as fast as it can (default)
 *   timer=N       timer interrupts a second, 19 to 1000, that end its waits (1000)
 *   fill=1        fills the pages with other data first, so that none holds zeros
 *
 * Serial port: `READY mode=.. pages=.. tsc_khz=..`, then once a second
 * `t=SECONDS it=PASSES writes=PAGES bad=PAGES gap_us=MICROSECONDS`; after `stop` was set one line
 * `STOP ...` of the same form. Times are the guest's: its clock stands while it is stopped.
 *
 * This header is read by the guest and by the programs that look into its memory. */
#ifndef TOWLINE_GUESTS_SPARSE_H
#define TOWLINE_GUESTS_SPARSE_H

#include <stdint.h>

#define TW_SPARSE_CONTROL 0x300000u /* guest physical address of the control block */
#define TW_SPARSE_DATA    0x301000u /* of page 0 */
#define TW_SPARSE_PAGE    4096u
#define TW_SPARSE_MAGIC   0x600DF00Du

enum tw_sparse_mode {
    TW_SPARSE_SEQUENTIAL = 1,
    TW_SPARSE_RANDOM = 2,
    TW_SPARSE_DENSE = 3,
    TW_SPARSE_IDLE = 4,
};

/* Written by the guest but for `stop`. Everything is little-endian. The guest has 32 bits: a reader
 * in the middle of an update of a 64-bit number may see the halves of two values. */
struct tw_sparse_control {
    uint32_t magic; /* set last, when the pages are ready */
    uint32_t mode;  /* enum tw_sparse_mode */
    uint32_t pages;
    uint32_t rate;      /* pages a second; 0 = no limit */
    uint32_t iteration; /* passes completed; every page has this generation or the next */
    uint32_t tsc_khz;   /* ticks of the clock below in a millisecond */
    uint64_t writes;    /* pages written since READY */
    uint64_t bad;       /* pages found with other than the expected content */
    uint64_t start_tsc; /* at READY */
    uint64_t now_tsc;
    uint64_t gap_tsc_max; /* longest time between two looks at the clock (64 pages apart) */
    uint32_t stop;        /* set to 1 from outside: the guest says STOP and halts for good */
    uint32_t reserved;
};
_Static_assert(sizeof(struct tw_sparse_control) == 72, "layout is known to programs outside");

static inline uint32_t tw_sparse_hash(uint32_t place, uint32_t generation)
{
    uint32_t x = place * 0x9E3779B1u ^ generation * 0x85EBCA6Bu;
    x ^= x >> 15;
    x *= 0x2C1B3C6Du;
    return x ^ x >> 12;
}

/* Guest physical address of the word of a page in the modes sparse and random: the hash at it, the
 * generation 4 bytes behind. Neighbouring pages use different lines. */
static inline uint32_t tw_sparse_word(uint32_t page)
{
    return TW_SPARSE_DATA + page * TW_SPARSE_PAGE + (page * 37u & 63u) * 64u;
}

/* Word `i` of a page in mode dense, and what `fill` leaves in a page (generation 0). */
static inline uint32_t tw_sparse_dense(uint32_t page, uint32_t generation, uint32_t i)
{
    return tw_sparse_hash(page, generation) + i * 0x9E3779B1u;
}

#endif
