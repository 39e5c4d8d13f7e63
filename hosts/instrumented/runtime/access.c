/* Announcing and marking stores; line states, misses and upgrades. The order of every two stores
 * here matters: see hosts/instrumented/shared.h. */
#include "hosts/instrumented/runtime/access.h"

struct tw_rt_state tw_rt __attribute__((aligned(TW_LINE_SIZE)));
__thread struct tw_rt_self tw_rt_self = {.marking = TW_RT_NEVER_MARKING};

static uint64_t first_line(uintptr_t address)
{
    return tw_line_of(address);
}

static uint64_t last_line(uintptr_t address, size_t size)
{
    return tw_line_of(address + size - 1);
}

static bool is_program_range(uintptr_t address, size_t size)
{
    const uint64_t limit = UINT64_C(1) << TW_INST_ADDRESS_BITS;
    return size != 0 && address < limit && size <= limit - address;
}

static uint64_t announcement(uintptr_t address, size_t size)
{
    const uint64_t more = last_line(address, size) - first_line(address);
    return address | (more < TW_INST_MORE_MAX ? more : TW_INST_MORE_MAX) << TW_INST_MORE_SHIFT;
}

/* Without calls: memset would come back here. */
static void fill(uint8_t *bytes, uint64_t first, uint64_t last)
{
    uint8_t *at = bytes + first;
    uint64_t count = last - first + 1;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(1) : "memory");
}

