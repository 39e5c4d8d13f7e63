/* Workloads sparse, dense and idle under Linux; the pattern is that of the small guest. */
#include "guests/load/load.h"
#include "guests/sparse.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BATCH  64u
#define SEC_NS UINT64_C(1000000000)

struct pages {
    volatile uint32_t *memory;
    uint32_t count, iteration;
    bool dense;
    uint64_t writes, bad, gap_ns_max, last_look_ns, last_status_ns, start_ns;
};

static volatile uint32_t *words_of(const struct pages *p, uint32_t page)
{
    uint32_t first = p->dense ? TW_SPARSE_DATA + page * TW_SPARSE_PAGE : tw_sparse_word(page);
    return p->memory + (first - TW_SPARSE_DATA) / 4;
}

static bool check(const struct pages *p, uint32_t page, uint32_t generation)
{
    volatile uint32_t *w = words_of(p, page);
    if (!p->dense)
        return w[0] == tw_sparse_hash(page, generation) && w[1] == generation;
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < TW_SPARSE_PAGE / 4; i++)
        wrong |= w[i] ^ tw_sparse_dense(page, generation, i);
    return wrong == 0;
}

static void write_page(const struct pages *p, uint32_t page, uint32_t generation)
{
    volatile uint32_t *w = words_of(p, page);
    if (!p->dense) {
        w[0] = tw_sparse_hash(page, generation);
        w[1] = generation;
        return;
    }
    for (uint32_t i = 0; i < TW_SPARSE_PAGE / 4; i++)
        w[i] = tw_sparse_dense(page, generation, i);
}

static void look_at_clock(struct pages *p)
{
    uint64_t now = load_now_ns();
    if (now - p->last_look_ns > p->gap_ns_max)
        p->gap_ns_max = now - p->last_look_ns;
    p->last_look_ns = now;
    if (now - p->last_status_ns < SEC_NS)
        return;
    p->last_status_ns = now;
    printf("t=%llu it=%u writes=%llu bad=%llu gap_us=%llu\n",
           (unsigned long long)((now - p->start_ns) / SEC_NS), p->iteration - 1,
           (unsigned long long)p->writes, (unsigned long long)p->bad,
           (unsigned long long)(p->gap_ns_max / 1000));
}

static void pass(struct pages *p, struct load_pace *pace)
{
    for (uint32_t page = 0; page < p->count; page++) {
        if (!check(p, page, p->iteration - 1)) {
            printf("BAD page=%u expected=%u\n", page, p->iteration - 1);
            p->bad++;
        }
        write_page(p, page, p->iteration);
        p->writes++;
        if (page % BATCH == BATCH - 1) {
            look_at_clock(p);
            load_pace(pace, BATCH);
        }
    }
    look_at_clock(p);
    load_pace(pace, p->count % BATCH);
    p->iteration++;
}

int load_pages(const struct load_options *options)
{
    struct pages p = {
        .count = options->pages, .iteration = 1, .dense = strcmp(options->workload, "dense") == 0};
    void *memory = mmap(NULL, (size_t)p.count * TW_SPARSE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        printf("load fatal: cannot have %u pages\n", p.count);
        return 1;
    }
    p.memory = memory;
    for (uint32_t page = 0; page < p.count; page++)
        write_page(&p, page, 0);
    p.start_ns = p.last_look_ns = p.last_status_ns = load_now_ns();
    struct load_pace pace = {options->rate, p.start_ns};
    printf("READY workload=%s pages=%u\n", options->workload, p.count);
    bool idle = strcmp(options->workload, "idle") == 0;
    for (;;) {
        if (!idle) {
            pass(&p, &pace);
            continue;
        }
        struct timespec second = {1, 0};
        nanosleep(&second, NULL);
        look_at_clock(&p);
    }
}
