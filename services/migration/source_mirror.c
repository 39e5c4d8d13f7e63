/* A mirror, seen from the source: what is to follow the VM goes to a third host, too, beside all
 * else that happens while the VM stands still. The VM is not stopped before the mirror is there,
 * and not given up before it has said that it holds every line as it was sent, so that whoever runs
 * it later finds all of its memory at two places. A mirror that is lost before that, or takes
 * nothing for too long, ends the migration, and the VM runs on here; where it is not insisted on
 * (limits.mirror_optional) the VM moves without it. One that is lost later is no reason to stop.
 * Each of these is told. */
#include "services/migration/source.h"

#include "services/migration/line_hash.h"

#include <stdio.h>
#include <string.h>

#define CONNECT_LIMIT_NS (10 * TW_SEC)
#define TAKE_LIMIT_NS    (10 * TW_SEC) /* a mirror that took nothing for so long is none */
#define SLICE            (512u << 10)  /* payload in a step */

/* ---- What the connection tells ------------------------------------------------------------------
 */

static void on_up(void *side)
{
    struct tw_source *s = side;
    s->mirror.up = true;
}

static void refuse(struct tw_source_mirror *m, const struct tw_error *why)
{
    m->trouble = *why;
    m->down = true;
}

static enum tw_code on_chunk(void *side, enum tw_lane lane, const struct tw_chunk_header *header,
                             const uint8_t *payload, struct tw_error *err)
{
    struct tw_source *s = side;
    struct tw_source_mirror *m = &s->mirror;
    union tw_control c;
    struct tw_error why;
    if (header->kind != TW_CHUNK_CONTROL)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, "control", NULL,
                       "a mirror sends its source nothing but control messages");
    enum tw_code code = tw_control_decode(header, lane, payload, &c, err);
    if (code != TW_OK)
        return code;
    if (header->tag == TW_CONTROL_ABORT) {
        tw_control_abort_unpack(&c.abort, &why);
        refuse(m, &why);
        return TW_OK;
    }
    if (header->tag != TW_CONTROL_KEPT || c.epoch.epoch != s->params.epoch || !m->ended || m->kept)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, NULL,
                       tw_machine_state_name(&s->machine), "the mirror sent %s out of place",
                       tw_control_name(header->tag));
    m->kept = true;
    return TW_OK;
}

static void count_bytes(struct tw_source_mirror *m)
{
    struct tw_conn_stats stats;
    if (!m->conn)
        return;
    tw_conn_stats_get(m->conn, &stats);
    m->bytes += stats.bytes_sent;
}

static void on_down(void *side, const struct tw_error *why)
{
    struct tw_source *s = side;
    count_bytes(&s->mirror);
    s->mirror.conn = NULL;
    if (!s->mirror.down && !s->mirror.farewell.until) /* told to let go, it does */
        refuse(&s->mirror, why);
}

/* ---- Begin and end ----------------------------------------------------------------------------
 */

enum tw_code tw_source_mirror_to(struct tw_source *s, struct tw_fabric *fabric, const char *address,
                                 const uint8_t token[TW_OWNER_SIZE], struct tw_error *err)
{
    struct tw_source_mirror *m = &s->mirror;
    struct tw_hello hello = {.epoch = s->params.epoch};
    char where[TW_WHERE_SIZE];
    if (!tw_source_postcopies(s))
        return tw_fail(err, TW_INVALID_ARGUMENT, tw_migration_where(&s->params, where),
                       "hybrid or postcopy", "precopy",
                       "nothing follows the VM: nothing to mirror");
    memcpy(hello.owner, token, TW_OWNER_SIZE);
    m->end = (struct tw_migration_end){on_up, on_chunk, on_down, s};
    m->wanted = true;
    uint64_t deadline_ns = tw_after(tw_now(s->env.clock), CONNECT_LIMIT_NS);
    return tw_fabric_connect(fabric, address, &hello, deadline_ns, &m->end, &m->conn, err);
}

