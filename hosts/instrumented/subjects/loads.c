/* Every way to load that the attachment claims to see. What a scenario loads, the test knows. */
#include "loads.h"
#include "subject.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static volatile uint64_t sink;

static uint8_t *line(unsigned n)
{
    return region + n * 64u;
}

struct __attribute__((packed)) odd {
    char c;
    uint64_t wide;
};

static void scalars(void) /* a: lines 1 to 7 of odd number, 9 and 10 */
{
    sink = *line(1);
    sink = *(uint16_t *)line(3);
    sink = *(uint32_t *)line(5);
    sink = *(volatile uint64_t *)line(7);
    sink = ((struct odd *)(line(9) + 59))->wide;
}

struct big {
    char bytes[200];
};

static void copies(void) /* b: lines 64 to 67, 70, 80 to 82 */
{
    static struct big one;
    static char bytes[256];
    one = *(struct big *)line(64);
    memcpy(bytes, line(70) + 8, 40);
    memmove(bytes, line(80), 130);
    sink = (uint64_t)one.bytes[3] + (uint64_t)bytes[5];
}

static void atomics(void) /* c: lines 128 and 130; 130 by a compare-exchange that fails */
{
    uint32_t wrong = 1;
    sink = atomic_load((_Atomic uint32_t *)line(128));
    if (atomic_compare_exchange_strong((_Atomic uint32_t *)line(130), &wrong, 2))
        abort();
}

static void *load_some(void *number)
{
    uint32_t state = (uint32_t)(uintptr_t)number;
    for (unsigned i = 0; i < LOADS_EACH; i++)
        sink = *(const volatile uint64_t *)line(loads_next(&state));
    return NULL;
}

static void threads(void) /* d */
{
    pthread_t thread[LOADS_THREADS];
    for (uintptr_t i = 0; i < LOADS_THREADS; i++) {
        if (pthread_create(&thread[i], NULL, load_some, (void *)i))
            abort();
    }
    for (unsigned i = 0; i < LOADS_THREADS; i++)
        pthread_join(thread[i], NULL);
}

static void nothing(void) /* e */
{
}

static void both(void) /* f: loads lines 200 to 209, stores to 205 to 214 */
{
    for (unsigned i = 200; i < 210; i++)
        sink = *line(i);
    for (unsigned i = 205; i < 215; i++)
        *line(i) = 1;
}

static uint8_t noted[LOADS_THREADS][LOADS_LINES];

static void *storm_thread(void *number)
{
    const uintptr_t me = (uintptr_t)number;
    uint32_t state = 77u + (uint32_t)me;
    while (*(const volatile uint64_t *)line(0) != 1) {
        for (unsigned i = 0; i < 50; i++) {
            const uint32_t at = loads_next(&state);
            /* A quarter of the lines is loaded by nobody. */
            if (at % 4 == 0)
                continue;
            sink = *(const volatile uint64_t *)line(at);
            noted[me][at] = 1;
        }
    }
    return NULL;
}

static void storm(void) /* g: until the test stores 1 to line 0; notes what was loaded */
{
    pthread_t thread[LOADS_THREADS];
    for (uintptr_t i = 0; i < LOADS_THREADS; i++) {
        if (pthread_create(&thread[i], NULL, storm_thread, (void *)i))
            abort();
    }
    subject_answer();
    for (unsigned i = 0; i < LOADS_THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < LOADS_LINES; i++) {
        line(LOADS_NOTES)[i] = 0;
        for (unsigned t = 0; t < LOADS_THREADS; t++)
            line(LOADS_NOTES)[i] |= noted[t][i];
    }
}

int main(void)
{
    static void (*const scenarios[])(void) = {scalars, copies, atomics, threads,
                                              nothing, both,   storm};
    return subject_main(scenarios, sizeof scenarios / sizeof scenarios[0]);
}
