#include "services/migration/source.h"

#include <string.h>

static const uint8_t *page_at(const struct tw_source *s, uint64_t page)
{
    return s->host->memory + page * TW_PAGE_SIZE;
}

/* ---- The walk over data ---------------------------------------------------------------------- */

void tw_source_walk_begin(struct tw_source *s)
{
    s->copy.walk = (struct tw_data_walk){0};
}

static void next_range(struct tw_source *s)
{
    struct tw_data_walk *w = &s->copy.walk;
    uint64_t pages = s->hashes.pages;
    struct tw_range r = s->host->ops->next_data(s->host->ctx, w->page * TW_PAGE_SIZE);
    w->start = w->end = pages;
    if (r.length == 0 || r.start >= pages * TW_PAGE_SIZE)
        return;
    w->start = r.start / TW_PAGE_SIZE;
    if (w->start < w->page)
        w->start = w->page;
    if (tw_range_fits(r, pages * TW_PAGE_SIZE))
        w->end = (r.start + r.length + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE;
    if (w->end <= w->start)
        w->end = w->start + 1; /* always on, whatever the host says */
}

bool tw_source_walk_next(struct tw_source *s, uint64_t *page)
{
    struct tw_data_walk *w = &s->copy.walk;
    while (w->page < s->hashes.pages) {
        if (w->page >= w->end)
            next_range(s);
        if (w->page < w->start)
            w->page = tw_line_hashes_next_sent(&s->hashes, w->page, w->start);
        if (w->page < s->hashes.pages) {
            *page = w->page++;
            return true;
        }
    }
    return false;
}

/* ---- Chunks ---------------------------------------------------------------------------------- */

static bool wait_until(struct tw_source *s, uint64_t when_ns)
{
    s->copy.retry_ns = when_ns;
    return false;
}

/* A buffer on the bulk lane, when limit and credit allow. */
static uint8_t *begin_chunk(struct tw_source *s, uint64_t now_ns)
{
    uint64_t ready = tw_throttle_ready_ns(&s->throttle, now_ns);
    if (ready > now_ns) {
        uint64_t chunks = tw_conn_in_flight(s->conn, TW_LANE_BULK);
        tw_meter_held_back(&s->meter, chunks * TW_CHUNK_PAYLOAD, now_ns);
        wait_until(s, ready);
        return NULL;
    }
    uint8_t *payload = tw_conn_chunk_begin(s->conn, TW_LANE_BULK);
    if (!payload)
        wait_until(s, tw_after(now_ns, TW_BLOCKED_NS));
    return payload;
}

static bool send_chunk(struct tw_source *s, const struct tw_chunk_header *header, uint64_t now_ns)
{
    struct tw_error err;
    uint64_t bytes = sizeof *header + header->length;
    if (tw_conn_chunk_send(s->conn, TW_LANE_BULK, header, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return wait_until(s, now_ns);
    }
    tw_throttle_spend(&s->throttle, bytes);
    tw_meter_sent(&s->meter, bytes, now_ns);
    return true;
}

static bool open_chunk(struct tw_source *s, uint64_t now_ns)
{
    struct tw_copy *c = &s->copy;
    if (c->payload)
        return true;
    c->payload = begin_chunk(s, now_ns);
    if (!c->payload)
        return false;
    tw_chunk_writer_init(&c->writer, c->payload);
    return true;
}

static void count_record(struct tw_control_totals *t, const struct tw_record *r, int sign)
{
    uint64_t one = (uint64_t)(int64_t)sign; /* counts wrap both ways */
    if (r->kind == TW_RECORD_LINES)
        t->lines += one * tw_popcount(r->bitmap);
    else if (r->kind == TW_RECORD_ZERO_LINES)
        t->zero_lines += one * tw_popcount(r->bitmap);
    else
        t->zero_pages += one * r->pages;
}

/* Test only: takes the first record with data out of a chunk that is complete. */
static void drop_one(struct tw_source *s)
{
    struct tw_copy *c = &s->copy;
    struct tw_record_reader reader;
    struct tw_record record;
    tw_record_reader_init(&reader, c->payload, c->writer.length, s->host->memory_bytes);
    const uint8_t *start = reader.at;
    while (tw_record_next(&reader, &record, NULL) == TW_OK) {
        if (record.kind == TW_RECORD_LINES) {
            if (s->mutations.drop_uncounted)
                count_record(&c->totals, &record, -1);
            memmove(c->payload + (start - c->payload), reader.at, (size_t)(reader.end - reader.at));
            c->writer.length -= (uint32_t)(reader.at - start);
            c->writer.count--;
            s->mutations.drop_record = false;
            return;
        }
        start = reader.at;
    }
}

/* Reads back what is about to be sent: that, and not the memory, which may have changed since, is
 * what the destination will hold. */
static void note_sent(struct tw_source *s)
{
    struct tw_copy *c = &s->copy;
    struct tw_record_reader reader;
    struct tw_record record;
    tw_record_reader_init(&reader, c->payload, c->writer.length, s->host->memory_bytes);
    while (tw_record_next(&reader, &record, NULL) == TW_OK) {
        tw_line_hashes_record(&s->hashes, &record);
        count_record(&c->totals, &record, 1);
    }
    tw_meter_round(&s->meter)->zero_lines += c->writer.zero_lines;
}

static bool send_lines(struct tw_source *s, uint64_t now_ns)
{
    struct tw_copy *c = &s->copy;
    note_sent(s);
    if (s->mutations.drop_record)
        drop_one(s);
    struct tw_chunk_header header = {.kind = TW_CHUNK_LINES,
                                     .length = c->writer.length,
                                     .count = c->writer.count,
                                     .tag = s->round};
    c->payload = NULL;
    tw_meter_round(&s->meter)->bytes += sizeof header + header.length;
    return send_chunk(s, &header, now_ns);
}

bool tw_source_pump(struct tw_source *s, uint64_t now_ns)
{
    struct tw_copy *c = &s->copy;
    while (c->lines) {
        if (!open_chunk(s, now_ns))
            return false;
        c->lines =
            tw_chunk_writer_add(&c->writer, c->page * TW_PAGE_SIZE, page_at(s, c->page), c->lines);
        if (c->lines && !send_lines(s, now_ns))
            return false;
    }
    return true;
}

static bool page_is_zero(const uint8_t *page)
{
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++)
        if (!tw_is_zero_line(page + i * TW_LINE_SIZE))
            return false;
    return true;
}

void tw_source_put(struct tw_source *s, uint64_t page, uint64_t lines)
{
    struct tw_copy *c = &s->copy;
    struct tw_round *round = tw_meter_round(&s->meter);
    unsigned count = tw_popcount(lines);
    if (s->rest.marking) {
        tw_line_set_add(&s->rest.lines, page, lines);
        return;
    }
    c->page = page;
    c->lines = lines;
    c->round_cost += tw_dirty_cost(1, count);
    round->pages++;
    round->lines += count;
    s->meter.p.bytes_if_pages += tw_page_cost(page_is_zero(page_at(s, page)));
    uint64_t work = (uint64_t)count * TW_LINE_SIZE;
    c->slice -= work < c->slice ? work : c->slice;
}

bool tw_source_flush(struct tw_source *s, uint64_t now_ns)
{
    struct tw_copy *c = &s->copy;
    if (!tw_source_pump(s, now_ns))
        return false;
    if (c->payload && c->writer.length)
        return send_lines(s, now_ns);
    tw_source_copy_drop(s);
    return true;
}

void tw_source_copy_drop(struct tw_source *s)
{
    if (s->copy.payload && s->conn)
        tw_conn_chunk_release(s->conn, TW_LANE_BULK);
    s->copy.payload = NULL;
}

bool tw_source_say(struct tw_source *s, enum tw_control_kind kind, const union tw_control *message,
                   bool *said, uint64_t now_ns)
{
    struct tw_error err;
    if (*said)
        return true;
    enum tw_code code = tw_control_send(s->conn, kind, message, &err);
    if (code == TW_RESOURCE_EXHAUSTED)
        return wait_until(s, tw_after(now_ns, TW_BLOCKED_NS));
    if (code != TW_OK) {
        tw_source_abort(s, &err);
        return wait_until(s, now_ns);
    }
    *said = true;
    return true;
}

bool tw_source_send_state(struct tw_source *s, uint64_t now_ns)
{
    uint8_t *payload = begin_chunk(s, now_ns);
    if (!payload)
        return false;
    size_t left = s->device_state.size - s->state_sent;
    uint32_t length = left < TW_CHUNK_PAYLOAD ? (uint32_t)left : TW_CHUNK_PAYLOAD;
    memcpy(payload, s->device_state.data + s->state_sent, length);
    struct tw_chunk_header header = {.kind = TW_CHUNK_BLOB, .length = length};
    if (!send_chunk(s, &header, now_ns))
        return false;
    s->state_sent += length;
    s->meter.p.bytes_device_state += sizeof header + length;
    return true;
}

/* ---- Rounds ---------------------------------------------------------------------------------- */

void tw_source_round_begin(struct tw_source *s, uint32_t index, bool final, uint64_t now_ns)
{
    s->round = index;
    s->copy.round_cost = 0;
    s->copy.round_said = false;
    tw_meter_round_begin(&s->meter, index, final, now_ns);
}

bool tw_source_round_end(struct tw_source *s, uint64_t now_ns)
{
    if (!tw_source_flush(s, now_ns))
        return false;
    if (!s->copy.round_said)
        tw_meter_round_end(&s->meter, now_ns);
    const struct tw_round *r = tw_meter_round(&s->meter);
    union tw_control message = {.round_end = {.lines = r->lines,
                                              .pages = r->pages,
                                              .zero_lines = r->zero_lines,
                                              .bytes = r->bytes,
                                              .duration_ns = r->duration_ns,
                                              .index = r->index,
                                              .final = r->final}};
    return tw_source_say(s, TW_CONTROL_ROUND_END, &message, &s->copy.round_said, now_ns);
}

void tw_source_collect(struct tw_source *s, uint64_t now_ns)
{
    struct tw_tracker_stats stats;
    uint64_t since_ns = now_ns - s->collected_ns;
    s->host->ops->sync(s->host->ctx);
    tw_tracker_stats_get(s->tracker, &stats);
    tw_tracker_collect(s->tracker);
    s->copy.batch_count = s->copy.batch_next = 0;
    s->seen_lines = 0;
    s->dirty_lines = stats.dirty_lines;
    s->collected_ns = now_ns;
    s->interval_ns = since_ns;
    tw_source_pace_round(s);
}

static bool next_dirty(struct tw_source *s, struct tw_dirty_page *out)
{
    struct tw_copy *c = &s->copy;
    if (c->batch_next == c->batch_count) {
        c->batch_count = tw_tracker_read(s->tracker, c->batch, TW_DIRTY_BATCH);
        c->batch_next = 0;
        if (c->batch_count == 0)
            return false;
    }
    for (size_t i = c->batch_next; i < c->batch_count && i < c->batch_next + 6; i++)
        tw_chunk_prefetch(page_at(s, c->batch[i].page), c->batch[i].lines);
    *out = c->batch[c->batch_next++];
    return true;
}

static void put_dirty(struct tw_source *s, const struct tw_dirty_page *d)
{
    uint64_t lines = d->lines;
    uint64_t unseen = tw_found_take(&s->found, d->page) & ~lines;
    if (d->whole_page) /* which of them? The hashes know (R4) */
        lines = tw_line_hashes_differ(&s->hashes, d->page, page_at(s, d->page), lines);
    s->seen_lines += tw_popcount(d->lines);
    tw_source_pace_add(s, d->page, lines);
    s->meter.p.lines_found_by_compare_only += tw_popcount(unseen);
    if (lines | unseen)
        tw_source_put(s, d->page, lines | unseen);
}

bool tw_source_gather_dirty(struct tw_source *s, uint64_t now_ns)
{
    struct tw_dirty_page dirty;
    struct tw_found_page unseen;
    for (;;) {
        if (!tw_source_pump(s, now_ns))
            return false;
        if (s->copy.slice == 0)
            return wait_until(s, now_ns);
        if (next_dirty(s, &dirty)) {
            put_dirty(s, &dirty);
        } else if (tw_found_next(&s->found, &unseen)) {
            s->meter.p.lines_found_by_compare_only += tw_popcount(unseen.lines);
            tw_source_put(s, unseen.page, unseen.lines);
        } else {
            return true;
        }
    }
}
