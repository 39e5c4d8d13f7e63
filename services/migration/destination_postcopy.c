/* Post-copy, seen from the destination: which lines are to come, what happens when they do, and
 * when the memory is whole. A page is closed to the guest until its last line is there, and a line
 * counts once: what is not missing any more is dropped, since the guest may have written it (R6).
 */
#include "services/migration/destination.h"

#include "services/migration/big_array.h"
#include "services/migration/line_hash.h"

#include <stdatomic.h>
#include <string.h>

#define ROOM_PAGES 1024u /* made room for in a step: 0.5 ms */

/* ---- The map ----------------------------------------------------------------------------------
 */

/* An announcement is of no use to anybody later. */
static enum tw_code open_lines(struct tw_destination *d, struct tw_error *err)
{
    bool first = d->begin.method == TW_METHOD_POST_COPY && !d->missing.announced;
    return first ? tw_line_set_open(&d->missing.lines, d->received.pages, err)
                 : tw_destination_keep_lines(d, err);
}

enum tw_code tw_destination_take_map(struct tw_destination *d, const struct tw_chunk_header *header,
                                     const uint8_t *payload, struct tw_error *err)
{
    struct tw_missing *m = &d->missing;
    struct tw_error why;
    bool between = m->announced && !m->room_said; /* the source waits for our answer */
    if (!d->begun || !tw_destination_postcopies(d) || m->mapped || d->lines_complete || between)
        return tw_destination_out_of_place(d, "a map", err);
    if (!m->lines.of_page && open_lines(d, &why) != TW_OK)
        return tw_destination_refuse(d, &why);
    return tw_line_set_unpack(&m->lines, payload, header->length, err);
}

enum tw_code tw_destination_take_map_end(struct tw_destination *d,
                                         const struct tw_control_map_end *end, struct tw_error *err)
{
    struct tw_missing *m = &d->missing;
    struct tw_error why;
    bool first = d->begin.method == TW_METHOD_POST_COPY && !m->announced;
    bool in_turn = first ? !end->final : end->final && (m->room_said || !m->announced);
    if (!d->begun || !tw_destination_postcopies(d) || m->mapped || d->lines_complete || !in_turn)
        return tw_destination_out_of_place(d, "map_end", err);
    if (!m->lines.of_page && open_lines(d, &why) != TW_OK)
        return tw_destination_refuse(d, &why);
    if (m->lines.count != end->lines)
        return tw_fail(err, TW_INVALID_ARGUMENT, d->params.id, NULL, NULL,
                       "the map names other lines than its end says");
    if (end->final) {
        m->watched = tw_big_array_open(d->host->memory_bytes / TW_PAGE_SIZE / 64 + 1,
                                       "bitmap of watched pages", &why);
        if (!m->watched)
            return tw_destination_refuse(d, &why);
    }
    m->room_at = 0;
    m->announced = !end->final;
    m->mapped = end->final;
    d->meter.p.lines_to_come = end->lines;
    if (end->final)
        tw_destination_keep_map(d);
    return TW_OK;
}

static void say_room(struct tw_destination *d)
{
    union tw_control m = {.epoch = {.epoch = d->params.epoch}};
    struct tw_error err;
    enum tw_code code = tw_control_send(d->conn, TW_CONTROL_ROOM, &m, &err);
    if (code == TW_OK) {
        d->missing.room_said = true;
        tw_line_set_close(&d->missing.lines); /* the final map names anew */
    } else if (code != TW_RESOURCE_EXHAUSTED) {
        tw_destination_refuse(d, &err);
    }
}

bool tw_destination_make_room(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_missing *m = &d->missing;
    struct tw_error err;
    (void)now_ns;
    if (!m->mapped && m->room_said)
        return true;
    for (unsigned made = 0; made < ROOM_PAGES;) {
        uint64_t page = tw_line_set_next(&m->lines, m->room_at), end = page;
        while (end < m->lines.pages && m->lines.of_page[end] && end - page < ROOM_PAGES)
            end++;
        if (page < end && tw_received_make_room(&d->received, page, end, &err) != TW_OK) {
            tw_destination_refuse(d, &err);
            return false;
        }
        made += (unsigned)(end - page);
        m->room_at = end;
        if (end == m->lines.pages)
            break;
    }
    if (m->room_at < m->lines.pages)
        return false;
    if (!m->mapped)
        say_room(d);
    return m->mapped || m->room_said;
}

/* ---- Guard ------------------------------------------------------------------------------------
 */

