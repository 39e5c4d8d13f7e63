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

static enum tw_code let_at(struct tw_destination *d, uint64_t page, uint64_t lines,
                           struct tw_error *err)
{
    const struct tw_host_fault_ops *faults = d->host->faults;
    return tw_destination_by_line(d) ? faults->ready_lines(d->host->ctx, page, lines, err)
                                     : faults->ready(d->host->ctx, page, 1, err);
}

enum tw_code tw_destination_ready(struct tw_destination *d, uint64_t page, uint64_t lines,
                                  struct tw_error *err)
{
    struct tw_missing *m = &d->missing;
    if (!m->guarded || m->released)
        return TW_OK;
    enum tw_code code = let_at(d, page, lines, err);
    uint64_t now_ns = m->waiting_count ? tw_now(d->env.clock) : 0;
    for (unsigned i = 0; i < m->waiting_count;) {
        if (m->waiting[i].page != page || !(lines >> m->waiting[i].critical & 1)) {
            i++;
            continue;
        }
        const struct tw_waiting *w = &m->waiting[i];
        m->waits[bucket_of(now_ns - w->since_ns)]++;
        if (d->env.missed)
            d->env.missed(d->env.ctx, page, w->critical, w->since_ns, now_ns - w->since_ns);
        m->waiting[i] = m->waiting[--m->waiting_count];
    }
    return code;
}

/* ---- Found and asked for ----------------------------------------------------------------------
 */

static bool is_waited_for(const struct tw_missing *m, uint64_t page)
{
    for (unsigned i = 0; i < m->waiting_count; i++)
        if (m->waiting[i].page == page)
            return true;
    return false;
}

static bool is_watched(const struct tw_missing *m, uint64_t page)
{
    return __atomic_load_n(&m->watched[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

struct tw_foresight_figures tw_destination_foresight(const struct tw_destination *d)
{
    struct tw_foresight_figures f = d->missing.ahead;
    f.touched = __atomic_load_n(&d->missing.touched, __ATOMIC_RELAXED);
    return f;
}

bool tw_destination_watch(struct tw_destination *d, uint64_t page)
{
    struct tw_missing *m = &d->missing;
    m->ahead.ahead++;
    /* Which of them, must not depend on where they are in a row. */
    bool chosen = (page * UINT64_C(0x9e3779b97f4a7c15) >> 32) % TW_WATCH_ONE_IN == 0;
    if (!chosen || !m->guarded || m->released || is_waited_for(m, page))
        return false;
    __atomic_fetch_or(&m->watched[page / 64], UINT64_C(1) << (page % 64), __ATOMIC_RELAXED);
    m->ahead.watched++;
    return true;
}

static bool is_asked_for(const struct tw_destination *d, uint64_t page, uint32_t line)
{
    const struct tw_missing *m = &d->missing;
    for (unsigned i = 0; i < m->waiting_count && !d->mutations.ask_each; i++) {
        const struct tw_waiting *w = &m->waiting[i];
        bool same = w->page == page && (w->critical == line || !tw_destination_by_line(d));
        if (same && w->asked)
            return true;
    }
    return false;
}

static bool is_there(const struct tw_destination *d, uint64_t page, uint32_t line)
{
    uint64_t to_come = d->missing.lines.of_page[page];
    return tw_destination_by_line(d) ? !(to_come >> line & 1) : to_come == 0;
}

/* Nothing is to come: the page was closed, no more, and so are its neighbours. */
static void open_ahead(struct tw_destination *d, uint64_t page)
{
    const struct tw_line_set *set = &d->missing.lines;
    struct tw_error err;
    uint64_t end = page + 1;
    if (tw_destination_by_line(d)) {
        if (let_at(d, page, ~set->of_page[page], &err) != TW_OK)
            (void)tw_destination_refuse(d, &err);
        return;
    }
    const uint64_t bit = UINT64_C(1) << (page % 64);
    if (__atomic_fetch_and(&d->missing.watched[page / 64], ~bit, __ATOMIC_RELAXED) & bit)
        __atomic_fetch_add(&d->missing.touched, 1, __ATOMIC_RELAXED);
    while (end < set->pages && end < page + READY_AHEAD && set->of_page[end] == 0 &&
           !is_watched(&d->missing, end))
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
    uint32_t line = (uint32_t)(f->address % TW_PAGE_SIZE / TW_LINE_SIZE);
    if (is_there(d, page, line)) {
        open_ahead(d, page);
        return;
    }
    d->meter.p.faults++;
    m->waiting[m->waiting_count++] =
        (struct tw_waiting){.page = page,
                            .critical = line,
                            .asked = is_asked_for(d, page, line),
                            .since_ns = f->since_ns ? f->since_ns : now_ns};
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
    if (w->asked || is_asked_for(d, w->page, w->critical)) {
        w->asked = true;
        return true;
    }
    uint64_t lines = m->lines.of_page[w->page];
    if (tw_destination_by_line(d))
        lines &= UINT64_C(1) << w->critical;
    union tw_control want = {.want = {.page = w->page, .lines = lines, .critical = w->critical}};
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
