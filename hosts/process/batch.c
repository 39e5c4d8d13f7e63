/* From a program's pages to write-backs: read, compare, tell the device. */
#include "hosts/process/process_impl.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#define CREW_PIECES_MIN 4u /* below it a helper is not worth being woken */

static uint8_t *bytes_of(const struct tw_batch *batch, unsigned i)
{
    return batch->bytes + (size_t)i * TW_PAGE_SIZE;
}

/* Neighbours become one piece of the list. */
static unsigned list_remote(const struct tw_batch *batch, unsigned from, unsigned to,
                            struct iovec *list)
{
    unsigned count = 0;
    for (unsigned i = from; i < to; i++) {
        if (i > from && batch->address[i] == batch->address[i - 1] + TW_PAGE_SIZE)
            list[count - 1].iov_len += TW_PAGE_SIZE;
        else
            list[count++] = (struct iovec){(void *)(uintptr_t)batch->address[i], TW_PAGE_SIZE};
    }
    return count;
}

/* All pages by one call. Where it stops, the page may be gone, or be one that its own program may
 * not read: /proc/PID/mem reads that, too. */
static void read_pages(struct tw_process *p, unsigned from, unsigned to)
{
    struct tw_batch *batch = &p->batch;
    struct iovec remote[TW_BATCH_PIECE];
    for (unsigned done = from; done < to;) {
        struct iovec local = {bytes_of(batch, done), (size_t)(to - done) * TW_PAGE_SIZE};
        const unsigned pieces = list_remote(batch, done, to, remote);
        const ssize_t got = process_vm_readv(p->pid, &local, 1, remote, pieces, 0);
        for (size_t whole = got > 0 ? (size_t)got / TW_PAGE_SIZE : 0; whole > 0; whole--)
            batch->failed[done++] = false;
        if (done == to)
            break;
        batch->failed[done] = pread(p->mem, bytes_of(batch, done), TW_PAGE_SIZE,
                                    (off_t)batch->address[done]) != TW_PAGE_SIZE;
        done++;
    }
}

/* A piece of the batch is read and at once, while it is in this processor's cache, compared, as far
 * as there are copies: what else is to be done to them is for one thread. */
static void take_piece(void *process, unsigned number)
{
    struct tw_process *p = process;
    struct tw_batch *batch = &p->batch;
    const unsigned from = number * TW_BATCH_PIECE;
    const unsigned to = from + TW_BATCH_PIECE < batch->count ? from + TW_BATCH_PIECE : batch->count;
    read_pages(p, from, to);
    for (unsigned i = from; i < to; i++)
        batch->compared[i] = batch->deliver[i] && !batch->failed[i] &&
                             tw_copies_compare(&p->copies, batch->device_page[i],
                                               bytes_of(batch, i), &batch->report[i]);
}

/* Two pieces with the same page (found twice) must not be compared at the same time. */
static bool is_ascending(const struct tw_batch *batch)
{
    for (unsigned i = 1; i < batch->count; i++) {
        if (batch->address[i] <= batch->address[i - 1])
            return false;
    }
    return true;
}

static void take_pieces(struct tw_process *p)
{
    const unsigned pieces = (p->batch.count + TW_BATCH_PIECE - 1) / TW_BATCH_PIECE;
    const bool worth = pieces >= CREW_PIECES_MIN && is_ascending(&p->batch);
    if (worth && !p->crew)
        p->crew = tw_crew_open();
    tw_crew_run(worth ? p->crew : NULL, take_piece, p, pieces);
}

/* process_vm_readv goes by pid: had the program executed another meanwhile, or ended and left its
 * number to somebody else, we would have read that one's memory. The open file stands for the
 * memory itself: if it is still there now, it was there before. */
static void check_memory(struct tw_process *p)
{
    struct tw_batch *batch = &p->batch;
    uint64_t entry;
    if (batch->count == 0 || pread(p->pagemap, &entry, sizeof entry, 0) == sizeof entry)
        return;
    for (unsigned i = 0; i < batch->count; i++)
        batch->failed[i] = true;
}

void tw_process_observe(struct tw_process *process, tw_told_fn told, void *arg)
{
    process->told = told;
    process->told_arg = arg;
}

static void observe(const struct tw_process *p, const struct tw_told *told)
{
    if (p->told)
        p->told(p->told_arg, told);
}

static void tell_whole(struct tw_process *p, uint64_t page)
{
    const struct tw_told told = {.device_page = page, .whole = true};
    observe(p, &told);
    p->stats.whole_pages++;
    tw_device_message_whole(p->device, page);
}

static void tell(struct tw_process *p, unsigned i)
{
    const struct tw_batch *batch = &p->batch;
    const uint64_t page = batch->device_page[i];
    struct tw_page_report report = batch->report[i];
    if (!batch->compared[i])
        report = tw_copies_report(&p->copies, page, batch->anonymous[i], bytes_of(batch, i));
    if (report.whole) {
        tell_whole(p, page);
        return;
    }
    const struct tw_told told = {
        .device_page = page, .lines = report.lines, .bytes = (uint32_t)report.bytes};
    observe(p, &told);
    p->stats.changed_lines += tw_popcount(report.lines);
    p->stats.changed_bytes += report.bytes;
    p->stats.same_pages += report.lines == 0;
    tw_device_message_page(p->device, TW_MEM_WR, page, report.lines);
}

void tw_batch_deliver(struct tw_process *p)
{
    struct tw_batch *batch = &p->batch;
    take_pieces(p);
    check_memory(p);
    for (unsigned i = 0; i < batch->count; i++) {
        const uint64_t page = batch->device_page[i];
        if (batch->failed[i]) {
            p->stats.unread_pages += batch->deliver[i];
            tw_copies_forget(&p->copies, page);
            if (batch->deliver[i])
                tell_whole(p, page);
        } else if (batch->deliver[i]) {
            tell(p, i);
        } else {
            tw_copies_start(&p->copies, page, bytes_of(batch, i));
        }
    }
    batch->count = 0;
}
