/* Bringing the program's stores to the device, answering its snoops, and carrying what may still
 * be on its way. The order of the steps is argued in hosts/instrumented/shared.h. */
#include "hosts/instrumented/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Line states (TW_INST_OWNED) ------------------------------------------------------------- */

static uint8_t *state_of(const struct tw_instrumented *p, uint64_t device_address)
{
    const struct tw_inst_window *w = tw_inst_window_of_device(p, device_address);
    return w ? &w->lines[tw_line_of(device_address - w->device_address)] : NULL;
}

static void set_state(const struct tw_instrumented *p, uint64_t device_address,
                      enum tw_inst_line state)
{
    uint8_t *at = state_of(p, device_address);
    if (at)
        __atomic_exchange_n(at, (uint8_t)state, __ATOMIC_SEQ_CST);
}

uint64_t tw_inst_snoop(void *program, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct tw_instrumented *p = program;
    for (uint64_t rest = lines; rest; rest &= rest - 1) {
        const uint64_t line = page * TW_LINES_PER_PAGE + (uint64_t)__builtin_ctzll(rest);
        set_state(p, line << TW_LINE_SHIFT,
                  kind == TW_BI_SNP_INV ? TW_INST_INVALID : TW_INST_SHARED);
    }
    return tw_cache_snoop(p->cache, page, lines, kind);
}

void tw_inst_message(void *program, enum tw_link_message message, uint64_t address)
{
    struct tw_instrumented *p = program;
    if (message == TW_MEM_WR || message == TW_MEM_CLN_EVCT)
        set_state(p, address, TW_INST_INVALID);
    else if (message == TW_MEM_WR_KEEP)
        set_state(p, address, TW_INST_SHARED);
    tw_device_message(p->device, message, address);
}

static void take_event(struct tw_instrumented *p, unsigned core, uint64_t event)
{
    const uint64_t address = tw_instrumented_device_address(p, (event >> 1) << TW_LINE_SHIFT);
    if (address == UINT64_MAX)
        return; /* nobody watches it */
    if (event & 1) {
        p->stores++;
        tw_cache_store(p->cache, core, address);
    } else {
        p->loads++;
        tw_cache_load(p->cache, core, address);
    }
}

/* A ring whose positions make no sense is emptied; a program that does this to itself is not
 * tracked. */
static void drain(struct tw_instrumented *p, uint32_t index)
{
    struct tw_link_ring *ring =
        tw_link_ring_at(p->head + TW_INST_RINGS_AT, TW_INST_RING_STRIDE, index);
    const uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
    uint64_t at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
    if (head - at > TW_INST_RING_EVENTS)
        at = head;
    for (; at != head; at++) {
        const uint64_t event =
            __atomic_load_n(&ring->events[at % TW_INST_RING_EVENTS], __ATOMIC_RELAXED);
        take_event(p, index % p->cores, event);
        if (at % 1024 == 0)
            __atomic_store_n(&ring->tail, at, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&ring->tail, head, __ATOMIC_RELEASE);
}

/* ---- Stores in flight ------------------------------------------------------------------------ */

/* True when the thread is in a system call: whatever it announced has been stored. */
static bool is_in_syscall(const struct tw_instrumented *p, uint32_t tid)
{
    char path[64], text[16];
    if (!p->same_pids)
        return false;
    snprintf(path, sizeof path, "/proc/%d/task/%u/syscall", (int)p->pid, tid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT; /* it has ended */
    const ssize_t got = read(fd, text, sizeof text);
    close(fd);
    return got > 0 && text[0] >= '0' && text[0] <= '9';
}

uint64_t tw_inst_in_flight_within(const struct tw_instrumented *p, uint32_t index, unsigned *looks)
{
    const struct tw_inst_thread *t = &p->threads[index];
    const uint32_t tid = __atomic_load_n(&t->tid, __ATOMIC_ACQUIRE);
    const uint64_t announced = __atomic_load_n(&t->in_flight, __ATOMIC_SEQ_CST);
    if (tid == 0 || announced == 0)
        return 0;
    if (*looks == 0)
        return announced;
    --*looks;
    if (is_in_syscall(p, tid) && __atomic_load_n(&t->in_flight, __ATOMIC_SEQ_CST) == announced)
        return 0;
    return announced;
}

uint64_t tw_inst_in_flight(const struct tw_instrumented *p, uint32_t index)
{
    unsigned looks = 1;
    return tw_inst_in_flight_within(p, index, &looks);
}

/* With line states: a store from the reader's side, into the epoch that runs. */
static size_t store_line(struct tw_instrumented *p, uint32_t thread, uint64_t address)
{
    const uint64_t device_address = tw_instrumented_device_address(p, address);
    if (device_address == UINT64_MAX)
        return 0;
    tw_cache_store(p->cache, thread % p->cores, device_address);
    return 1;
}

static size_t store_everything(struct tw_instrumented *p)
{
    for (uint64_t page = 0; page < p->window_count * TW_WINDOW_PAGES; page++)
        tw_device_message_page(p->device, TW_MEM_WR, page, TW_ALL_LINES);
    return p->window_count * TW_WINDOW_PAGES * TW_LINES_PER_PAGE;
}

/* Long ones by the page: what a program announces must not cost us much more than it. */
static size_t store_long(struct tw_instrumented *p, uint64_t first, uint64_t end)
{
    size_t stored = 0;
    for (uint64_t line = first; line < end;) {
        const uint64_t next = (line / TW_LINES_PER_PAGE + 1) * TW_LINES_PER_PAGE;
        const uint64_t here = (next < end ? next : end) - line;
        const uint64_t address = tw_instrumented_device_address(p, line << TW_LINE_SHIFT);
        if (address != UINT64_MAX) {
            const uint64_t lines =
                here == TW_LINES_PER_PAGE ? TW_ALL_LINES : (UINT64_C(1) << here) - 1;
            tw_device_message_page(p->device, TW_MEM_WR, tw_page_of(address),
                                   lines << (line % TW_LINES_PER_PAGE));
            stored += here;
        }
        line += here;
    }
    return stored;
}

static size_t store_flight(struct tw_instrumented *p, uint32_t thread, uint64_t announced)
{
    const uint64_t count = tw_inst_flight_lines(announced);
    const uint64_t first = tw_line_of(tw_inst_flight_address(announced));
    size_t stored = 0;
    if (count > TW_LINES_PER_PAGE)
        return store_long(p, first, first + count);
    for (uint64_t line = first; line < first + count; line++)
        stored += store_line(p, thread, line << TW_LINE_SHIFT);
    return stored;
}

static size_t store_all_flights(struct tw_instrumented *p)
{
    size_t stored = 0;
    unsigned looks = TW_INST_PROC_MAX;
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        const uint64_t announced = tw_inst_in_flight_within(p, i, &looks);
        if (announced && announced >> TW_INST_MORE_SHIFT == TW_INST_MORE_MAX)
            return stored + store_everything(p); /* the others with it */
        if (announced)
            stored += store_flight(p, i, announced);
    }
    return stored;
}

/* Every thread of the program that runs has its stores visible and its loads behind it. */
void tw_inst_barrier(struct tw_instrumented *p)
{
    if (p->mutations.skip_barrier)
        return;
    const bool ready = __atomic_load_n(&p->header->barrier_ready, __ATOMIC_RELAXED);
    if (ready && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0)
        p->barriers++;
    else if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)
        p->slow_barriers++; /* for all programs */
}

