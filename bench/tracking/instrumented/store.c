/* The loops of random stores and of random loads, compiled with instrumentation and plainly, into
 * one program each. Says nanoseconds of processor time a store or load, a line a run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MEMORY_BYTES (UINT64_C(256) << 20)
#define STORES       (UINT64_C(1) << 24)

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

__attribute__((noinline)) static void store_at_random(uint64_t *words, uint64_t state)
{
    for (uint64_t i = 0; i < STORES; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words[state % (MEMORY_BYTES / sizeof *words)] = state;
    }
}

__attribute__((noinline)) static uint64_t load_at_random(const uint64_t *words, uint64_t state)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < STORES; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sum += words[state % (MEMORY_BYTES / sizeof *words)];
    }
    return sum;
}

/* A letter on standard input starts a run: 's' stores, 'l' loads; its end ends the program. */
int main(void)
{
    uint64_t *words = malloc(MEMORY_BYTES);
    if (words == NULL)
        return 1;
    for (uint64_t i = 0; i < MEMORY_BYTES / sizeof *words; i++)
        words[i] = i;
    store_at_random(words, 1); /* does not count */
    printf("%lx\n", (unsigned long)(uintptr_t)words);
    fflush(stdout);
    volatile uint64_t sum = load_at_random(words, 1); /* does not count either */
    int what;
    for (int run = 2; (what = getchar()) == 's' || what == 'l'; run++) {
        const double start = now_ns();
        if (what == 's')
            store_at_random(words, (uint64_t)run);
        else
            sum = load_at_random(words, (uint64_t)run);
        printf("%.4f\n", (now_ns() - start) / (double)STORES);
        fflush(stdout);
    }
    free(words);
    return 0;
}
