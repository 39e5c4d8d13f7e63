/* Memory that moves: making it, and waiting for its lines. The order of every two stores here
 * matters: see hosts/instrumented/shared.h. */
#include "hosts/instrumented/runtime/runtime.h"
#include "hosts/instrumented/towline-region.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINS 200u /* looks at a line before its thread sleeps: some microseconds */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the table, not of any wait */
static struct tw_inst_region regions[TW_INST_REGIONS_MAX];

static struct tw_inst_header *header(void)
{
    return (struct tw_inst_header *)(void *)tw_rt.base;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Waiting --------------------------------------------------------------------------------- */

static uint8_t state_of(uint64_t line)
{
    return __atomic_load_n(&tw_rt.lines[line], __ATOMIC_ACQUIRE);
}

/* The first of the lines that must not be touched; `end` when there is none. */
static uint64_t first_closed(uint64_t line, uint64_t end)
{
    while (line < end && state_of(line) == 0)
        line++;
    return line;
}

/* Tells the agent of lines that this thread waits for. A handler may have told of others since. */
static void want(struct tw_inst_thread *record, uint64_t first, uint64_t end, uint64_t since_ns)
{
    if (record == NULL || (record->want_first == first && record->want_lines == end - first &&
                           record->want_since_ns == since_ns))
        return;
    __atomic_store_n(&record->want_lines, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&record->want_first, first, __ATOMIC_RELEASE);
    __atomic_store_n(&record->want_since_ns, since_ns, __ATOMIC_RELEASE);
    __atomic_store_n(&record->want_lines, end - first, __ATOMIC_RELEASE);
    __atomic_store_n(&record->wants, record->wants + 1, __ATOMIC_RELEASE);
    __atomic_add_fetch(&header()->wants, 1, __ATOMIC_SEQ_CST);
}

/* Says on the line that somebody sleeps. False: there is nothing to wait for any more. */
static bool mark_waited(uint64_t line)
{
    uint8_t seen = state_of(line);
    while (seen && !(seen & TW_INST_WAITED)) {
        if (__atomic_compare_exchange_n(&tw_rt.lines[line], &seen, seen | TW_INST_WAITED, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
            return true;
    }
    return seen != 0;
}

static void sleep_on(uint64_t line, uint64_t left_ns)
{
    uint32_t *word = (uint32_t *)(void *)&tw_rt.lines[line & ~UINT64_C(3)];
    const uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    const struct timespec timeout = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                     .tv_nsec = (long)(left_ns % 1000000000u)};
    const uint8_t byte = (uint8_t)(seen >> (line % 4 * 8));
    if (byte & TW_INST_WAITED) /* else it has changed since, and nobody would wake us */
        syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
}

/* What a device does with a load that nobody answers. A handler that returns waits anew. */
static void give_up(void)
{
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGBUS);
}

/* Nothing of this thread is announced meanwhile. */
static void wait_for(struct tw_inst_thread *record, uint64_t first, uint64_t end)
{
    const int saved_errno = errno;
    const uint64_t patience_ns = header()->patience_ns;
    uint64_t since_ns = now_ns(), line = first;
    for (unsigned spins = 0; (line = first_closed(line, end)) < end; spins++) {
        const uint64_t waited_ns = now_ns() - since_ns;
        want(record, first, end, since_ns);
        if (waited_ns >= patience_ns) {
            give_up();
            since_ns = now_ns();
        } else if (spins < SPINS) {
            __builtin_ia32_pause();
        } else if (mark_waited(line)) {
            sleep_on(line, patience_ns - waited_ns);
        }
    }
    if (record)
        __atomic_store_n(&record->want_lines, 0, __ATOMIC_RELEASE);
    errno = saved_errno;
}

/* Only the part of it that may lie in regions: elsewhere there are no line bytes to look at. */
static void await_lines(struct tw_inst_thread *record, uintptr_t address, size_t size)
{
    const uintptr_t from = tw_rt.moves_from, to = tw_rt.moves_to;
    const uintptr_t low = address > from ? address : from;
    const uintptr_t high = size < to - address ? address + size : to;
    const uint64_t end = tw_line_of(high - 1) + 1;
    const uint64_t first = first_closed(tw_line_of(low), end);
    if (TW_RT_UNLIKELY(first < end))
        wait_for(record, first, end);
}

void tw_rt_await(uintptr_t address, size_t size)
{
    if (tw_rt_mode() == TW_INST_MOVING && tw_rt_moves(address, size))
        await_lines(tw_rt_record(), address, size);
}

void tw_rt_await_announced(struct tw_inst_thread *record, uintptr_t address, size_t size)
{
    const uint64_t more = tw_line_of(address + size - 1) - tw_line_of(address);
    const uint64_t announcement = address | (more < TW_INST_MORE_MAX ? more : TW_INST_MORE_MAX)
                                                << TW_INST_MORE_SHIFT;
    const uint64_t end = tw_line_of(address + size - 1) + 1;
    for (;;) {
        if (record)
            tw_rt_announce(record, announcement);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (!tw_rt_moves(address, size) || first_closed(tw_line_of(address), end) == end)
            return;
        if (record)
            tw_rt_announce(record, 0);
        await_lines(record, address, size);
    }
}

/* ---- Making and giving back ------------------------------------------------------------------ */

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + TW_INST_REGION_ALIGN - 1) & ~(TW_INST_REGION_ALIGN - 1);
}

/* Whoever looks meanwhile sees an end of the old span or of the new one: both spans, and what lies
 * between such ends, have all regions that stay. */