static void mark_lines(uint64_t first, uint64_t last)
{
    const uint64_t page_shift = TW_PAGE_SHIFT - TW_LINE_SHIFT;
    if (last - first < 8) {
        for (uint64_t line = first; line <= last; line++)
            __atomic_store_n(&tw_rt.marks[line], 1, __ATOMIC_RELEASE);
    } else {
        fill(tw_rt.marks, first, last);
    }
    /* `rep stosb` may store out of order within itself, not after a later one. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (uint64_t page = first >> page_shift; page <= last >> page_shift; page++)
        __atomic_store_n(&tw_rt.summary[page], 1, __ATOMIC_RELEASE);
}

/* ---- Who writes what (TW_INST_SHARING) ------------------------------------------------------- */

static uint64_t byte_mask(unsigned from, unsigned count)
{
    return (count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1) << from;
}

static void note_line(struct tw_inst_thread *record, uint64_t line, uint64_t bytes, uintptr_t pc)
{
    const uint32_t index = tw_rt_index(record);
    const uint8_t tag = tw_inst_tag(record->tid);
    const uint8_t old = __atomic_load_n(&tw_rt.lines[line], __ATOMIC_RELAXED);
    if (old != tag && old != TW_INST_SEVERAL)
        __atomic_store_n(&tw_rt.lines[line], old ? TW_INST_SEVERAL : tag, __ATOMIC_RELAXED);

    struct tw_inst_recent *recent =
        (struct tw_inst_recent *)(void *)(tw_rt.base + TW_INST_RECENT_AT +
                                          index * TW_INST_RECENT_STRIDE);
    const struct tw_inst_header *header = (const struct tw_inst_header *)(const void *)tw_rt.base;
    const uint32_t epoch = (uint32_t)__atomic_load_n(&header->epoch, __ATOMIC_RELAXED);
    recent += line % TW_INST_RECENT;
    if (recent->line != line || recent->epoch != epoch || recent->tid != record->tid)
        *recent = (struct tw_inst_recent){.line = line, .epoch = epoch, .tid = record->tid};
    recent->pc = pc;
    recent->bytes |= bytes;
}

static void note_range(struct tw_inst_thread *record, uintptr_t address, size_t size, uintptr_t pc)
{
    const uintptr_t end = address + size;
    for (uintptr_t at = address; at < end;) {
        const unsigned offset = at % TW_LINE_SIZE;
        const size_t rest = end - at;
        const unsigned count =
            rest < TW_LINE_SIZE - offset ? (unsigned)rest : TW_LINE_SIZE - offset;
        note_line(record, tw_line_of(at), byte_mask(offset, count), pc);
        at += count;
    }
}

/* ---- Line states (TW_INST_OWNED) ------------------------------------------------------------- */

static struct tw_link_ring *ring_of(const struct tw_inst_thread *record)
{
    if (record == NULL || tw_rt_index(record) >= TW_INST_RINGS_MAX || tw_rt_self.busy)
        return NULL;
    return tw_link_ring_at(tw_rt.base + TW_INST_RINGS_AT, TW_INST_RING_STRIDE, tw_rt_index(record));
}

static bool ring_has_room(struct tw_link_ring *ring)
{
    if (ring->head - ring->tail_seen < TW_INST_RING_EVENTS)
        return true;
    ring->tail_seen = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    return ring->head - ring->tail_seen < TW_INST_RING_EVENTS;
}

/* The state is set before the event is sent: the agent may answer the event by taking the line
 * away at once, and must have the last word. So there must be room for the event first. Stores of
 * one processor become visible in order, so nothing has to be waited for between the two; nor
 * before the state, as whoever takes a line away puts a barrier into this thread before it looks at
 * what is announced. */
static bool ask(struct tw_inst_thread *record, uint64_t line, bool store)
{
    struct tw_link_ring *ring = ring_of(record);
    if (ring == NULL)
        return false;
    tw_rt_self.busy = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    const bool room = ring_has_room(ring);
    if (room) {
        uint8_t invalid = TW_INST_INVALID;
        if (store)
            __atomic_store_n(&tw_rt.lines[line], TW_INST_WRITABLE, __ATOMIC_RELEASE);
        else
            __atomic_compare_exchange_n(&tw_rt.lines[line], &invalid, TW_INST_SHARED, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        tw_link_ring_push(ring, TW_INST_RING_EVENTS, line << 1 | (store ? 1 : 0));
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    tw_rt_self.busy = false;
    return room;
}

void tw_rt_own_line(struct tw_inst_thread *record, uint64_t line)
{
    if (ask(record, line, true))
        return;
    /* R4: the device takes the mark for a write-back. The line stays as it is, so that the next
     * store asks again. */
    mark_lines(line, line);
    if (record)
        __atomic_store_n(&record->ring_full, record->ring_full + 1, __ATOMIC_RELAXED);
}

void tw_rt_fetch_line(uint64_t line)
{
    ask(tw_rt_record(), line, false); /* a load that finds no room is dropped */
}

static void own_range(struct tw_inst_thread *record, uint64_t first, uint64_t last)
{
    for (uint64_t line = first; line <= last; line++) {
        if (__atomic_load_n(&tw_rt.lines[line], __ATOMIC_RELAXED) != TW_INST_WRITABLE)
            tw_rt_own_line(record, line);
    }
}

/* ---- Any mode -------------------------------------------------------------------------------- */

void tw_rt_store_coming(uintptr_t address, size_t size, uintptr_t pc)
{
    const uint32_t mode = tw_rt_mode();
    if (mode == TW_INST_DETACHED || !is_program_range(address, size))
        return;
    struct tw_inst_thread *record = tw_rt_record();
    if (mode == TW_INST_MOVING)
        tw_rt_await_announced(record, address, size);
    else if (record)
        tw_rt_announce(record, announcement(address, size));
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (mode == TW_INST_OWNED) {
        own_range(record, first_line(address), last_line(address, size));
        return;
    }
    /* First: behind the mark, whose address has the same low bits, its look at the line's writers
     * would wait until the mark has left the store buffer. */
    if (mode == TW_INST_SHARING && record)
        note_range(record, address, size, pc);
    mark_lines(first_line(address), last_line(address, size));
}

void tw_rt_store_begin(uintptr_t address, size_t size)
{
    const uint32_t mode = tw_rt_mode();
    if (mode < TW_INST_OWNED || !is_program_range(address, size))
        return;
    struct tw_inst_thread *record = tw_rt_record();
    if (mode == TW_INST_MOVING) {
        tw_rt_await_announced(record, address, size);
        return;
    }
    if (record)
        tw_rt_announce(record, announcement(address, size));
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    own_range(record, first_line(address), last_line(address, size));
}

void tw_rt_store_end(uintptr_t address, size_t size, uintptr_t pc)
{
    const uint32_t mode = tw_rt_mode();
    if (mode == TW_INST_DETACHED || !is_program_range(address, size))
        return;
    struct tw_inst_thread *record = tw_rt_record();
    if (mode != TW_INST_OWNED) {
        mark_lines(first_line(address), last_line(address, size));
        if (mode == TW_INST_SHARING && record)
            note_range(record, address, size, pc);
    }
    if (record)
        tw_rt_announce(record, 0);
}

/* With line states too: a write around the caches, which the device takes for a write-back (R5). */
void tw_rt_stored(uintptr_t address, size_t size, uintptr_t pc)
{
    const uint32_t mode = tw_rt_mode();
    if (mode == TW_INST_DETACHED || !is_program_range(address, size))
        return;
    mark_lines(first_line(address), last_line(address, size));
    struct tw_inst_thread *record = mode == TW_INST_SHARING ? tw_rt_record() : NULL;
    if (record)
        note_range(record, address, size, pc);
}

void tw_rt_load(uintptr_t address, size_t size)
{
    tw_rt_await(address, size);
    if (tw_rt_mode() != TW_INST_OWNED || !is_program_range(address, size))
        return;
    for (uint64_t line = first_line(address); line <= last_line(address, size); line++) {
        if (__atomic_load_n(&tw_rt.lines[line], __ATOMIC_RELAXED) == TW_INST_INVALID)
            tw_rt_fetch_line(line);
    }
}

void tw_rt_store_again(uint64_t in_flight)
{
    const uintptr_t address = tw_inst_flight_address(in_flight);
    const uint64_t more = tw_inst_flight_lines(in_flight) - 1;
    /* Whatever part of its last line it stored to: lines are what counts. */
    const uintptr_t end = (tw_line_of(address) + more + 1) * TW_LINE_SIZE;
    tw_rt_store_coming(address, end - address, 0);
}