void tw_destination_show_missing(struct tw_destination *d)
{
    struct tw_missing *m = &d->missing;
    struct tw_host_fault_view view = {.to_come = m->lines.of_page,
                                      .watched = m->watched,
                                      .touched = &m->touched,
                                      .pages = m->lines.pages};
    if (d->host->faults->view && !m->shown)
        d->host->faults->view(d->host->ctx, &view);
    m->shown = true;
}

static bool guard_ended(struct tw_destination *d)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (!d->host->faults->guard(d->host->ctx, &code, &err))
        return false;
    d->missing.guarded = code == TW_OK;
    if (code != TW_OK)
        tw_destination_give_back(d, &err);
    return true;
}

uint64_t tw_destination_step_guarding(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err;
    if (!tw_destination_make_room(d, now_ns))
        return now_ns;
    tw_destination_show_missing(d);
    if (!guard_ended(d))
        return tw_after(now_ns, TW_POLL_NS);
    if (!d->missing.guarded)
        return now_ns;
    d->phase_ns = now_ns;
    tw_destination_move(d, TW_DESTINATION_LOADING_STATE, "the memory is under guard");
    if (tw_host_call_begin(&d->call, TW_HOST_LOAD_STATE, &d->device_state, now_ns, &err) != TW_OK)
        tw_destination_give_back(d, &err);
    return now_ns;
}

void tw_destination_release(struct tw_destination *d)
{
    if (d->missing.guarded && !d->missing.released)
        d->host->faults->release(d->host->ctx);
    d->missing.released = true;
}

/* Of the source's digest the lines to come are no part. Here some of them have come, and others
 * stand as they were before they got stale. */
uint64_t tw_destination_digest(const struct tw_destination *d)
{
    const struct tw_line_set *set = &d->missing.lines;
    uint64_t digest = d->received.digest - d->missing.digest;
    if (!set->of_page)
        return digest;
    for (uint64_t p = tw_line_set_next(set, 0); p < set->pages; p = tw_line_set_next(set, p + 1))
        if (tw_received_may_hold(&d->received, p))
            digest -= tw_lines_digest(p, d->host->memory + p * TW_PAGE_SIZE, set->of_page[p]);
    return digest;
}

/* ---- Lines ------------------------------------------------------------------------------------
 */

/* Writes those of a record's lines that are in `mask`. */
static void write_lines(uint8_t *page, const struct tw_record *r, uint64_t lines, uint64_t mask)
{
    const uint8_t *from = r->lines;
    for (; lines; lines &= lines - 1) {
        unsigned i = (unsigned)__builtin_ctzll(lines);
        bool wanted = mask >> i & 1;
        if (wanted && from)
            memcpy(page + i * TW_LINE_SIZE, from, TW_LINE_SIZE);
        else if (wanted && !tw_is_zero_line(page + i * TW_LINE_SIZE))
            memset(page + i * TW_LINE_SIZE, 0, TW_LINE_SIZE);
        from += from ? TW_LINE_SIZE : 0;
    }
}

static enum tw_code take_page(struct tw_destination *d, const struct tw_record *r, uint64_t page,
                              bool ahead, struct tw_error *err)
{
    struct tw_missing *m = &d->missing;
    uint64_t lines = r->kind == TW_RECORD_ZERO_PAGES ? TW_ALL_LINES : r->bitmap;
    if (page >= m->room_at && d->received.reserved) { /* it came before its turn to get room */
        struct tw_error why;
        if (tw_received_make_room(&d->received, page, page + 1, &why) != TW_OK)
            return tw_destination_refuse(d, &why);
    }
    uint64_t fresh = lines & m->lines.of_page[page];
    uint8_t *bytes = d->host->memory + page * TW_PAGE_SIZE;
    d->meter.p.lines_late += tw_popcount(lines & ~fresh);
    write_lines(bytes, r, lines, d->mutations.late_overwrites ? lines : fresh);
    if (d->begin.verify) /* as they came: when they are taken out the guest may be let at them */
        m->digest += tw_lines_digest(page, bytes, fresh);
    /* The line first, then the set, then the page is opened: killed in between, nothing is lost. */
    atomic_signal_fence(memory_order_release);
    tw_line_set_take(&m->lines, page, fresh);
    m->came += tw_popcount(fresh);
    if (d->mutations.count_twice) {
        uint64_t late = tw_popcount(lines & ~fresh);
        m->lines.count -= late < m->lines.count ? late : m->lines.count;
    }
    if (fresh == 0)
        return TW_OK;
    if (d->begin.verify && d->received.touched)
        tw_received_touch(&d->received, page);
    if (tw_destination_by_line(d))
        return tw_destination_ready(d, page, fresh, err);
    if (m->lines.of_page[page] && !d->mutations.ready_early)
        return TW_OK;
    if (ahead && tw_destination_watch(d, page))
        return TW_OK;
    return tw_destination_ready(d, page, TW_ALL_LINES, err);
}

