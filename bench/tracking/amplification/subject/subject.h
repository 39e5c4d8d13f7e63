/* Programs whose stores are looked at. Each sets itself up, does its work in steps, and can say
 * whether what it has made is right. Between steps it stands still.
 *   towline-bench-subject NAME SIZE STEPS
 * Says "ready ADDRESS BYTES" (hexadecimal; 0 0: all of its memory is meant), then for each byte on
 * its standard input "step"; after the last one it checks its work: exit status 0 = right. */
#ifndef TOWLINE_BENCH_TRACKING_AMPLIFICATION_SUBJECT_H
#define TOWLINE_BENCH_TRACKING_AMPLIFICATION_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct subject {
    const char *name;
    void (*begin)(uint64_t size);
    void (*step)(unsigned step, unsigned steps);
    bool (*right)(void);
};

extern const struct subject subject_pattern, subject_sort, subject_pagerank, subject_labels,
    subject_btree, subject_sqlite;

/* The memory that is meant, when it is not all. */
void subject_memory(const void *start, size_t bytes);

void *subject_alloc(size_t bytes); /* zeros; ends the program when there is none */
_Noreturn void subject_die(const char *what);

/* Bijective: different numbers stay different. */
static inline uint64_t subject_scramble(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
