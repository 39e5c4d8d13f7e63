/* Fault workers with threads that touch memory: a memory of our own under guard, in the part of a
 * guest. A thread brings pages line by line, as the data thread does; what is touched must be what
 * was brought, however all of them interleave. */
#include "hosts/qemu/fault_crew.h"

#include "base/clock.h"
#include "base/line.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES    1024u
#define GUESTS   3u
#define LIMIT_NS (60 * TW_SEC)

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

struct world {
    uint8_t *guest, *agent; /* two mappings of one memory */
    int memfd, uffd;
    struct tw_guarded guarded;
    struct tw_fault_crew *crew;
    uint64_t to_come[PAGES], watched[PAGES / 64], touched;
    _Atomic unsigned guests_left;
    uint64_t told; /* touches that the data thread heard of */
};

static struct world w;

static uint64_t word_of(uint64_t page, unsigned line)
{
    return page * 1000003 + line * 7 + 1;
}

static int make_userfaultfd(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;
    if (device >= 0)
        close(device);
    return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

static void world_open(unsigned workers)
{
    const size_t bytes = PAGES * TW_PAGE_SIZE;
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                                         UFFD_FEATURE_EXACT_ADDRESS};
    memset(&w, 0, sizeof w);
    w.memfd = memfd_create("fault-crew-test", MFD_CLOEXEC);
    CHECK(w.memfd >= 0 && ftruncate(w.memfd, (off_t)bytes) == 0);
    w.guest = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w.memfd, 0);
    w.agent = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w.memfd, 0);
    CHECK(w.guest != MAP_FAILED && w.agent != MAP_FAILED);
    w.uffd = make_userfaultfd();
    CHECK(w.uffd >= 0 && ioctl(w.uffd, UFFDIO_API, &api) == 0);
    struct uffdio_register r = {.range = {(uint64_t)(uintptr_t)w.guest, bytes},
                                .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    CHECK(ioctl(w.uffd, UFFDIO_REGISTER, &r) == 0);
    w.guarded = (struct tw_guarded){w.uffd, r.range.start, bytes, "test"};
    CHECK(tw_fault_crew_open(&w.guarded, workers, &w.crew, NULL) == TW_OK);
}

static void world_close(void)
{
    const size_t bytes = PAGES * TW_PAGE_SIZE;
    struct uffdio_range all = {(uint64_t)(uintptr_t)w.guest, bytes};
    tw_fault_crew_close(w.crew);
    ioctl(w.uffd, UFFDIO_UNREGISTER, &all);
    munmap(w.guest, bytes);
    munmap(w.agent, bytes);
    close(w.uffd);
    close(w.memfd);
}

static void show(void)
{
    struct tw_host_fault_view view = {w.to_come, w.watched, &w.touched, PAGES};
    tw_fault_crew_view(w.crew, &view);
}

/* One line at a time, and the page's word behind it. */
static void bring_page(uint64_t page, bool leave_closed)
{
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const uint64_t word = word_of(page, line);
        if (!(w.to_come[page] >> line & 1))
            continue;
        memcpy(w.agent + page * TW_PAGE_SIZE + line * TW_LINE_SIZE, &word, sizeof word);
        __atomic_store_n(&w.to_come[page], w.to_come[page] & ~(UINT64_C(1) << line),
                         __ATOMIC_RELEASE);
    }
    if (!leave_closed)
        CHECK(tw_guard_open(&w.guarded, page, 1, NULL) == TW_OK);
}

/* A vCPU: reads what must be there, then writes what late data must not overwrite. */
static void *guest(void *arg)
{
    struct tw_random r = {(uint64_t)(uintptr_t)arg};
    for (unsigned n = 0; n < 600; n++) {
        const uint64_t page = tw_random_below(&r, PAGES);
        const unsigned line = (unsigned)tw_random_below(&r, TW_LINES_PER_PAGE);
        uint8_t *at = w.guest + page * TW_PAGE_SIZE + line * TW_LINE_SIZE;
        uint64_t word;
        memcpy(&word, at, sizeof word);
        CHECK(word == word_of(page, line));
    }
    w.guests_left--;
    return NULL;
}