/* Looks at the whole chunk before any of it is used. */
static enum tw_code check_records(const struct tw_destination *d,
                                  const struct tw_chunk_header *header, const uint8_t *payload,
                                  struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record r;
    enum tw_code code;
    tw_record_reader_init(&reader, payload, header->length, d->host->memory_bytes);
    while ((code = tw_record_next(&reader, &r, err)) == TW_OK)
        ;
    if (code != TW_NOT_FOUND)
        return code;
    return reader.index == header->count ? TW_OK
                                         : tw_fail(err, TW_DATA_LOSS, d->params.id, NULL, NULL,
                                                   "number of records differs from the header");
}

enum tw_code tw_destination_take_rest(struct tw_destination *d,
                                      const struct tw_chunk_header *header, const uint8_t *payload,
                                      struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record r;
    enum tw_code code = check_records(d, header, payload, err);
    if (d->machine.state < TW_DESTINATION_LOADING_STATE && !d->state_complete)
        return tw_destination_out_of_place(d, "lines before the device state", err);
    if (d->machine.state == TW_DESTINATION_PATH_LOST)
        return tw_destination_out_of_place(d, "lines before it knows which", err);
    if (header->tag > TW_REST_AHEAD)
        return tw_destination_out_of_place(d, "lines for a reason that is not known", err);
    tw_record_reader_init(&reader, payload, header->length, d->host->memory_bytes);
    while (code == TW_OK && !d->refused && tw_record_next(&reader, &r, NULL) == TW_OK) {
        uint64_t page = tw_page_of(r.page_address), end = page + r.pages;
        for (; code == TW_OK && !d->refused && page < end; page++)
            code = take_page(d, &r, page, header->tag == TW_REST_AHEAD, err);
    }
    const uint64_t now_ns = tw_now(d->env.clock);
    tw_meter_sent(&d->meter, sizeof *header + header->length, now_ns);
    if (code == TW_OK && !d->refused)
        tw_destination_serve(d, now_ns); /* the next step may be many chunks away */
    return code;
}

/* ---- The VM runs here -------------------------------------------------------------------------
 */

static bool say_running(struct tw_destination *d)
{
    union tw_control m = {.epoch = {.epoch = d->params.epoch}};
    struct tw_error err;
    if (d->missing.running_said || !d->conn)
        return true;
    enum tw_code code = tw_control_send(d->conn, TW_CONTROL_RUNNING, &m, &err);
    d->missing.running_said = code == TW_OK;
    if (code != TW_OK && code != TW_RESOURCE_EXHAUSTED)
        tw_destination_refuse(d, &err);
    return d->missing.running_said;
}

uint64_t tw_destination_step_fetching(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_missing *m = &d->missing;
    struct tw_error err;
    if (!say_running(d))
        return tw_after(now_ns, TW_BLOCKED_NS);
    uint64_t due = tw_destination_continue(d, now_ns); /* done before, but for a new agent */
    if (m->lines.count || !d->continued)
        return due;
    tw_destination_release(d);
    if (now_ns < d->retry_ns)
        return d->retry_ns;
    if (d->env.journal(d->env.ctx, TW_HAND_OVER_COMMITTED, &err) != TW_OK) {
        tw_destination_note_error(d, &err);
        d->retry_ns = tw_after(now_ns, TW_RETRY_NS);
        return d->retry_ns;
    }
    d->failed = false;
    d->meter.p.fetch_ns = now_ns - d->phase_ns;
    union tw_control whole = {.whole = {.epoch = d->params.epoch,
                                        .lines = m->came,
                                        .digest = m->digest,
                                        .faults = d->meter.p.faults,
                                        .fault_p50_ns = tw_destination_wait_ns(d, 50),
                                        .fault_p99_ns = tw_destination_wait_ns(d, 99),
                                        .ahead_watched = m->ahead.watched,
                                        .ahead_touched = tw_destination_foresight(d).touched}};
    tw_farewell_say(&d->farewell, TW_CONTROL_WHOLE, &whole, now_ns);
    tw_destination_move(d, TW_DESTINATION_COMMITTED, "all of its memory is here");
    return now_ns;
}
