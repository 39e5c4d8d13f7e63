#include "hosts/instrumented/compare.h"

#include "hosts/instrumented/private.h"
#include "hosts/process/copies.h"

#include "fpga-model/lazy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define BATCH_PAGES 64u
#define LOOKS_MAX                                                                                  \
    256u             /* at records of threads, for a batch; where there are more, nothing is sure */
#define PROC_MAX 16u /* at /proc, the same */

struct listed {
    uint64_t device_page, address;
    uint64_t lines;
    bool carried;
    const uint8_t *marks; /* of the page */
};

struct tw_inst_compare {
    tw_told_fn told;
    void *arg;
    struct tw_copies copies;
    uint64_t pages;
    uint64_t *unsure; /* a mask a device page: the copy may be newer than the last epoch's end */
    struct listed listed[BATCH_PAGES];
    unsigned count;
    bool failed[BATCH_PAGES];
    struct tw_inst_flight flights[LOOKS_MAX];
    unsigned flight_count;
    bool flights_all;
    uint8_t *bytes; /* of the listed pages */
};

void tw_inst_compare_close(struct tw_inst_compare *c)
{
    if (c == NULL)
        return;
    tw_copies_close(&c->copies);
    tw_lazy_free(c->unsure, c->pages * sizeof *c->unsure);
    free(c->bytes);
    free(c);
}

static struct tw_inst_compare *compare_open(const struct tw_instrumented *p)
{
    struct tw_inst_compare *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->pages = p->windows_max * TW_WINDOW_PAGES;
    c->unsure = tw_lazy_alloc(c->pages * sizeof *c->unsure);
    c->bytes = aligned_alloc(TW_PAGE_SIZE, BATCH_PAGES * TW_PAGE_SIZE);
    if (tw_copies_open(&c->copies, c->pages, p->copy_bytes_max) && c->unsure && c->bytes)
        return c;
    tw_inst_compare_close(c);
    return NULL;
}

enum tw_code tw_inst_compare_observe(struct tw_instrumented *p, tw_told_fn told, void *arg,
                                     struct tw_error *err)
{
    if (told == NULL) {
        tw_inst_compare_close(p->compare);
        p->compare = NULL;
        return TW_OK;
    }
    if (p->mode != TW_INST_MARK && p->mode != TW_INST_SHARING)
        return tw_fail(err, TW_UNIMPLEMENTED, p->name, "mark or sharing", NULL,
                       "contents are not compared in mode %d", (int)p->mode);
    if (p->compare == NULL)
        p->compare = compare_open(p);
    if (p->compare == NULL)
        return tw_fail_errno(err, ENOMEM, p->name, "cannot compare contents");
    p->compare->told = told;
    p->compare->arg = arg;
    return TW_OK;
}

/* ---- A batch --------------------------------------------------------------------------------- */

/* After the marks were taken and before the lines are read: whoever has not made his store by then
 * still announces it. */
static void note_flights(const struct tw_instrumented *p, struct tw_inst_compare *c)
{
    const uint32_t top = __atomic_load_n(&p->header->threads_top, __ATOMIC_ACQUIRE);
    unsigned looks = PROC_MAX;
    c->flight_count = 0;
    c->flights_all = top > LOOKS_MAX;
    for (uint32_t i = 0; i < top && !c->flights_all; i++) {
        const uint64_t announced = tw_inst_in_flight_within(p, i, &looks);
        const uint64_t first = tw_line_of(tw_inst_flight_address(announced));
        if (announced >> TW_INST_MORE_SHIFT == TW_INST_MORE_MAX)
            c->flights_all = true;
        else if (announced)
            c->flights[c->flight_count++] =
                (struct tw_inst_flight){first, first + tw_inst_flight_lines(announced) - 1};
    }
}

static uint64_t lines_in_flight(const struct tw_inst_compare *c, uint64_t address)
{
    const uint64_t first = tw_line_of(address), last = first + TW_LINES_PER_PAGE - 1;
    uint64_t lines = 0;
    for (unsigned i = 0; i < c->flight_count; i++) {
        const struct tw_inst_flight f = c->flights[i];
        if (f.first > last || f.last < first)
            continue;
        const uint64_t from = (f.first > first ? f.first : first) - first;
        const uint64_t to = (f.last < last ? f.last : last) - first;
        lines |= (TW_ALL_LINES >> (TW_LINES_PER_PAGE - 1 - (to - from))) << from;
    }
    return c->flights_all ? TW_ALL_LINES : lines;
}