/* ---- What the owner calls -------------------------------------------------------------------- */

struct scan {
    struct tw_instrumented *program;
    struct tw_inst_window *window;
};

/* With line states: writes around the caches, and what found no room in a ring (R4, R5). */
static void take_around(struct tw_instrumented *p, uint64_t device_page, uint64_t stored,
                        uint64_t loaded)
{
    for (; stored; stored &= stored - 1) {
        const uint64_t line = device_page * TW_LINES_PER_PAGE + (uint64_t)__builtin_ctzll(stored);
        set_state(p, line << TW_LINE_SHIFT, TW_INST_INVALID);
        tw_cache_dma_write(p->cache, line << TW_LINE_SHIFT);
    }
    for (; loaded; loaded &= loaded - 1) {
        const uint64_t line = device_page * TW_LINES_PER_PAGE + (uint64_t)__builtin_ctzll(loaded);
        tw_cache_load(p->cache, 0, line << TW_LINE_SHIFT);
    }
}

static void take_page(void *ctx, uint64_t page, uint64_t stored, uint64_t loaded)
{
    const struct scan *scan = ctx;
    struct tw_instrumented *p = scan->program;
    const uint64_t device_page = tw_page_of(scan->window->device_address) + page;
    if (stored) {
        scan->window->written[page / 64] |= UINT64_C(1) << (page % 64);
        scan->window->recent[page / 64] |= UINT64_C(1) << (page % 64);
        scan->window->has_recent = true;
    }
    if (p->mode == TW_INST_OWNED) {
        take_around(p, device_page, stored, loaded);
        return;
    }
    tw_device_message_page(p->device, TW_MEM_WR, device_page, stored);
    tw_device_message_page(p->device, TW_MEM_RD_DATA, device_page, loaded);
    tw_inst_compare_lines(p, scan->window, page, stored, false);
}

void tw_inst_scan_window(struct tw_instrumented *p, struct tw_inst_window *w)
{
    struct scan scan = {.program = p, .window = w};
    tw_link_scan_loads(&w->map, 0, TW_WINDOW_PAGES, take_page, &scan);
    tw_inst_compare_flush(p);
}

/* Announcements first: a thread may have made a line writable, and another have stored to it,
 * before the event is in the ring. */
void tw_inst_take_events(struct tw_instrumented *p)
{
    uint64_t announced[TW_INST_RINGS_MAX];
    unsigned looks = TW_INST_PROC_MAX;
    for (uint32_t i = 0; i < TW_INST_RINGS_MAX; i++)
        announced[i] = tw_inst_in_flight_within(p, i, &looks);
    for (uint32_t i = 0; i < TW_INST_RINGS_MAX; i++)
        drain(p, i);
    for (uint32_t i = 0; i < TW_INST_RINGS_MAX; i++) {
        if (announced[i])
            store_flight(p, i, announced[i]);
    }
}

size_t tw_instrumented_settle(struct tw_instrumented *p)
{
    if (p->mutations.forget_in_flight)
        return 0;
    if (p->mode == TW_INST_OWNED)
        tw_inst_barrier(p);
    const size_t carried = p->mode == TW_INST_OWNED ? store_all_flights(p) : tw_inst_carry_note(p);
    p->carried += carried;
    return carried;
}

void tw_instrumented_mutate(struct tw_instrumented *p, struct tw_instrumented_mutations mutations)
{
    p->mutations = mutations;
}
