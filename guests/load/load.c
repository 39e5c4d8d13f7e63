#include "guests/load/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEC_NS UINT64_C(1000000000)

uint64_t load_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SEC_NS + (uint64_t)t.tv_nsec;
}

void load_pace(struct load_pace *pace, uint32_t done)
{
    if (pace->rate == 0)
        return;
    uint64_t now = load_now_ns();
    pace->next_ns += done * SEC_NS / pace->rate;
    if (now > pace->next_ns + SEC_NS / 10)
        pace->next_ns = now;
    if (now < pace->next_ns) {
        uint64_t wait = pace->next_ns - now;
        struct timespec t = {(time_t)(wait / SEC_NS), (long)(wait % SEC_NS)};
        nanosleep(&t, NULL);
    }
}

/* Reads `name=number` into *value when `word` is that. A number out of its range is a mistake of
 * who wrote the command line: nothing runs then. */
static void number(const char *word, const char *name, uint32_t min, uint32_t max, uint32_t *value)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0 || word[length] != '=')
        return;
    char *end;
    unsigned long n = strtoul(word + length + 1, &end, 10);
    if (*end || end == word + length + 1 || n < min || n > max) {
        printf("load fatal: %s: expected a number from %u to %u, given %s\n", name, min, max,
               word + length + 1);
        exit(2);
    }
    *value = (uint32_t)n;
}

static void text(const char *word, const char *name, const char **value)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) == 0 && word[length] == '=')
        *value = word + length + 1;
}

int main(int argc, char **argv)
{
    struct load_options o = {.workload = "redis",
                             .socket = "/run/redis.sock",
                             .keys = 20000,
                             .value = 256,
                             .pipeline = 8,
                             .verify_every_s = 3,
                             .pages = 16384};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        text(argv[i], "workload", &o.workload);
        text(argv[i], "socket", &o.socket);
        number(argv[i], "keys", 64, 10000000, &o.keys);
        number(argv[i], "value", 16, 4096, &o.value);
        number(argv[i], "pipeline", 1, 64, &o.pipeline);
        number(argv[i], "verify_every_s", 1, 3600, &o.verify_every_s);
        number(argv[i], "rate", 0, 100000000, &o.rate);
        number(argv[i], "pages", 1, 16777216, &o.pages);
    }
    if (strcmp(o.workload, "redis") == 0)
        return load_redis(&o);
    if (strcmp(o.workload, "sparse") == 0 || strcmp(o.workload, "dense") == 0 ||
        strcmp(o.workload, "idle") == 0)
        return load_pages(&o);
    printf("load fatal: workload: expected redis, sparse, dense or idle, given %s\n", o.workload);
    return 2;
}