/* All by one call; where it stops, that page is gone, or may not be read. */
static void read_listed(const struct tw_instrumented *p, struct tw_inst_compare *c)
{
    struct iovec remote[BATCH_PAGES];
    for (unsigned i = 0; i < c->count; i++)
        remote[i] = (struct iovec){(void *)(uintptr_t)c->listed[i].address, TW_PAGE_SIZE};
    for (unsigned done = 0; done < c->count;) {
        const unsigned rest = c->count - done;
        const struct iovec local = {c->bytes + (size_t)done * TW_PAGE_SIZE,
                                    (size_t)rest * TW_PAGE_SIZE};
        const ssize_t got = process_vm_readv(p->pid, &local, 1, remote + done, rest, 0);
        for (size_t whole = got > 0 ? (size_t)got / TW_PAGE_SIZE : 0; whole > 0; whole--)
            c->failed[done++] = false;
        if (done < c->count)
            c->failed[done++] = true;
    }
    /* By pid: what has become another program meanwhile was not this one's memory. */
    if (!tw_instrumented_alive(p))
        memset(c->failed, true, sizeof c->failed);
}

static uint64_t marked_lines(const uint8_t *marks)
{
    uint64_t lines = 0;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++) {
        const uint8_t mark = __atomic_load_n(&marks[i], __ATOMIC_ACQUIRE);
        lines |= (uint64_t)(mark != 0 && mark != TW_INST_LOADED) << i;
    }
    return lines;
}

static void tell(struct tw_inst_compare *c, unsigned i)
{
    const struct listed *l = &c->listed[i];
    const uint8_t *now = c->bytes + (size_t)i * TW_PAGE_SIZE;
    struct tw_told told = {.device_page = l->device_page, .whole = true};
    struct tw_page_report report;
    if (c->failed[i]) {
        tw_copies_forget(&c->copies, l->device_page);
        c->told(c->arg, &told);
        return;
    }
    uint64_t *unsure = &c->unsure[l->device_page];
    const uint64_t again = marked_lines(l->marks);
    if (!tw_copies_compare_lines(&c->copies, l->device_page, l->lines, now, &report)) {
        tw_copies_start(&c->copies, l->device_page, now);
        *unsure = again;
        c->told(c->arg, &told);
        return;
    }
    const uint64_t equal = l->lines & ~report.lines;
    const uint64_t doubt = l->carried ? TW_ALL_LINES : *unsure | lines_in_flight(c, l->address);
    told = (struct tw_told){.device_page = l->device_page,
                            .lines = report.lines,
                            .bytes = (uint32_t)report.bytes,
                            .same = equal & ~doubt,
                            .unsure = equal & doubt};
    *unsure = (*unsure & ~l->lines) | (again & l->lines);
    c->told(c->arg, &told);
}

void tw_inst_compare_flush(struct tw_instrumented *p)
{
    struct tw_inst_compare *c = p->compare;
    if (c == NULL || c->count == 0)
        return;
    note_flights(p, c);
    read_listed(p, c);
    for (unsigned i = 0; i < c->count; i++)
        tell(c, i);
    c->count = 0;
}

void tw_inst_compare_lines(struct tw_instrumented *p, const struct tw_inst_window *w, uint64_t page,
                           uint64_t lines, bool carried)
{
    struct tw_inst_compare *c = p->compare;
    if (c == NULL || lines == 0)
        return;
    c->listed[c->count++] = (struct listed){
        .device_page = tw_page_of(w->device_address) + page,
        .address = w->address + page * TW_PAGE_SIZE,
        .lines = lines,
        .carried = carried,
        .marks = w->map.marks + page * TW_LINES_PER_PAGE,
    };
    if (c->count == BATCH_PAGES)
        tw_inst_compare_flush(p);
}
