/* A pass: scan and protect, then read (R3), piece by piece.
 *
 *   spans --scan+protect--> found runs --256 pages at a time--> batch --compare--> device
 *
 * Once protected, a page is not told again: the runs found belong to the attachment, not to the
 * pass, and are read by the next one if this one is broken off. */
#include "hosts/process/process_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

/* Absent pages are left alone: to protect one takes room in a page table, and programs reserve far
 * more addresses than they use. */
#define WRITTEN (TW_PAGE_WPALLOWED | TW_PAGE_WRITTEN)
#define HELD    (TW_PAGE_PRESENT | TW_PAGE_SWAPPED)
/* Pages found, after which they are read before the scan goes on: as many as keep both threads
 * busy, and few enough for what would be told as a whole if the program ended just then. */
#define ENOUGH  1024u

static uint64_t own_cpu_ns(const struct tw_process *p)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * TW_SEC + (uint64_t)t.tv_nsec + tw_crew_cpu_ns(p->crew);
}

/* 0 when it has ended. */
static uint64_t program_cpu_ns(const struct tw_process *p)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(p->pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec * TW_SEC + (uint64_t)t.tv_nsec;
}

/* ---- Reading what was found ------------------------------------------------------------------ */

static bool is_watched(const struct tw_process *p, uint64_t address, bool *armed, uint64_t *until)
{
    const size_t at = tw_piece_find(p, address);
    if (at == p->piece_count) {
        *until = TW_PROCESS_ADDRESS_LIMIT;
        return false;
    }
    const struct tw_piece *piece = &p->pieces[at];
    *armed = piece->armed;
    *until = piece->start > address ? piece->start : piece->end;
    return piece->start <= address;
}

/* A big page that is mapped as small ones now was split, most likely by a store to it while it was
 * protected. */
static void look_for_big(struct tw_process *p, const struct tw_found *found, uint64_t device)
{
    const uint64_t block = device / TW_BIG_PAGE;
    const bool now = found->run.categories & TW_PAGE_HUGE;
    const bool before = tw_page_set_has(&p->big, block);
    if (now == before)
        return;
    tw_page_set_assign(&p->big, block, now);
    p->stats.big_pages += now ? 1 : UINT64_MAX; /* one less */
    p->stats.big_pages_split += !now;
}

static void put(struct tw_process *p, const struct tw_found *found, uint64_t address,
                uint64_t device, bool armed)
{
    struct tw_batch *batch = &p->batch;
    const unsigned i = batch->count++;
    batch->address[i] = address;
    batch->device_page[i] = tw_page_of(device);
    batch->anonymous[i] = found->anonymous;
    batch->deliver[i] = armed;
    if (batch->count == TW_BATCH)
        tw_batch_deliver(p);
}

/* One page of a run. */
static void take_page(struct tw_process *p, const struct tw_found *found, uint64_t address,
                      bool armed)
{
    /* A page of a file's cache in a private mapping was read, not written: that gives another. */
    const bool untouched =
        !found->anonymous && !found->shared && (found->run.categories & TW_PAGE_FILE);
    if (untouched)
        return;
    const uint64_t device = tw_windows_place(&p->windows, address);
    if (device == TW_NEVER) {
        p->stats.unplaced_pages += armed;
        return;
    }
    if (address % TW_BIG_PAGE == 0 || !(found->run.categories & TW_PAGE_HUGE))
        look_for_big(p, found, device);
    p->pass.written += armed;
    p->stats.written_pages += armed;
    if (armed || p->config.exact)
        put(p, found, address, device, armed);
    else
        tw_copies_start(&p->copies, tw_page_of(device), NULL);
}

/* Up to TW_BATCH pages of the run being read; false when nothing is left. */
static bool read_some(struct tw_process *p)
{
    struct tw_pass *pass = &p->pass;
    if (pass->found_at == pass->found_count) {
        tw_batch_deliver(p);
        pass->found_at = pass->found_count = 0;
        pass->found_pages = 0;
        return false;
    }
    struct tw_found *found = &pass->found[pass->found_at];
    bool armed = false;
    for (unsigned i = 0; i < TW_BATCH && found->run.start < found->run.end;) {
        uint64_t until;
        const bool watched = is_watched(p, found->run.start, &armed, &until);
        if (until > found->run.end)
            until = found->run.end;
        /* Nobody watches it, but its span was rounded out to it: it is protected now, so whoever
         * watches it later would not find it, and must not trust what was known of it. */
        for (; i < TW_BATCH && found->run.start < until; i++) {
            take_page(p, found, found->run.start, watched && armed);
            found->run.start += TW_PAGE_SIZE;
        }
    }
    pass->found_at += found->run.start >= found->run.end;
    return true;
}

/* ---- Scanning -------------------------------------------------------------------------------- */

