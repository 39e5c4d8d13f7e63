/* Post-copy, seen from the source: the lines that the destination lacks are named before the
 * hand-over and then sent, each once: those that the guest waits for on the urgent lane, all others
 * in the background. A line leaves the set before it is read, and the VM stands still, so there is
 * nothing newer than what is sent. */
#include "services/migration/source.h"

#include <string.h>

#define MARK_PAGES     (1u << 16)  /* in a step */
#define REST_CHUNK     (16u << 10) /* payload: what a demand on a line under way has to wait for */
#define REST_IN_FLIGHT 8u          /* chunks */
#define REST_SLICE     (64u << 10) /* bytes in a step: the next demand is looked for behind it */
#define DEMANDED_CHUNK (8u << 10)  /* both, while demands come */
#define DEMANDED_NS    (2 * TW_MS) /* ... which they do for so long after the last */
#define WHOLE_LIMIT_NS (30 * TW_SEC) /* from the last line to the destination's word */

enum tw_code tw_source_rest_begin(struct tw_source *s, struct tw_error *err)
{
    tw_line_set_close(&s->rest.lines);
    enum tw_code code = tw_line_set_open(&s->rest.lines, s->hashes.pages, err);
    s->rest.marking = code == TW_OK;
    s->rest.marked = s->rest.packed = false;
    s->rest.cursor = 0;
    tw_source_walk_begin(s);
    return code;
}

void tw_source_rest_close(struct tw_source *s)
{
    tw_line_set_close(&s->rest.lines);
    tw_line_set_close(&s->rest.asked);
    tw_foresight_close(&s->rest.foresight);
    s->rest.marking = s->rest.map_said = s->rest.asking = false;
    s->rest.count = 0;
}

bool tw_source_mark_all(struct tw_source *s, uint64_t now_ns)
{
    uint64_t page;
    (void)now_ns;
    for (unsigned n = 0; !s->rest.marked; n++) {
        if (n == MARK_PAGES)
            return false;
        s->rest.marked = !tw_source_walk_next(s, &page);
        if (!s->rest.marked)
            tw_source_put(s, page, TW_ALL_LINES);
    }
    return true;
}

/* ---- The map ----------------------------------------------------------------------------------
 */

