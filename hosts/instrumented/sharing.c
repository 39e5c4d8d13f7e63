/* Lines that several threads store to. Each line has a byte that says who stored to it, or that
 * several did; each thread keeps the bytes it wrote of the lines it wrote lately. */
#include "hosts/instrumented/private.h"

#include <unistd.h>

/* At records of threads in one call: what a program writes there must not cost us much more than
 * it. */
#define LOOKS_MAX 65536u

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

struct taking {
    struct tw_shared_line *out;
    size_t max, count;
    unsigned looks; /* at records, left */
};

/* Everybody's record of the line, as of this epoch. Read by call: in a mapping, looking at a record
 * that the program never wrote would make memory for it. */
static void look_up(const struct tw_instrumented *p, uint64_t line, struct taking *taking,
                    struct tw_shared_line *shared)
{
    *shared = (struct tw_shared_line){.address = line << TW_LINE_SHIFT, .disjoint = true};
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX && taking->looks; i++) {
        struct tw_inst_recent recent;
        if (!__atomic_load_n(&p->threads[i].used, __ATOMIC_RELAXED))
            continue;
        const uint64_t at =
            TW_INST_RECENT_AT + i * TW_INST_RECENT_STRIDE + line % TW_INST_RECENT * sizeof recent;
        taking->looks--;
        if (pread(p->file, &recent, sizeof recent, (off_t)at) == (ssize_t)sizeof recent &&
            recent.line == line && recent.epoch == (uint32_t)p->epoch)
            add_thread(shared, &recent);
    }
    shared->disjoint = shared->disjoint && shared->thread_count > 1;
}

static void take_page(const struct tw_instrumented *p, const struct tw_inst_window *w,
                      uint64_t page, struct taking *taking)
{
    uint8_t *writers = w->lines + page * TW_LINES_PER_PAGE;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++) {
        if (__atomic_load_n(&writers[i], __ATOMIC_RELAXED) == 0)
            continue;
        if (__atomic_exchange_n(&writers[i], 0, __ATOMIC_SEQ_CST) != TW_INST_SEVERAL)
            continue;
        if (taking->count < taking->max)
            look_up(p, tw_line_of(w->address) + page * TW_LINES_PER_PAGE + i, taking,
                    &taking->out[taking->count]);
        taking->count++;
    }
}

size_t tw_instrumented_sharing_take(struct tw_instrumented *p, struct tw_shared_line *out,
                                    size_t max)
{
    struct taking taking = {.out = out, .max = max, .looks = LOOKS_MAX};
    if (p->mode != TW_INST_SHARING)
        return 0;
    tw_instrumented_sync(p);
    for (size_t i = 0; i < p->window_count; i++) {
        struct tw_inst_window *w = p->windows[i];
        for (uint64_t word = 0; word < TW_WINDOW_PAGES / 64; word++) {
            uint64_t pages = w->written[word];
            w->written[word] = 0;
            for (; pages; pages &= pages - 1)
                take_page(p, w, word * 64 + (uint64_t)__builtin_ctzll(pages), &taking);
        }
    }
    p->epoch++;
    __atomic_store_n(&p->header->epoch, p->epoch, __ATOMIC_RELAXED);
    return taking.count;
}