static void data_turn(struct tw_random *r, uint64_t *next)
{
    struct tw_host_fault f[4];
    struct pollfd p = {.fd = tw_fault_crew_fd(w.crew), .events = POLLIN};
    poll(&p, 1, 1);
    for (size_t n; (n = tw_fault_crew_take(w.crew, f, 4)) > 0;)
        for (size_t i = 0; i < n; i++) {
            CHECK(f[i].address < PAGES * TW_PAGE_SIZE && f[i].since_ns > 0);
            w.told++;
            bring_page(tw_page_of(f[i].address), false);
        }
    /* The background: now and then a page that stays closed, to be watched. */
    for (unsigned i = 0; i < 4 && *next < PAGES; i++, ++*next) {
        const bool closed = tw_random_below(r, 4) == 0;
        const bool was_there = w.to_come[*next] == 0;
        bring_page(*next, closed);
        if (closed && !was_there)
            __atomic_fetch_or(&w.watched[*next / 64], UINT64_C(1) << (*next % 64),
                              __ATOMIC_RELAXED);
    }
}

/* Guests that touch, workers that look, and the data thread that brings. */
static void test_touches_see_what_was_brought(unsigned workers)
{
    pthread_t threads[GUESTS];
    struct tw_random r = {workers};
    uint64_t next = 0;
    const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    world_open(workers);
    for (unsigned p = 0; p < PAGES; p++)
        w.to_come[p] = TW_ALL_LINES;
    show();
    w.guests_left = GUESTS;
    for (uintptr_t i = 0; i < GUESTS; i++)
        CHECK(pthread_create(&threads[i], NULL, guest, (void *)(i + 1)) == 0);
    while (w.guests_left) {
        CHECK(tw_now(&tw_monotonic) < limit);
        data_turn(&r, &next);
    }
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(threads[i], NULL);
    CHECK(w.told > 0);
    CHECK(tw_fault_crew_opened(w.crew) > 0);
    world_close();
}

/* Nobody on the data thread does anything: complete pages are let go all the same. */
static void test_complete_pages_need_no_data_thread(void)
{
    pthread_t thread;
    uint64_t words[PAGES];
    world_open(2);
    for (uint64_t p = 0; p < PAGES; p++) {
        w.to_come[p] = TW_ALL_LINES;
        bring_page(p, true);
        words[p] = w.to_come[p];
        CHECK(words[p] == 0);
    }
    memset(w.watched, 0xff, sizeof w.watched);
    show();
    w.guests_left = 1;
    CHECK(pthread_create(&thread, NULL, guest, (void *)(uintptr_t)9) == 0);
    pthread_join(thread, NULL);
    struct tw_host_fault f;
    CHECK(tw_fault_crew_take(w.crew, &f, 1) == 0);
    tw_fault_crew_view(w.crew, NULL); /* nobody counts any more */
    CHECK(w.touched == tw_fault_crew_opened(w.crew)); /* each by itself: watched ones are no run */
    world_close();
}

/* What is not shown any more is not looked at: its memory may be gone. */
static void test_without_a_view_all_is_told(void)
{
    struct tw_random r = {5};
    pthread_t thread;
    uint64_t next = PAGES;
    world_open(2);
    show();
    tw_fault_crew_view(w.crew, NULL);
    for (uint64_t p = 0; p < PAGES; p++)
        w.to_come[p] = TW_ALL_LINES;
    w.guests_left = 1;
    CHECK(pthread_create(&thread, NULL, guest, (void *)(uintptr_t)3) == 0);
    while (w.guests_left)
        data_turn(&r, &next);
    pthread_join(thread, NULL);
    CHECK(tw_fault_crew_opened(w.crew) == 0);
    world_close();
}

int main(void)
{
    test_touches_see_what_was_brought(1);
    test_touches_see_what_was_brought(2);
    test_touches_see_what_was_brought(8);
    test_complete_pages_need_no_data_thread();
    test_without_a_view_all_is_told();
    puts("fault crew: passed");
    return 0;
}