static bool send_now(struct tw_source *s, enum tw_lane lane, struct tw_chunk_header *header,
                     uint64_t now_ns)
{
    struct tw_error err;
    uint64_t bytes = sizeof *header + header->length;
    if (tw_conn_chunk_send(s->conn, lane, header, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return false;
    }
    tw_throttle_spend(&s->throttle, bytes);
    tw_meter_sent(&s->meter, bytes, now_ns);
    return true;
}

/* True when the whole set was sent as a map, and its end told. */
static bool send_map(struct tw_source *s, bool final, bool *said, uint64_t now_ns)
{
    struct tw_rest *r = &s->rest;
    struct tw_chunk_writer writer;
    while (!r->packed) {
        uint8_t *payload = tw_conn_chunk_begin(s->conn, TW_LANE_BULK);
        if (!payload) {
            s->copy.retry_ns = tw_after(now_ns, TW_BLOCKED_NS);
            return false;
        }
        tw_chunk_writer_init(&writer, payload);
        tw_line_set_pack(&r->lines, &r->cursor, &writer);
        r->packed = r->cursor >= r->lines.pages;
        if (writer.length == 0) {
            tw_conn_chunk_release(s->conn, TW_LANE_BULK);
            continue;
        }
        struct tw_chunk_header header = {
            .kind = TW_CHUNK_BLOB, .tag = TW_BLOB_MAP, .length = writer.length};
        if (!send_now(s, TW_LANE_BULK, &header, now_ns))
            return false;
    }
    union tw_control end = {.map_end = {.lines = r->lines.count, .final = final}};
    return tw_source_say(s, TW_CONTROL_MAP_END, &end, said, now_ns);
}

uint64_t tw_source_step_announcing(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    union tw_control begin = {.begin = {.memory_bytes = s->host->memory_bytes,
                                        .epoch = s->params.epoch,
                                        .verify = !s->limits.skip_verify,
                                        .method = (uint32_t)s->limits.method}};
    if (!s->rest.marking && tw_source_rest_begin(s, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return now_ns;
    }
    if (!tw_source_say(s, TW_CONTROL_BEGIN, &begin, &s->begin_said, now_ns))
        return s->copy.retry_ns;
    if (!tw_source_mark_all(s, now_ns))
        return now_ns;
    if (!send_map(s, false, &s->rest.announced, now_ns))
        return s->copy.retry_ns;
    if (!s->rest.room || !tw_source_mirror_there(s))
        return TW_NEVER;
    tw_source_stop(s, "the destination has room", now_ns);
    return now_ns;
}

/* What is to come is no part of the digest that the destination compares before it runs. */
static void take_from_digest(struct tw_source *s)
{
    const struct tw_line_set *set = &s->rest.lines;
    if (s->limits.method != TW_METHOD_HYBRID || s->limits.skip_verify)
        return;
    for (uint64_t p = tw_line_set_next(set, 0); p < set->pages; p = tw_line_set_next(set, p + 1))
        s->digest -= tw_lines_digest(p, s->host->memory + p * TW_PAGE_SIZE, set->of_page[p]);
}

uint64_t tw_source_step_sending_map(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    if (s->rest.marking)
        take_from_digest(s);
    s->rest.marking = false;
    if (!send_map(s, true, &s->rest.map_said, now_ns))
        return s->machine.state == TW_SOURCE_SENDING_MAP ? s->copy.retry_ns : now_ns;
    s->meter.p.lines_to_come = s->rest.lines.count;
    s->rest.cursor = 0;
    if (tw_source_mirror_begin(s, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return now_ns;
    }
    return tw_source_finish_lines(s, now_ns);
}

/* ---- Lines ------------------------------------------------------------------------------------
 */

/* Takes lines out of the set and puts them into a chunk that has room for a whole page. */
static uint64_t put_lines(struct tw_source *s, struct tw_chunk_writer *w, uint64_t page,
                          uint64_t lines)
{
    const uint8_t *bytes = s->host->memory + page * TW_PAGE_SIZE;
    uint64_t taken = tw_line_set_take(&s->rest.lines, page, lines);
    if (taken == 0)
        return 0;
    tw_chunk_writer_add(w, page * TW_PAGE_SIZE, bytes, taken);
    if (!s->limits.skip_verify)
        s->rest.digest += tw_lines_digest(page, bytes, taken);
    return taken;
}

static bool send_rest(struct tw_source *s, enum tw_lane lane, enum tw_rest_tag why,
                      const struct tw_chunk_writer *w, uint64_t now_ns)
{
    struct tw_chunk_header header = {
        .kind = TW_CHUNK_LINES, .length = w->length, .count = w->count, .tag = why};
    s->rest.sent_ns = now_ns;
    return send_now(s, lane, &header, now_ns);
}

/* The line that was touched first, then the rest of what the page lacks. Demands know no bandwidth
 * limit: somebody waits. */
static bool answer(struct tw_source *s, uint64_t now_ns)
{
    struct tw_rest *r = &s->rest;
    const struct tw_control_want *want = &r->wants[r->first];
    struct tw_chunk_writer writer;
    uint8_t *payload = tw_conn_chunk_begin(s->conn, TW_LANE_URGENT);
    if (!payload) {
        r->retry_ns = tw_after(now_ns, TW_BLOCKED_NS);
        return false;
    }
    tw_chunk_writer_init(&writer, payload);
    uint64_t sent =
        put_lines(s, &writer, want->page, want->lines & (UINT64_C(1) << want->critical));
    sent |= put_lines(s, &writer, want->page, want->lines);
    if (s->mutations.send_twice)
        tw_line_set_add(&r->lines, want->page, sent);
    tw_foresight_miss(&r->foresight, want->page, r->lines.of_page[want->page] != 0);
    r->first = (r->first + 1) % TW_WANTS_MAX;
    r->count--;
    if (sent == 0) { /* all of it is under way already */
        tw_conn_chunk_release(s->conn, TW_LANE_URGENT);
        return true;
    }
    s->meter.p.lines_on_demand += tw_popcount(sent);
    s->meter.p.bytes_on_demand += sizeof(struct tw_chunk_header) + writer.length;
    return send_rest(s, TW_LANE_URGENT, TW_REST_WANTED, &writer, now_ns);
}

/* False when the lane has no room now, or the connection has broken. */
static bool answer_all(struct tw_source *s, uint64_t now_ns)
{
    while (s->rest.count)
        if (!answer(s, now_ns))
            return false;
    return true;
}

/* The next page of the background: what is likely to be touched, then by address. */
static bool next_page(struct tw_rest *r, enum tw_rest_tag why, uint64_t *page)
{
    if (why == TW_REST_AHEAD)
        return tw_foresight_next(&r->foresight, &r->lines, page);
    if (r->lines.count == 0)
        return false;
    *page = tw_line_set_next(&r->lines, r->cursor);
    if (*page == r->lines.pages)
        *page = tw_line_set_next(&r->lines, 0);
    r->cursor = *page + 1;
    return true;
}

static bool send_background(struct tw_source *s, uint32_t most, uint64_t now_ns)
{
    struct tw_rest *r = &s->rest;
    struct tw_chunk_writer writer;
    uint64_t page, ready_ns = tw_throttle_ready_ns(&s->throttle, now_ns);
    if (ready_ns > now_ns) {
        r->retry_ns = ready_ns;
        return false;
    }
    uint8_t *payload = tw_conn_in_flight(s->conn, TW_LANE_BULK) < REST_IN_FLIGHT
                           ? tw_conn_chunk_begin(s->conn, TW_LANE_BULK)
                           : NULL;
    if (!payload) {
        r->retry_ns = tw_after(now_ns, TW_BLOCKED_NS);
        return false;
    }
    tw_chunk_writer_init(&writer, payload);
    enum tw_rest_tag why = TW_REST_AHEAD;
    while (writer.length < most && next_page(r, why, &page))
        put_lines(s, &writer, page, TW_ALL_LINES);
    if (writer.length == 0)
        why = TW_REST_IN_TURN;
    while (writer.length < most && why == TW_REST_IN_TURN && next_page(r, why, &page))
        put_lines(s, &writer, page, TW_ALL_LINES);
    return send_rest(s, TW_LANE_BULK, why, &writer, now_ns);
}

uint64_t tw_source_serve(struct tw_source *s, uint64_t now_ns)
{
    struct tw_rest *r = &s->rest;
    if (!r->map_said || !s->conn || s->farewell.until)
        return TW_NEVER;
    if (!answer_all(s, now_ns))
        return s->conn && r->map_said ? r->retry_ns : now_ns;
    /* What came while the destination loads and compares would only keep it from that, and be
     * compared once more, while the guest stands still. */
    if (!s->state_said || (s->machine.state == TW_SOURCE_VERIFYING && !s->prepared))
        return TW_NEVER;
    if (!r->limited) /* it was lifted for what prolongs the pause; this does not */
        tw_throttle_set(&s->throttle, s->limits.bandwidth_bytes_per_s, now_ns);
    r->limited = true;
    if (tw_source_is_paused(s, now_ns))
        return tw_after(s->paused_since_ns, TW_PAUSE_LIMIT_NS);
    bool demanded = r->wanted_ns && now_ns < tw_after(r->wanted_ns, DEMANDED_NS);
    uint32_t chunk = demanded ? DEMANDED_CHUNK : REST_CHUNK;
    uint32_t slice = demanded ? DEMANDED_CHUNK : REST_SLICE;
    for (uint32_t sent = 0; r->lines.count && sent < slice; sent += chunk)
        if (!send_background(s, chunk, now_ns))
            return s->conn && r->map_said ? r->retry_ns : now_ns;
    return r->lines.count ? now_ns : TW_NEVER;
}

/* ---- What the destination says ----------------------------------------------------------------
 */

bool tw_source_rest_hears(struct tw_source *s, uint32_t kind, const union tw_control *m)
{
    struct tw_rest *r = &s->rest;
    if (kind == TW_CONTROL_ROOM && m->epoch.epoch == s->params.epoch) {
        r->room = s->machine.state == TW_SOURCE_ANNOUNCING && r->announced;
        return r->room;
    }
    /* A demand may overtake the map of what is missing; it is answered behind it. */
    bool mapped = r->map_said || r->asking;
    if (kind == TW_CONTROL_WANT && mapped && m->want.page < s->host->memory_bytes / TW_PAGE_SIZE &&
        r->count < TW_WANTS_MAX) {
        r->wants[(r->first + r->count++) % TW_WANTS_MAX] = m->want;
        r->wanted_ns = tw_now(s->env.clock);
        if (r->map_said && !s->farewell.until) /* at once: the next step may be some chunks away */
            answer_all(s, r->wanted_ns);
        return true;
    }
    if (kind == TW_CONTROL_WHOLE && r->map_said && m->whole.epoch == s->params.epoch &&
        s->running) {
        r->whole = true;
        r->report = m->whole;
        return true;
    }
    return false;
}

/* ---- The VM runs over there -------------------------------------------------------------------
 */

static void judge(struct tw_source *s)
{
    struct tw_migration_progress *p = &s->meter.p;
    const struct tw_control_whole *w = &s->rest.report;
    char where[TW_WHERE_SIZE];
    bool compared = !s->limits.skip_verify && !s->rest.partly_compared;
    bool equal = !s->rest.wrong && w->lines == p->lines_to_come &&
                 (s->limits.skip_verify || w->digest == s->rest.digest);
    p->faults = w->faults;
    p->fault_p50_ns = w->fault_p50_ns;
    p->fault_p99_ns = w->fault_p99_ns;
    s->rest.foresight.figures.watched = w->ahead_watched;
    s->rest.foresight.figures.touched = w->ahead_touched;
    p->memory_compared = compared;
    p->memory_equal = compared && equal;
    if (equal)
        return;
    tw_fail(&s->error, TW_DATA_LOSS, tw_migration_where(&s->params, where), NULL, NULL,
            "what followed the VM did not arrive as it was sent: its memory is wrong");
    s->failed = s->rest.wrong = true;
}

uint64_t tw_source_step_serving(struct tw_source *s, uint64_t now_ns)
{
    if (!s->rest.whole) {
        uint64_t limit_ns = tw_after(s->rest.sent_ns, WHOLE_LIMIT_NS);
        if (!s->conn)
            return TW_NEVER; /* a decision from outside */
        if (s->rest.lines.count || now_ns < limit_ns)
            return limit_ns > now_ns ? limit_ns : TW_NEVER;
        return tw_source_fail(s, TW_DEADLINE_EXCEEDED,
                              "the destination does not say that its memory is whole");
    }
    if (now_ns < s->retry_ns)
        return s->retry_ns;
    if (s->meter.p.fetch_ns == 0) {
        s->meter.p.fetch_ns = now_ns - s->phase_ns;
        judge(s);
    }
    struct tw_error err;
    if (s->env.journal(s->env.ctx, TW_HAND_OVER_COMMITTED, &err) == TW_OK) {
        tw_source_complete(s, "the destination has all of the VM");
        return now_ns;
    }
    s->retry_ns = tw_after(now_ns, TW_RETRY_NS);
    return s->retry_ns;
}
