/* Link file and scanner, single-threaded; link_race_test.c has the threads. */
#include "hosts/link/link.h"

#include "base/random.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGES 1000u /* not a multiple of the summary block */

struct told {
    uint64_t lines[PAGES];
    unsigned calls;
};

static void note(void *ctx, uint64_t page, uint64_t lines)
{
    struct told *t = ctx;
    cr_assert_lt(page, PAGES);
    t->lines[page] |= lines;
    t->calls++;
}

static struct tw_link_map new_map(void)
{
    struct tw_link_map map = {.page_count = PAGES};
    map.summary = aligned_alloc(64, 4096);
    map.marks = aligned_alloc(64, PAGES * TW_LINES_PER_PAGE);
    memset(map.summary, 0, 4096);
    memset(map.marks, 0, PAGES * TW_LINES_PER_PAGE);
    return map;
}

static void free_map(struct tw_link_map *map)
{
    free(map->summary);
    free(map->marks);
}

Test(link, scan_tells_each_marked_line_once)
{
    struct tw_link_map map = new_map();
    struct tw_random r = {7};
    for (unsigned round = 0; round < 50; round++) {
        uint64_t want[PAGES] = {0}, lines = 0;
        unsigned pages = 0;
        for (uint64_t n = tw_random_below(&r, 3000); n; n--) {
            const uint64_t a = tw_random_below(&r, (uint64_t)PAGES * TW_PAGE_SIZE);
            tw_link_mark(&map, a);
            want[tw_page_of(a)] |= tw_line_bit(a);
        }
        for (unsigned p = 0; p < PAGES; p++) {
            lines += tw_popcount(want[p]);
            pages += want[p] != 0;
        }
        struct told told = {0};
        cr_assert_eq(tw_link_scan(&map, note, &told), lines);
        cr_assert_eq(told.calls, pages);
        cr_assert_eq(memcmp(told.lines, want, sizeof want), 0);
        cr_assert_eq(tw_link_scan(&map, note, &told), 0, "the second scan finds nothing");
    }
    free_map(&map);
}

Test(link, first_and_last_line)
{
    struct tw_link_map map = new_map();
    struct told told = {0};
    tw_link_mark(&map, 0);
    tw_link_mark(&map, (uint64_t)PAGES * TW_PAGE_SIZE - 1);
    cr_assert_eq(tw_link_scan(&map, note, &told), 2);
    cr_assert_eq(told.lines[0], 1);
    cr_assert_eq(told.lines[PAGES - 1], UINT64_C(1) << 63);
    free_map(&map);
}

/* A mark without its summary byte is one whose writer stands between its two stores. */
Test(link, a_mark_waits_for_its_summary_byte)
{
    struct tw_link_map map = new_map();
    struct told told = {0};
    map.marks[70] = 1;
    cr_assert_eq(tw_link_scan(&map, note, &told), 0);
    map.summary[1] = 1;
    cr_assert_eq(tw_link_scan(&map, note, &told), 1);
    cr_assert_eq(told.lines[1], UINT64_C(1) << 6);
    free_map(&map);
}

/* Bytes that no writer of ours sets, as a QEMU gone wrong might. */
Test(link, strange_summary_bytes_stay_inside_the_map)
{
    struct tw_link_map map = new_map();
    struct told told = {0};
    memset(map.summary, 0xfe, 1024); /* also beyond the last page */
    memset(map.marks, 0xff, PAGES * TW_LINES_PER_PAGE);
    cr_assert_eq(tw_link_scan(&map, note, &told), PAGES * 64);
    cr_assert_eq(told.calls, PAGES);
    free_map(&map);
}

/* ---- The file -------------------------------------------------------------------------------- */

static char dir[] = "/tmp/towline-link-XXXXXX";
static char path[PATH_MAX];

static void make_dir(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/link", dir);
}

static void remove_dir(void)
{
    unlink(path);
    rmdir(dir);
}

static const struct tw_link_config ring_config = {
    .kind = TW_LINK_RING, .memory_bytes = 64 * TW_PAGE_SIZE, .vcpus = 3, .ring_events = 8};

Test(link, layout_keeps_the_parts_apart)
{
    const struct tw_link_header h = tw_link_layout(TW_LINK_RING, UINT64_C(5) << 30, 64, 1 << 18);
    const uint64_t pages = (UINT64_C(5) << 30) / TW_PAGE_SIZE;
    cr_assert_geq(h.summary_offset, sizeof h);
    cr_assert_geq(h.marks_offset, h.summary_offset + pages);
    cr_assert_geq(h.paced_offset, h.marks_offset + pages * 64);
    cr_assert_geq(h.rings_offset, h.paced_offset + pages * 8);
    cr_assert_geq(h.ring_stride, sizeof(struct tw_link_ring) + (8u << 18));
    cr_assert_eq(h.file_bytes, h.rings_offset + 64 * h.ring_stride);
    cr_assert_eq(
        (h.summary_offset | h.marks_offset | h.paced_offset | h.rings_offset) % TW_PAGE_SIZE, 0);
}

