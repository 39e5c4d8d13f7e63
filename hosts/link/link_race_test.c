/* Writers and the scanner at once: no update is lost.
 *
 * Each writer stores a growing number into lines of "memory" and marks them, as a vCPU and its
 * callback do. The reader scans and copies marked lines. After the writers' end one more scan must
 * make the copy equal. A scanner that reads data before it takes the mark, or a writer that tests
 * before it sets, fails here. */
#include "hosts/link/link.h"

#include "base/clock.h"
#include "base/random.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES        48u
#define LINES        (PAGES * TW_LINES_PER_PAGE)
#define WRITERS      2u
#define STORES       400000u
#define LONE_MARKS   100000u
#define RING_EVENTS  256u
#define RING_RECORDS 300000u

static struct tw_link_map map;
static uint64_t memory[LINES], copy[LINES]; /* one word stands for a line */
static unsigned running;

static void copy_page(void *ctx, uint64_t page, uint64_t lines)
{
    (void)ctx;
    for (; lines; lines &= lines - 1) {
        const uint64_t line = page * TW_LINES_PER_PAGE + (uint64_t)__builtin_ctzll(lines);
        copy[line] = __atomic_load_n(&memory[line], __ATOMIC_RELAXED);
    }
}

static void *write_lines(void *arg)
{
    struct tw_random r = {(uint64_t)(uintptr_t)arg};
    for (uint64_t i = 1; i <= STORES; i++) {
        /* Few pages at a time, so that writer and reader meet on the same bytes. */
        const uint64_t page = i / 5000 % PAGES;
        const uint64_t line = page * TW_LINES_PER_PAGE + tw_random_below(&r, 4);
        __atomic_store_n(&memory[line], i << 8 | (uintptr_t)arg, __ATOMIC_RELAXED);
        tw_link_mark(&map, line << TW_LINE_SHIFT);
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int race_on_the_map(void)
{
    pthread_t threads[WRITERS];
    uint64_t told = 0;
    map.page_count = PAGES;
    map.summary = aligned_alloc(64, 64);
    map.marks = aligned_alloc(64, LINES);
    memset(map.summary, 0, 64);
    memset(map.marks, 0, LINES);
    running = WRITERS;
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_lines, (void *)(i + 1));
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE))
        told += tw_link_scan(&map, copy_page, NULL);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    told += tw_link_scan(&map, copy_page, NULL);
    unsigned lost = 0;
    for (unsigned i = 0; i < LINES; i++)
        lost += copy[i] != memory[i];
    printf("map: %llu lines told, %u of %u lost\n", (unsigned long long)told, lost, LINES);
    free(map.summary);
    free(map.marks);
    return lost != 0 || told < PAGES;
}

/* ---- One mark at a time: no later store to the page can heal a lost one. ------------------- */

static uint64_t marked, taken, scans, spins;
static bool lost_lone;

static void count_taken(void *ctx, uint64_t page, uint64_t lines)
{
    (void)ctx;
    (void)page;
    __atomic_add_fetch(&taken, tw_popcount(lines), __ATOMIC_RELEASE);
}

/* Two whole scans begun after the mark must have taken it. */
static void *mark_and_wait(void *arg)
{
    const uint64_t end = tw_after(tw_now(&tw_monotonic), TW_SEC);
    (void)arg;
    for (uint64_t i = 0; i < LONE_MARKS && !lost_lone && tw_now(&tw_monotonic) < end; i++) {
        tw_link_mark(&map, i % TW_LINES_PER_PAGE << TW_LINE_SHIFT);
        /* Drains the store buffer: the mark is out before scans are counted. */
        __atomic_exchange_n(&marked, i + 1, __ATOMIC_SEQ_CST);
        const uint64_t before = __atomic_load_n(&scans, __ATOMIC_ACQUIRE);
        while (__atomic_load_n(&taken, __ATOMIC_ACQUIRE) == i && !lost_lone) {
            lost_lone = __atomic_load_n(&scans, __ATOMIC_ACQUIRE) > before + 2 &&
                        __atomic_load_n(&taken, __ATOMIC_ACQUIRE) == i;
            if (++spins % 1024 == 0)
                sched_yield();
        }
    }
    __atomic_store_n(&running, 0, __ATOMIC_RELEASE);
    return NULL;
}

static int race_of_lone_marks(void)
{
    static alignas(64) uint8_t summary[64], marks[TW_LINES_PER_PAGE];
    pthread_t thread;
    map = (struct tw_link_map){.summary = summary, .marks = marks, .page_count = 1};
    running = 1;
    pthread_create(&thread, NULL, mark_and_wait, NULL);
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
        tw_link_scan(&map, count_taken, NULL);
        __atomic_add_fetch(&scans, 1, __ATOMIC_RELEASE);
    }
    pthread_join(thread, NULL);
    printf("lone marks: %llu taken, lost: %s\n", (unsigned long long)taken,
           lost_lone ? "yes" : "no");
    return lost_lone || taken == 0;
}

/* ---- Ring: every event arrives once and in order, or is refused as full. --------------------- */

static struct tw_link ring_link;
static uint64_t expected_next, refused;
static int out_of_order;

static void *produce(void *arg)
{
    struct tw_link_ring *ring = arg;
    for (uint64_t i = 0; i < RING_RECORDS;) {
        if (tw_link_ring_push(ring, RING_EVENTS, i << 1 | 1)) {
            i++;
        } else {
            refused++;
            sched_yield();
        }
    }
    __atomic_store_n(&running, 0, __ATOMIC_RELEASE);
    return NULL;
}

static void check_next(void *ctx, uint32_t vcpu, uint64_t address, bool store)
{
    (void)ctx;
    out_of_order |= vcpu != 0 || !store || tw_line_of(address) != expected_next;
    expected_next++;
}

static int race_on_the_ring(void)
{
    const size_t bytes = sizeof(struct tw_link_ring) + RING_EVENTS * sizeof(uint64_t);
    pthread_t thread;
    bool sane, all_sane = true;
    ring_link.rings = aligned_alloc(64, bytes);
    memset(ring_link.rings, 0, bytes);
    ring_link.ring_count = 1;
    ring_link.ring_events = RING_EVENTS;
    ring_link.map.page_count = RING_RECORDS / TW_LINES_PER_PAGE + 1;
    running = 1;
    pthread_create(&thread, NULL, produce, ring_link.rings);
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
        tw_link_ring_drain(&ring_link, 0, check_next, NULL, &sane);
        all_sane = all_sane && sane;
    }
    pthread_join(thread, NULL);
    tw_link_ring_drain(&ring_link, 0, check_next, NULL, &sane);
    printf("ring: %llu events, %llu refused as full, in order: %s\n",
           (unsigned long long)expected_next, (unsigned long long)refused,
           out_of_order ? "no" : "yes");
    free(ring_link.rings);
    return out_of_order || !all_sane || !sane || expected_next != RING_RECORDS;
}

int main(void)
{
    const int map_failed = race_on_the_map();
    const int lone_failed = race_of_lone_marks();
    return race_on_the_ring() || map_failed || lone_failed;
}
