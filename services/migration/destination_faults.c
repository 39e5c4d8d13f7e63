/* Touches of memory that is not there: found, asked for once a page however many wait for it, and
 * timed. Nothing here allocates or waits. */
#include "services/migration/destination.h"

#define TAKEN_AT_ONCE 16u
#define READY_AHEAD   64u /* pages that are opened together where nothing is to come */

/* ---- How long they wait ------------------------------------------------------------------------
 */

/* Four buckets an octave: a time is known to a fifth of it. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < 4)
        return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    unsigned bucket = octave * 4 + (unsigned)(ns >> (octave - 2) & 3);
    return bucket < TW_WAIT_BUCKETS ? bucket : TW_WAIT_BUCKETS - 1;
}

/* Where the bucket ends. */
static uint64_t end_of(unsigned bucket)
{
    return bucket < 8 ? bucket : (UINT64_C(4) + bucket % 4 + 1) << (bucket / 4 - 2);
}

uint64_t tw_destination_wait_ns(const struct tw_destination *d, unsigned percent)
{
    uint64_t all = 0, sum = 0;
    for (unsigned i = 0; i < TW_WAIT_BUCKETS; i++)
        all += d->missing.waits[i];
    for (unsigned i = 0; all && i < TW_WAIT_BUCKETS; i++) {
        sum += d->missing.waits[i];
        if (sum * 100 >= all * percent)
            return end_of(i);
    }
    return 0;
}

/* ---- Ready ------------------------------------------------------------------------------------
 */

enum tw_code tw_destination_page_ready(struct tw_destination *d, uint64_t page,
                                       struct tw_error *err)
{
    struct tw_missing *m = &d->missing;
    if (!m->guarded || m->released)
        return TW_OK;
    enum tw_code code = d->host->faults->ready(d->host->ctx, page, 1, err);
    uint64_t now_ns = m->waiting_count ? tw_now(d->env.clock) : 0;
    for (unsigned i = 0; i < m->waiting_count;) {
        if (m->waiting[i].page != page) {
            i++;
            continue;
        }
        m->waits[bucket_of(now_ns - m->waiting[i].since_ns)]++;
        m->waiting[i] = m->waiting[--m->waiting_count];
    }
    return code;
}

/* ---- Found and asked for ----------------------------------------------------------------------
 */

static bool is_asked_for(const struct tw_missing *m, uint64_t page)
{
    for (unsigned i = 0; i < m->waiting_count; i++)
        if (m->waiting[i].page == page && m->waiting[i].asked)
            return true;
    return false;
}

/* Nothing is to come: the page was closed, no more, and so are its neighbours. */
static void open_ahead(struct tw_destination *d, uint64_t page)
{
    const struct tw_line_set *set = &d->missing.lines;
    struct tw_error err;
    uint64_t end = page + 1;
    while (end < set->pages && end < page + READY_AHEAD && set->of_page[end] == 0)
        end++;
    if (d->host->faults->ready(d->host->ctx, page, end - page, &err) == TW_OK)
        return;
    d->refused = true;
    d->trouble = err;
}

static void note(struct tw_destination *d, const struct tw_host_fault *f, uint64_t now_ns)
{
    struct tw_missing *m = &d->missing;
    uint64_t page = tw_page_of(f->address);
    if (page >= m->lines.pages)
        return;
    if (m->lines.of_page[page] == 0) {
        open_ahead(d, page);
        return;
    }
    d->meter.p.faults++;
    m->waiting[m->waiting_count++] =
        (struct tw_waiting){.page = page,
                            .critical = (uint32_t)(f->address % TW_PAGE_SIZE / TW_LINE_SIZE),
                            .asked = is_asked_for(m, page),
                            .since_ns = now_ns};
}

static void take_touches(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_missing *m = &d->missing;
    struct tw_host_fault touches[TAKEN_AT_ONCE];
    size_t count;
    do {
        size_t room = TW_WAITING_MAX - m->waiting_count;
        room = room < TAKEN_AT_ONCE ? room : TAKEN_AT_ONCE;
        count = room ? d->host->faults->take(d->host->ctx, touches, room) : 0;
        for (size_t i = 0; i < count; i++)
            note(d, &touches[i], now_ns);
    } while (count);
}

/* False when the lane has no credit now. */
static bool ask(struct tw_destination *d, struct tw_waiting *w)
{
    struct tw_missing *m = &d->missing;
    struct tw_error err;
    if (w->asked || is_asked_for(m, w->page)) {
        w->asked = true;
        return true;
    }
    union tw_control want = {
        .want = {.page = w->page, .lines = m->lines.of_page[w->page], .critical = w->critical}};
    enum tw_code code = tw_control_send(d->conn, TW_CONTROL_WANT, &want, &err);
    w->asked = code == TW_OK;
    if (code != TW_OK && code != TW_RESOURCE_EXHAUSTED) {
        d->refused = true;
        d->trouble = err;
    }
    return code == TW_OK;
}

uint64_t tw_destination_serve(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_missing *m = &d->missing;
    if (!m->guarded || m->released)
        return TW_NEVER;
    take_touches(d, now_ns);
    if (!d->conn || d->machine.state == TW_DESTINATION_PATH_LOST)
        return TW_NEVER; /* who touches what is here goes on all the same */
    for (unsigned i = 0; i < m->waiting_count && !d->refused; i++)
        if (!ask(d, &m->waiting[i]))
            return tw_after(now_ns, TW_BLOCKED_NS);
    return TW_NEVER;
}