Test(link, attach_sees_what_create_made, .init = make_dir, .fini = remove_dir)
{
    struct tw_link a, b;
    struct tw_error err;
    cr_assert_eq(tw_link_create(path, &ring_config, &a, &err), TW_OK);
    cr_assert_eq(tw_link_create(path, &ring_config, &b, &err), TW_ALREADY_EXISTS);
    cr_assert_eq(tw_link_attach(path, &ring_config, &b, &err), TW_OK);
    struct told told = {0};
    tw_link_mark(&a.map, 5 * TW_PAGE_SIZE);
    cr_assert_eq(tw_link_scan(&b.map, note, &told), 1);
    tw_link_close(&a);
    tw_link_close(&b);
}

Test(link, attach_refuses_another_machines_link, .init = make_dir, .fini = remove_dir)
{
    struct tw_link a, b;
    struct tw_error err;
    struct tw_link_config other = ring_config;
    cr_assert_eq(tw_link_attach(path, &ring_config, &b, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_link_create(path, &ring_config, &a, &err), TW_OK);
    other.memory_bytes *= 2;
    cr_assert_eq(tw_link_attach(path, &other, &b, &err), TW_FAILED_PRECONDITION);
    a.header->version++;
    cr_assert_eq(tw_link_attach(path, &ring_config, &b, &err), TW_FAILED_PRECONDITION);
    tw_link_close(&a);
}

Test(link, impossible_configurations_are_refused)
{
    struct tw_link link;
    struct tw_error err;
    struct tw_link_config bad[5];
    for (unsigned i = 0; i < 5; i++)
        bad[i] = ring_config;
    bad[0].memory_bytes = 4097;
    bad[1].vcpus = 65;
    bad[2].ring_events = 12;
    bad[3].kind = (enum tw_link_kind)9;
    bad[4].memory_bytes = 0;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(tw_link_create("/nowhere/link", &bad[i], &link, &err), TW_INVALID_ARGUMENT,
                     "configuration %u", i);
}

struct taken {
    uint64_t address[64];
    bool store[64];
    unsigned count;
};

static void take(void *ctx, uint32_t vcpu, uint64_t address, bool store)
{
    struct taken *t = ctx;
    cr_assert_eq(vcpu, 1);
    t->address[t->count] = address;
    t->store[t->count++] = store;
}

Test(link, ring_keeps_order_wraps_and_says_when_full, .init = make_dir, .fini = remove_dir)
{
    struct tw_link link;
    struct tw_error err;
    bool sane;
    uint64_t next = 0, seen = 0;
    cr_assert_eq(tw_link_create(path, &ring_config, &link, &err), TW_OK);
    struct tw_link_ring *ring = tw_link_ring_at(link.rings, link.ring_stride, 1);
    for (unsigned round = 0; round < 20; round++) {
        struct taken t = {0};
        const uint64_t burst = round % 10; /* up to one more than fits */
        for (uint64_t i = 0; i < burst; i++) {
            const bool pushed = tw_link_ring_push(ring, 8, tw_link_event(next * 64, next & 1));
            cr_assert_eq(pushed, i < 8);
            next += pushed;
        }
        cr_assert_eq(tw_link_ring_drain(&link, 1, take, &t, &sane), burst < 8 ? burst : 8);
        cr_assert(sane);
        for (unsigned i = 0; i < t.count; i++, seen++) {
            cr_assert_eq(t.address[i], seen * 64);
            cr_assert_eq(t.store[i], seen & 1);
        }
    }
    cr_assert_eq(seen, next);
    tw_link_close(&link);
}

Test(link, ring_gone_wrong_is_emptied_and_reported, .init = make_dir, .fini = remove_dir)
{
    struct tw_link link;
    struct tw_error err;
    struct taken t = {0};
    bool sane;
    cr_assert_eq(tw_link_create(path, &ring_config, &link, &err), TW_OK);
    struct tw_link_ring *ring = tw_link_ring_at(link.rings, link.ring_stride, 1);
    ring->head = 1000;
    cr_assert_eq(tw_link_ring_drain(&link, 1, take, &t, &sane), 0);
    cr_assert_not(sane);
    cr_assert(tw_link_ring_push(ring, 8, UINT64_MAX), "usable again");
    cr_assert_eq(tw_link_ring_drain(&link, 1, take, &t, &sane), 1);
    cr_assert(sane);
    cr_assert_eq(t.count, 0, "an event beyond memory is not told");
    tw_link_close(&link);
}
