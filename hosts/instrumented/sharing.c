/* Lines that several threads store to. Each line has a byte that says who stored to it, or that
 * several did; each thread keeps the bytes it wrote of the lines it wrote lately. */
#include "hosts/instrumented/private.h"

#include <string.h>
#include <unistd.h>

static void add_thread(struct tw_shared_line *shared, const struct tw_inst_recent *recent)
{
    for (uint32_t i = 0; i < shared->thread_count; i++)
        shared->disjoint = shared->disjoint && (shared->threads[i].bytes & recent->bytes) == 0;
    if (shared->thread_count == TW_SHARED_LINE_THREADS)
        return;
    const uint32_t at = shared->thread_count++;
    shared->threads[at].tid = recent->tid;
    shared->threads[at].pc = recent->pc;
    shared->threads[at].bytes = recent->bytes;
}

/* Everybody's record of the line, as of this epoch; what a program writes there must not cost us
 * much more than it. Read by call: in a mapping, looking at a record that the program never wrote
 * would make memory for it. */
static void look_up(struct tw_instrumented *p, uint64_t line, struct tw_shared_line *shared)
{
    *shared = (struct tw_shared_line){.address = line << TW_LINE_SHIFT, .disjoint = true};
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX && p->shared_looks; i++) {
        struct tw_inst_recent recent;
        if (!__atomic_load_n(&p->threads[i].used, __ATOMIC_RELAXED))
            continue;
        const uint64_t at =
            TW_INST_RECENT_AT + i * TW_INST_RECENT_STRIDE + line % TW_INST_RECENT * sizeof recent;
        p->shared_looks--;
        if (pread(p->file, &recent, sizeof recent, (off_t)at) == (ssize_t)sizeof recent &&
            recent.line == line && recent.epoch == (uint32_t)p->epoch)
            add_thread(shared, &recent);
    }
    shared->disjoint = shared->disjoint && shared->thread_count > 1;
}

static void take_page(struct tw_instrumented *p, const struct tw_inst_window *w, uint64_t page)
{
    uint8_t *writers = w->lines + page * TW_LINES_PER_PAGE;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++) {
        if (__atomic_load_n(&writers[i], __ATOMIC_RELAXED) == 0)
            continue;
        if (__atomic_exchange_n(&writers[i], 0, __ATOMIC_SEQ_CST) != TW_INST_SEVERAL)
            continue;
        if (p->shared_count < TW_INST_SHARED_MAX)
            look_up(p, tw_line_of(w->address) + page * TW_LINES_PER_PAGE + i,
                    &p->shared[p->shared_count]);
        p->shared_count++;
    }
}

void tw_inst_sharing_window(struct tw_instrumented *p, struct tw_inst_window *w)
{
    for (uint64_t word = 0; word < TW_WINDOW_PAGES / 64; word++) {
        uint64_t pages = w->written[word];
        w->written[word] = 0;
        for (; pages; pages &= pages - 1)
            take_page(p, w, word * 64 + (uint64_t)__builtin_ctzll(pages));
    }
}

size_t tw_inst_sharing_hand_out(struct tw_instrumented *p, struct tw_shared_line *out, size_t max)
{
    const size_t count = p->shared_count;
    size_t there = count < TW_INST_SHARED_MAX ? count : TW_INST_SHARED_MAX;
    if (there > max)
        there = max;
    if (there)
        memcpy(out, p->shared, there * sizeof *out);
    p->shared_count = 0;
    p->epoch++;
    __atomic_store_n(&p->header->epoch, p->epoch, __ATOMIC_RELAXED);
    return max > TW_INST_SHARED_MAX ? there : count; /* never more than were put out, of `max` */
}

size_t tw_instrumented_sharing_take(struct tw_instrumented *p, struct tw_shared_line *out,
                                    size_t max)
{
    if (p->mode != TW_INST_SHARING)
        return 0;
    p->shares = true;
    tw_inst_pass_begin(p, p->settled ? TW_INST_CARRY : TW_INST_SCAN);
    tw_inst_pass_go_on(p, UINT64_MAX, NULL);
    return tw_inst_sharing_hand_out(p, out, max);
}