enum tw_code tw_source_mirror_begin(struct tw_source *s, struct tw_error *err)
{
    struct tw_source_mirror *m = &s->mirror;
    const struct tw_line_set *rest = &s->rest.lines;
    if (!m->wanted || m->known)
        return TW_OK;
    enum tw_code code = tw_line_set_open(&m->lines, rest->pages, err);
    for (uint64_t p = 0; code == TW_OK && p < rest->pages; p++)
        if (rest->of_page[p])
            tw_line_set_add(&m->lines, p, rest->of_page[p]);
    uint64_t rate = s->meter.link_rate ? s->meter.link_rate : TW_DEFAULT_RATE;
    uint64_t lines_ns =
        (uint64_t)((unsigned __int128)rest->count * 4 * TW_LINE_SIZE * TW_SEC / rate);
    s->stop_deadline_ns = tw_after(s->stop_deadline_ns, lines_ns);
    m->known = code == TW_OK;
    m->taken_ns = tw_now(s->env.clock);
    return code;
}

void tw_source_mirror_close(struct tw_source *s)
{
    struct tw_source_mirror *m = &s->mirror;
    count_bytes(m);
    tw_conn_close(m->conn);
    m->conn = NULL;
    m->known = false;
    tw_line_set_close(&m->lines);
}

void tw_source_mirror_release(struct tw_source *s)
{
    struct tw_source_mirror *m = &s->mirror;
    const union tw_control release = {.epoch = {.epoch = s->params.epoch}};
    if (!m->up || m->down) {
        tw_source_mirror_close(s);
        return;
    }
    m->known = false;
    tw_line_set_close(&m->lines);
    tw_farewell_say(&m->farewell, TW_CONTROL_RELEASE, &release, tw_now(s->env.clock));
}

bool tw_source_mirror_there(const struct tw_source *s)
{
    return !s->mirror.wanted || s->mirror.up;
}

bool tw_source_mirror_ready(const struct tw_source *s)
{
    return !s->mirror.wanted || s->mutations.skip_mirror_wait || s->mirror.kept;
}

static enum tw_mirrored mirrored(const struct tw_source *s)
{
    if (!s->mirror.wanted)
        return s->mirror.without ? TW_MIRRORED_WITHOUT : TW_MIRRORED_NOT;
    if (!s->mirror.kept)
        return TW_MIRRORED_FILLING;
    return s->mirror.down ? TW_MIRRORED_NO_MORE : TW_MIRRORED;
}

void tw_source_mirror_progress(const struct tw_source *s, struct tw_migration_progress *out)
{
    out->mirrored = mirrored(s);
    snprintf(out->mirror_reason, sizeof out->mirror_reason, "%s",
             out->mirrored > TW_MIRRORED ? s->mirror.trouble.what : "");
}

/* ---- Sending -----------------------------------------------------------------------------------
 */

/* The mirror's connection broke under us: told to the next step like any other loss. */
static bool broken(struct tw_source_mirror *m, enum tw_code code, const struct tw_error *err)
{
    if (code == TW_OK)
        return false;
    if (code != TW_RESOURCE_EXHAUSTED)
        refuse(m, err);
    return true;
}

static bool say(struct tw_source_mirror *m, enum tw_control_kind kind, const union tw_control *c,
                bool *said)
{
    struct tw_error err;
    if (!*said)
        *said = !broken(m, tw_control_send(m->conn, kind, c, &err), &err);
    return *said;
}

static bool send_map(struct tw_source_mirror *m)
{
    struct tw_chunk_writer writer;
    struct tw_error err;
    while (!m->packed) {
        uint8_t *payload = tw_conn_chunk_begin(m->conn, TW_LANE_BULK);
        if (!payload)
            return false;
        tw_chunk_writer_init(&writer, payload);
        tw_line_set_pack(&m->lines, &m->cursor, &writer);
        m->packed = m->cursor >= m->lines.pages;
        if (writer.length == 0) {
            tw_conn_chunk_release(m->conn, TW_LANE_BULK);
            continue;
        }
        struct tw_chunk_header header = {
            .kind = TW_CHUNK_BLOB, .tag = TW_BLOB_MAP, .length = writer.length};
        if (broken(m, tw_conn_chunk_send(m->conn, TW_LANE_BULK, &header, &err), &err))
            return false;
    }
    const union tw_control end = {.map_end = {.lines = m->lines.count, .final = 1}};
    if (!say(m, TW_CONTROL_MAP_END, &end, &m->mapped))
        return false;
    m->cursor = 0;
    return true;
}