static void set_span(void)
{
    uintptr_t from = UINTPTR_MAX, to = 0;
    for (unsigned i = 0; i < TW_INST_REGIONS_MAX; i++) {
        const struct tw_inst_region *r = &regions[i];
        if (r->bytes == 0)
            continue;
        from = r->address < from ? r->address : from;
        to = r->address + r->bytes > to ? r->address + r->bytes : to;
    }
    __atomic_store_n(&tw_rt.moves_from, from, __ATOMIC_SEQ_CST);
    __atomic_store_n(&tw_rt.moves_to, to, __ATOMIC_SEQ_CST);
}

static bool is_ready(const struct tw_inst_region *r)
{
    const uint64_t end = tw_line_of(r->address + r->bytes);
    return first_closed(tw_line_of(r->address), end) == end;
}

bool tw_rt_regions_ready(void)
{
    bool ready = true;
    if (tw_rt_mode() != TW_INST_MOVING)
        return true;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < TW_INST_REGIONS_MAX; i++)
        ready = ready && (regions[i].bytes == 0 || is_ready(&regions[i]));
    pthread_mutex_unlock(&lock);
    return ready;
}

static void tell(unsigned i)
{
    struct tw_inst_region *told = &header()->regions[i];
    __atomic_store_n(&told->bytes, 0, __ATOMIC_RELEASE);
    told->address = regions[i].address;
    told->fd = regions[i].fd;
    __atomic_store_n(&told->bytes, regions[i].bytes, __ATOMIC_RELEASE);
}

void tw_rt_regions_tell(void)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < TW_INST_REGIONS_MAX; i++)
        tell(i);
    pthread_mutex_unlock(&lock);
}

void tw_rt_regions_forget(void)
{
    for (unsigned i = 0; i < TW_INST_REGIONS_MAX; i++) {
        if (regions[i].bytes)
            close(regions[i].fd);
        regions[i].bytes = 0;
    }
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER; /* whoever held it is not here */
    set_span();
}

/* Sealed, so that the agent can rely on its size. */
static int make_file(size_t bytes)
{
    const int fd = memfd_create("towline-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Address space for all of its windows, aligned; MAP_FAILED with errno. */
static uint8_t *take_space(uint8_t *at, uint64_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (at)
        return mmap(at, bytes, PROT_NONE, flags | MAP_FIXED_NOREPLACE, -1, 0);
    uint8_t *wide = mmap(NULL, bytes + TW_INST_REGION_ALIGN, PROT_NONE, flags, -1, 0);
    if (wide == MAP_FAILED)
        return wide;
    uint8_t *space = (uint8_t *)rounded((uintptr_t)wide);
    if (space > wide)
        munmap(wide, (size_t)(space - wide));
    munmap(space + bytes, (size_t)(wide + TW_INST_REGION_ALIGN - space));
    return space;
}

static void *map_region(int fd, size_t bytes, void *at)
{
    uint8_t *space = take_space(at, rounded(bytes));
    if (space == MAP_FAILED)
        return NULL;
    void *memory =
        mmap(space, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
    const bool usable = memory != MAP_FAILED &&
                        (uintptr_t)space < UINT64_C(1) << TW_INST_ADDRESS_BITS &&
                        madvise(memory, bytes, MADV_DONTFORK) == 0;
    if (usable)
        return memory;
    munmap(space, rounded(bytes));
    return NULL;
}

static int find(uint64_t address, uint64_t bytes)
{
    for (int i = 0; i < (int)TW_INST_REGIONS_MAX; i++) {
        if (address ? regions[i].bytes && regions[i].address == address : regions[i].bytes == bytes)
            return i;
    }
    return -1;
}

static void *create(size_t bytes, void *at)
{
    const int i = find(0, 0);
    if (i < 0) {
        errno = ENOSPC;
        return NULL;
    }
    const int fd = make_file(bytes);
    void *memory = fd < 0 ? NULL : map_region(fd, bytes, at);
    if (memory == NULL) {
        const int number = errno;
        if (fd >= 0)
            close(fd);
        errno = number;
        return NULL;
    }
    regions[i] = (struct tw_inst_region){.address = (uintptr_t)memory, .bytes = bytes, .fd = fd};
    set_span();
    if (tw_rt_mode() != TW_INST_DETACHED)
        tell((unsigned)i);
    return memory;
}

TW_RT_EXPORT void *towline_region_create(size_t bytes, void *at)
{
    if (bytes == 0 || bytes % TW_PAGE_SIZE || bytes > TW_INST_REGION_MAX ||
        (uintptr_t)at % TW_INST_REGION_ALIGN) {
        errno = EINVAL;
        return NULL;
    }
    pthread_mutex_lock(&lock);
    void *memory = create(bytes, at);
    pthread_mutex_unlock(&lock);
    return memory;
}

TW_RT_EXPORT int towline_region_destroy(void *region)
{
    pthread_mutex_lock(&lock);
    const int i = region ? find((uintptr_t)region, 0) : -1;
    const bool busy = i >= 0 && tw_rt_mode() == TW_INST_MOVING && !is_ready(&regions[i]);
    if (i >= 0 && !busy) {
        const struct tw_inst_region was = regions[i];
        regions[i].bytes = 0;
        set_span();
        if (tw_rt_mode() != TW_INST_DETACHED)
            tell((unsigned)i);
        munmap(region, rounded(was.bytes));
        close(was.fd);
    }
    pthread_mutex_unlock(&lock);
    if (i < 0 || busy)
        errno = busy ? EBUSY : EINVAL;
    return i < 0 || busy ? -1 : 0;
}
