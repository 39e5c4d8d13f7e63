/* Every way to load that the attachment claims to see. What a scenario loads, the test knows. */
#define _GNU_SOURCE
#include "loads.h"
#include "subject.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

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

/* h: stores the ends of texts and what tells two of them apart; all else is 0xa5. */
static void prepare(void)
{
    for (const struct loads_ends *e = loads_ends; e->line; e++)
        line(e->line)[e->byte] = e->value;
}

static char *text(unsigned n)
{
    return (char *)line(n);
}

static void look_at_texts(void) /* i: see loads.h */
{
    sink = strlen(text(9000));
    sink = strnlen(text(9010), 100);
    sink = (uint64_t)strcmp(text(9020), text(9030));
    sink = (uint64_t)strncmp(text(9040), text(9050), 64);
    sink = (uint64_t)strcasecmp(text(9060), text(9070));
    sink = (uint64_t)strncasecmp(text(9080), text(9090), 10);
    sink = (uintptr_t)strchr(text(9100), 'x');
    sink = (uintptr_t)strchrnul(text(9110), 'x');
    sink = (uintptr_t)strrchr(text(9120), 'x');
    sink = (uintptr_t)strstr(text(9130), "xyz");
    sink = strspn(text(9140), "\xa5");
    sink = strcspn(text(9150), "x");
    sink = (uintptr_t)strpbrk(text(9160), "xy");
}

static void look_at_bytes(void) /* j: see loads.h */
{
    sink = (uint64_t)memcmp(line(9200), line(9210), 250);
    sink = (uint64_t)bcmp(line(9220), line(9230), 64);
    sink = (uintptr_t)memchr(line(9240), 'x', 300);
    sink = (uintptr_t)memrchr(line(9250), 'x', 192);
    sink = (uintptr_t)memmem(line(9260), 250, "xy", 2);
}

static void expect(bool good)
{
    if (!good)
        abort();
}

static void give_away(void) /* k: see loads.h */
{
    struct iovec parts[] = {{line(9320), 64}, {line(9330), 10}, {line(9335), 0}};
    struct iovec more[] = {{line(9340), 65}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    int pair[2];
    const int null = open("/dev/null", O_WRONLY);
    FILE *const stream = fopen("/dev/null", "w");
    expect(null >= 0 && stream && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    expect(write(null, line(9300), 130) == 130 && pwrite(null, line(9310), 64, 0) == 64);
    expect(write(-1, line(9315), 64) < 0); /* takes nothing */
    expect(writev(null, parts, 3) == 74 && pwritev(null, more, 1, 0) == 65);
    expect(send(pair[0], line(9350), 64, 0) == 64);
    expect(sendto(pair[0], line(9360), 1, 0, NULL, 0) == 1);
    parts[0].iov_base = line(9370);
    expect(sendmsg(pair[0], &message, 0) == 74);
    expect(fwrite(line(9380), 35, 2, stream) == 2 && fputs(text(9390), stream) >= 0);
    fclose(stream);
    close(null);
    close(pair[0]);
    close(pair[1]);
}

__attribute__((noinline)) static void load_lines(unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        sink = *(const volatile uint64_t *)line(first + i);
}

static void store_then_load(void) /* l: lines 220 to 224 */
{
    for (unsigned i = 220; i < 225; i++)
        *line(i) += 1;
    load_lines(220, 5);
}

int main(void)
{
    static void (*const scenarios[])(void) = {
        scalars, copies,  atomics,       threads,       nothing,   both,
        storm,   prepare, look_at_texts, look_at_bytes, give_away, store_then_load};
    return subject_main(scenarios, sizeof scenarios / sizeof scenarios[0]);
}
