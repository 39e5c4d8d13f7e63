/* The lines of a region: closing and opening them, who waits for them, and what was stored. What
 * the program writes is not trusted: a value out of range is ignored, and costs a bounded time. */
#include "hosts/instrumented/region_private.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IN_ALL_BYTES  UINT64_C(0x0101010101010101)
#define LOOKS_AT_ONCE 65536u /* at lines, in one take */

/* ---- Closing and opening ----------------------------------------------------------------------
 */

static void wake(struct tw_instrumented_region *r, uint64_t line)
{
    if (r->mutations.sleep_on)
        return;
    r->stats.woken++;
    syscall(SYS_futex, &r->lines[line & ~UINT64_C(3)], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint64_t *word_at(const struct tw_instrumented_region *r, uint64_t line)
{
    return (uint64_t *)(void *)&r->lines[line];
}

static void open_word(struct tw_instrumented_region *r, uint64_t line, uint64_t bits)
{
    const uint64_t waited = IN_ALL_BYTES * TW_INST_WAITED;
    const uint64_t was = __atomic_fetch_and(word_at(r, line), ~(bits | waited), __ATOMIC_SEQ_CST);
    if (was & waited & UINT32_MAX)
        wake(r, line);
    if ((was & waited) >> 32)
        wake(r, line + 4);
}

void tw_inst_close_all(struct tw_instrumented_region *r, enum tw_inst_wait how)
{
    for (uint64_t line = 0; line < r->pages * TW_LINES_PER_PAGE; line += sizeof(uint64_t))
        __atomic_fetch_or(word_at(r, line), IN_ALL_BYTES * how, __ATOMIC_SEQ_CST);
}

void tw_inst_open_all(struct tw_instrumented_region *r, enum tw_inst_wait how)
{
    for (uint64_t line = 0; line < r->pages * TW_LINES_PER_PAGE; line += sizeof(uint64_t))
        open_word(r, line, IN_ALL_BYTES * how);
}

/* Eight lines' bits as the lowest bits of eight bytes. */
static uint64_t spread(uint64_t eight)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 8; i++)
        bytes |= (eight >> i & 1) << (8 * i);
    return bytes;
}

void tw_inst_close_lines(struct tw_instrumented_region *r, uint64_t page, uint64_t lines)
{
    for (uint64_t line = page * TW_LINES_PER_PAGE; lines; lines >>= 8, line += 8) {
        if (lines & 0xff)
            __atomic_fetch_or(word_at(r, line), spread(lines & 0xff) * TW_INST_ABSENT,
                              __ATOMIC_SEQ_CST);
    }
}

void tw_inst_open_lines(struct tw_instrumented_region *r, uint64_t page, uint64_t lines)
{
    if (r->mutations.open_page)
        lines = TW_ALL_LINES;
    for (uint64_t line = page * TW_LINES_PER_PAGE; lines; lines >>= 8, line += 8) {
        if (lines & 0xff)
            open_word(r, line, spread(lines & 0xff) * TW_INST_ABSENT);
    }
}

/* ---- Who waits --------------------------------------------------------------------------------
 */

void tw_inst_forget_told(struct tw_instrumented_region *r)
{
    for (unsigned i = 0; i < TW_INST_THREADS_MAX; i++)
        r->told[i] = (struct tw_inst_told){0};
    r->told_all = false;
}

/* Looks whether a thread has begun another wait. */
static void look_at(struct tw_instrumented_region *r, uint32_t index)
{
    const struct tw_inst_thread *t = &r->program->threads[index];
    struct tw_inst_told *told = &r->told[index];
    const uint64_t wants = __atomic_load_n(&t->wants, __ATOMIC_ACQUIRE);
    if (wants == told->wants)
        return;
    const uint64_t count = __atomic_load_n(&t->want_lines, __ATOMIC_ACQUIRE);
    const uint64_t since_ns = __atomic_load_n(&t->want_since_ns, __ATOMIC_ACQUIRE);
    const uint64_t first = __atomic_load_n(&t->want_first, __ATOMIC_ACQUIRE);
    const uint64_t base = tw_line_of(r->address), lines = r->pages * TW_LINES_PER_PAGE;
    *told = (struct tw_inst_told){.wants = wants};
    r->stats.waits += count != 0;
    if (count == 0 || first >= base + lines || (first < base && count <= base - first))
        return;
    const uint64_t skipped = first < base ? base - first : 0;
    told->line = first + skipped - base;
    told->end = count - skipped < lines - told->line ? told->line + count - skipped : lines;
    /* Its own clock's word counts for a time that can be. */
    told->since_ns = since_ns <= tw_now(&tw_monotonic) ? since_ns : 0;
}