static enum tw_code scan_some(struct tw_process *p, struct tw_error *err)
{
    struct tw_page_run runs[TW_SCAN_RUNS];
    struct tw_pass *pass = &p->pass;
    const struct tw_span *span = &p->spans[pass->span];
    const uint64_t start = pass->address > span->start ? pass->address : span->start;
    /* Ends where no big page is cut. */
    uint64_t end = (start / TW_SCAN_BYTES + 1) * TW_SCAN_BYTES, reached;
    if (end > span->end)
        end = span->end;
    /* Asked for only where it decides something. */
    const uint64_t tell = TW_PAGE_HUGE | (span->anonymous || span->shared ? 0 : TW_PAGE_FILE);
    const int count =
        tw_kernel_scan(p->pagemap, TW_SCAN_PROTECT, (struct tw_range){start, end - start}, WRITTEN,
                       HELD, tell, runs, TW_SCAN_RUNS, &reached);
    if (count < 0)
        return tw_fail_errno(err, errno, p->where, "written pages cannot be asked for");
    const enum tw_code code =
        tw_found_add(p, runs, (size_t)count, span->anonymous, span->shared, err);
    pass->address = reached;
    if (reached >= span->end) {
        pass->span++;
        pass->address = 0;
    }
    return code;
}

/* ---- The pass -------------------------------------------------------------------------------- */

enum tw_code tw_process_pass_begin(struct tw_process *process, struct tw_error *err)
{
    struct tw_pass *pass = &process->pass;
    if (pass->active)
        return tw_fail(err, TW_FAILED_PRECONDITION, process->where, NULL, NULL,
                       "a pass is under way");
    enum tw_code code = tw_process_check(process, err);
    if (code)
        return code;
    const uint64_t own = own_cpu_ns(process);
    pass->began_ns = tw_now(process->config.clock);
    pass->written = 0;
    pass->span = 0;
    pass->address = 0;
    code = tw_pieces_update(process, err);
    if (!code)
        code = tw_spans_update(process, err);
    if (code) {
        if (code == TW_ABORTED)
            tw_process_check(process, NULL);
        return code;
    }
    for (unsigned i = 0; i < process->watch_count; i++)
        process->watches[i]->arming = true;
    pass->active = true;
    pass->own_ns = own_cpu_ns(process) - own;
    return TW_OK;
}

static void complete(struct tw_process *p)
{
    struct tw_pass *pass = &p->pass;
    const uint64_t now = tw_now(p->config.clock);
    const uint64_t cpu = program_cpu_ns(p);
    for (unsigned i = 0; i < p->watch_count; i++)
        p->watches[i]->armed |= p->watches[i]->arming;
    p->stats.passes++;
    p->stats.pass_ns = now - pass->began_ns;
    p->stats.pass_own_ns = pass->own_ns;
    p->stats.pass_written = pass->written;
    p->stats.interval_ns = tw_budget_interval_ns(
        &p->config, pass->written * p->stats.fault_ns, pass->own_ns,
        cpu > p->program_cpu_ns ? cpu - p->program_cpu_ns : 0, now - p->program_seen_ns);
    p->due_ns = tw_after(now, p->stats.interval_ns);
    p->program_cpu_ns = cpu;
    p->program_seen_ns = now;
}

/* What was protected and not read yet must not be lost with the program: it was written. */
static void tell_unread(struct tw_process *p)
{
    while (read_some(p))
        ;
}

static enum tw_code advance(struct tw_process *p, uint64_t until_ns, bool *done,
                            struct tw_error *err)
{
    enum tw_code code = TW_OK;
    do {
        const bool enough = p->pass.found_pages >= ENOUGH || p->pass.span == p->span_count;
        if (enough && read_some(p))
            continue;
        if (p->pass.span == p->span_count) {
            *done = true;
            /* A scan of memory that is gone finds nothing. */
            return tw_process_check(p, err);
        }
        code = scan_some(p, err);
    } while (!code && tw_now(p->config.clock) < until_ns);
    return code;
}

enum tw_code tw_process_step(struct tw_process *process, uint64_t slice_ns, bool *done,
                             struct tw_error *err)
{
    struct tw_pass *pass = &process->pass;
    *done = false;
    if (!pass->active)
        return tw_fail(err, TW_FAILED_PRECONDITION, process->where, NULL, NULL,
                       "no pass is under way");
    const uint64_t own = own_cpu_ns(process);
    enum tw_code code =
        advance(process, tw_after(tw_now(process->config.clock), slice_ns), done, err);
    pass->own_ns += own_cpu_ns(process) - own;
    if (code) {
        *done = false;
        pass->active = false;
        if (tw_process_check(process, code == TW_ABORTED ? NULL : err) == TW_ABORTED) {
            tell_unread(process);
            code = TW_ABORTED;
        }
    } else if (*done) {
        pass->active = false;
        complete(process);
    }
    for (unsigned i = 0; i < process->watch_count && !pass->active; i++)
        process->watches[i]->arming = false;
    return code;
}

enum tw_code tw_process_pass(struct tw_process *process, uint64_t deadline_ns, struct tw_error *err)
{
    enum tw_code code = tw_process_pass_begin(process, err);
    for (bool done = false; !code && !done;) {
        if (tw_now(process->config.clock) >= deadline_ns) {
            process->pass.active = false;
            return tw_fail(err, TW_DEADLINE_EXCEEDED, process->where, NULL, NULL,
                           "the pass took too long");
        }
        code = tw_process_step(process, 10 * TW_MS, &done, err);
    }
    return code;
}
