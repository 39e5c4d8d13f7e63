/* The random-store loop, compiled with instrumentation as store_instrumented and plainly as
 * store_plain, into one program each. Says nanoseconds of processor time a store, a line a run. */
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

/* A line on standard input starts a run; its end ends the program. */
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
    for (int run = 2; getchar() == '\n'; run++) {
        const double start = now_ns();
        store_at_random(words, (uint64_t)run);
        printf("%.4f\n", (now_ns() - start) / (double)STORES);
        fflush(stdout);
    }
    free(words);
    return 0;
}