size_t tw_inst_take_misses(struct tw_instrumented_region *r, struct tw_host_fault *out, size_t max)
{
    const uint64_t wants = __atomic_load_n(&r->program->header->wants, __ATOMIC_SEQ_CST);
    const uint32_t said = __atomic_load_n(&r->program->header->threads_top, __ATOMIC_RELAXED);
    const uint32_t top = said < TW_INST_THREADS_MAX ? said : TW_INST_THREADS_MAX;
    unsigned looks = 0;
    size_t n = 0;
    if (r->told_all && wants == r->wants_seen)
        return 0;
    r->told_all = true;
    for (uint32_t i = 0; i < top; i++) {
        struct tw_inst_told *told = &r->told[i];
        look_at(r, i);
        for (; told->line < told->end && n < max && looks < LOOKS_AT_ONCE; told->line++, looks++) {
            if (__atomic_load_n(&r->lines[told->line], __ATOMIC_ACQUIRE) & TW_INST_ABSENT)
                out[n++] = (struct tw_host_fault){.address = told->line << TW_LINE_SHIFT,
                                                  .since_ns = told->since_ns};
        }
        r->told_all = r->told_all && told->line >= told->end;
    }
    r->wants_seen = wants;
    r->stats.misses += n;
    return n;
}

/* ---- What was stored --------------------------------------------------------------------------
 */

static void stored(void *ctx, uint64_t page, uint64_t lines)
{
    const struct tw_instrumented_region *r = ctx;
    tw_device_message_page(r->host.device, TW_MEM_WR, page, lines);
}

/* The part of an announced store that lies in the region, as its lines. */
static struct tw_range lines_of(const struct tw_instrumented_region *r, uint64_t announced)
{
    const uint64_t base = tw_line_of(r->address), count = r->pages * TW_LINES_PER_PAGE;
    const bool any = announced >> TW_INST_MORE_SHIFT == TW_INST_MORE_MAX;
    uint64_t first = tw_line_of(tw_inst_flight_address(announced));
    uint64_t end = first + tw_inst_flight_lines(announced);
    if (announced == 0)
        return (struct tw_range){0};
    if (any) /* long: it may be of any length */
        end = first < base ? base + count : UINT64_MAX;
    first = first < base ? base : first;
    end = end > base + count ? base + count : end;
    return first < end ? (struct tw_range){first - base, end - first} : (struct tw_range){0};
}

static void store_lines(struct tw_instrumented_region *r, struct tw_range lines)
{
    const uint64_t end = lines.start + lines.length;
    for (uint64_t line = lines.start; line < end;) {
        const uint64_t page = line / TW_LINES_PER_PAGE, from = line % TW_LINES_PER_PAGE;
        const uint64_t rest = end - line, room = TW_LINES_PER_PAGE - from;
        const uint64_t here = rest < room ? rest : room;
        const uint64_t mask = here == TW_LINES_PER_PAGE ? TW_ALL_LINES : (UINT64_C(1) << here) - 1;
        stored(r, page, mask << from);
        line += here;
    }
}

/* What was announced when the last sync ended may have been read before it was stored: it is told
 * again. What is announced now waits for the next. */
void tw_inst_region_sync(struct tw_instrumented_region *r)
{
    for (unsigned i = 0; i < r->carried_count; i++)
        store_lines(r, lines_of(r, r->carried[i]));
    r->carried_count = 0;
    tw_link_scan(&r->map, stored, r);
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX && !r->mutations.forget_in_flight; i++) {
        const uint64_t announced = tw_inst_in_flight(r->program, i);
        if (lines_of(r, announced).length)
            r->carried[r->carried_count++] = announced;
    }
    r->stats.carried += r->carried_count;
}

bool tw_inst_region_in_flight(const struct tw_instrumented_region *r)
{
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX && !r->mutations.forget_in_flight; i++)
        if (lines_of(r, tw_inst_in_flight(r->program, i)).length)
            return true;
    return false;
}