/* A chunk as full as it gets; false when there is no credit, or the connection has broken. */
static bool send_chunk(struct tw_source *s, uint32_t *length, uint64_t now_ns)
{
    struct tw_source_mirror *m = &s->mirror;
    struct tw_chunk_writer writer;
    struct tw_error err;
    uint8_t *payload = tw_conn_chunk_begin(m->conn, TW_LANE_BULK);
    if (!payload)
        return false;
    m->taken_ns = now_ns;
    tw_chunk_writer_init(&writer, payload);
    for (bool full = false; m->lines.count && !full;) {
        uint64_t page = tw_line_set_next(&m->lines, m->cursor), lines = m->lines.of_page[page];
        const uint8_t *bytes = s->host->memory + page * TW_PAGE_SIZE;
        uint64_t left = tw_chunk_writer_add(&writer, page * TW_PAGE_SIZE, bytes, lines);
        uint64_t taken = tw_line_set_take(&m->lines, page, lines & ~left);
        m->digest += tw_lines_digest(page, bytes, taken);
        m->sent += tw_popcount(taken);
        m->cursor = page;
        full = left != 0;
    }
    *length = writer.length;
    struct tw_chunk_header header = {
        .kind = TW_CHUNK_LINES, .length = writer.length, .count = writer.count};
    return !broken(m, tw_conn_chunk_send(m->conn, TW_LANE_BULK, &header, &err), &err);
}

/* Returns when to go on; TW_NEVER when all was sent. */
static uint64_t fill(struct tw_source *s, uint64_t now_ns)
{
    struct tw_source_mirror *m = &s->mirror;
    const uint64_t later_ns = tw_after(now_ns, TW_BLOCKED_NS);
    const union tw_control begin = {.begin = {.memory_bytes = s->host->memory_bytes,
                                              .epoch = s->params.epoch,
                                              .verify = 1,
                                              .method = (uint32_t)s->limits.method}};
    if (m->ended)
        return TW_NEVER;
    if (!say(m, TW_CONTROL_BEGIN, &begin, &m->begun) || (!m->mapped && !send_map(m)))
        return later_ns;
    for (uint32_t sent = 0, length = 0; m->lines.count; sent += length) {
        if (sent >= SLICE)
            return now_ns;
        if (!send_chunk(s, &length, now_ns))
            return later_ns;
    }
    const union tw_control end = {
        .keep_end = {.epoch = s->params.epoch, .lines = m->sent, .digest = m->digest}};
    return say(m, TW_CONTROL_KEEP_END, &end, &m->ended) ? TW_NEVER : later_ns;
}

/* When a mirror that is there and has not all yet is taken for lost. */
static uint64_t overdue_ns(const struct tw_source_mirror *m)
{
    return m->known && !m->kept && !m->down ? tw_after(m->taken_ns, TAKE_LIMIT_NS) : TW_NEVER;
}

static void lose(struct tw_source *s)
{
    struct tw_source_mirror *m = &s->mirror;
    struct tw_error why;
    char where[TW_WHERE_SIZE];
    tw_fail(&why, m->trouble.code ? m->trouble.code : TW_UNAVAILABLE,
            tw_migration_where(&s->params, where), m->trouble.expected, m->trouble.given,
            "the VM does not move without its mirror: %.140s", m->trouble.what);
    tw_source_mirror_close(s);
    m->wanted = false; /* said once */
    m->without = s->limits.mirror_optional;
    if (!m->without)
        tw_source_abort(s, &why);
}

uint64_t tw_source_mirror_step(struct tw_source *s, uint64_t now_ns)
{
    struct tw_source_mirror *m = &s->mirror;
    struct tw_conn_stats stats = {0};
    struct tw_error late;
    char where[TW_WHERE_SIZE];
    if (!m->wanted)
        return TW_NEVER;
    if (now_ns >= overdue_ns(m) && tw_source_is_before_give_up(s)) {
        tw_fail(&late, TW_DEADLINE_EXCEEDED, tw_migration_where(&s->params, where), NULL, NULL,
                "the mirror has taken nothing for 10 s");
        refuse(m, &late);
    }
    if (m->down && tw_source_is_before_give_up(s)) {
        lose(s);
        return now_ns;
    }
    if (m->down && m->conn)
        tw_source_mirror_close(s);
    if (m->farewell.until && m->conn)
        return tw_farewell_step(&m->farewell, &m->conn, now_ns);
    if (!m->conn)
        return TW_NEVER;
    uint64_t due = m->up && m->known && !m->down ? fill(s, now_ns) : TW_NEVER;
    if (overdue_ns(m) < due)
        due = overdue_ns(m);
    if (m->conn)
        tw_conn_stats_get(m->conn, &stats);
    s->meter.p.mirror_lines = m->sent;
    s->meter.p.mirror_bytes = m->bytes + stats.bytes_sent;
    return due;
}
