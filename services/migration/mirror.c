#include "services/migration/mirror.h"

#include "base/fault.h"
#include "services/migration/big_array.h"
#include "services/migration/line_hash.h"
#include "services/migration/line_set.h"
#include "services/migration/mutations.h"
#include "services/migration/side.h"
#include "services/migration/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_SLACK_NS  (30 * TW_SEC) /* the source's limit comes first, and says why */
#define CONNECT_TIMEOUT_NS (30 * TW_SEC)

enum mirror_state {
    MIRROR_NEW,
    MIRROR_WAITING,
    MIRROR_FILLING,
    MIRROR_HOLDING,
    MIRROR_SERVING,
    MIRROR_RELEASED,
    MIRROR_STATES
};

struct tw_mirror {
    struct tw_migration_end end; /* the face of the source's connection */
    struct tw_machine machine;
    struct tw_migration_env env;
    struct tw_migration_params params;
    struct tw_migration_mutations mutations;
    uint64_t memory_bytes, pages;
    uint64_t *memory; /* appears as it is written; NULL = let go */
    uint64_t *filled; /* bitmap: pages that hold something */
    struct tw_line_set named, missing;
    uint64_t digest, bytes_held, deadline_ns;
    struct tw_conn *conn; /* of the source */
    struct tw_farewell farewell;

    /* What the connection told; handled by the next step. */
    bool begun, mapped, ended, down, release_asked;
    struct tw_control_keep_end last;

    bool kept_said, failed;
    struct tw_error error;

    /* Towards a destination this side is what its source was: what follows the VM. */
    struct tw_host host;
    struct tw_source *heir;
    bool whole;
};

/* ---- The table ------------------------------------------------------------------------------- */

static bool holds_all(const void *object)
{
    const struct tw_mirror *m = object;
    return m->memory && m->ended && m->missing.count == 0;
}

static bool holds_nothing(const void *object)
{
    const struct tw_mirror *m = object;
    return !m->memory;
}

static const struct tw_state states[MIRROR_STATES] = {
    [MIRROR_NEW] = {"new", TW_MAY(MIRROR_WAITING), "just made", NULL},
    [MIRROR_WAITING] = {"waiting", TW_MAY(MIRROR_FILLING) | TW_MAY(MIRROR_RELEASED),
                        "for the source to connect", NULL},
    [MIRROR_FILLING] = {"filling", TW_MAY(MIRROR_HOLDING) | TW_MAY(MIRROR_RELEASED),
                        "what is to follow the VM comes in; of no use yet", NULL},
    [MIRROR_HOLDING] = {"holding", TW_MAY(MIRROR_SERVING) | TW_MAY(MIRROR_RELEASED),
                        "all that is to follow the VM is here, compared", holds_all},
    [MIRROR_SERVING] = {"serving", TW_MAY(MIRROR_RELEASED),
                        "the destination has lost its source and gets the rest from here",
                        holds_all},
    [MIRROR_RELEASED] = {"released", 0, "nothing is held any more", holds_nothing},
};

const struct tw_machine_table tw_mirror_table = {"mirror", states, MIRROR_STATES};

static void let_go(struct tw_mirror *m)
{
    tw_source_free(m->heir);
    m->heir = NULL;
    tw_big_array_close(m->memory, m->memory_bytes / sizeof *m->memory);
    tw_big_array_close(m->filled, m->pages / 64 + 1);
    m->memory = m->filled = NULL;
    tw_line_set_close(&m->named);
    tw_line_set_close(&m->missing);
    m->bytes_held = 0;
}

static void end(struct tw_mirror *m, const char *why)
{
    if (tw_machine_done(&m->machine))
        return;
    let_go(m);
    if (!m->farewell.until) {
        tw_conn_close(m->conn);
        m->conn = NULL;
    }
    tw_machine_move(&m->machine, MIRROR_RELEASED, why);
}

/* The source is told why: it keeps its VM then. */
static void fail(struct tw_mirror *m, const struct tw_error *why)
{
    union tw_control c;
    m->error = *why;
    m->failed = true;
    tw_control_abort_pack(&c.abort, why, false);
    tw_farewell_say(&m->farewell, TW_CONTROL_ABORT, &c, tw_now(m->env.clock));
    end(m, why->what);
}

static void fail_for(struct tw_mirror *m, enum tw_code code, const char *what)
{
    struct tw_error why;
    char where[TW_WHERE_SIZE];
    tw_fail(&why, code, tw_migration_where(&m->params, where), NULL, NULL, "%s", what);
    fail(m, &why);
}

/* ---- What the source sends --------------------------------------------------------------------
 */

static enum tw_code out_of_place(const struct tw_mirror *m, const char *what, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    return tw_fail(err, TW_INVALID_ARGUMENT, tw_migration_where(&m->params, where), NULL,
                   tw_machine_state_name(&m->machine), "the source sent %s out of place", what);
}

/* Each line was named and has not come yet: checked as a whole before any of it is used. */
static enum tw_code check_lines(const struct tw_mirror *m, const struct tw_chunk_header *header,
                                const uint8_t *payload, struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record r;
    enum tw_code code;
    uint64_t before = UINT64_MAX; /* in order of pages, so no line twice in a chunk either */
    tw_record_reader_init(&reader, payload, header->length, m->memory_bytes);
    while ((code = tw_record_next(&reader, &r, err)) == TW_OK) {
        uint64_t page = tw_page_of(r.page_address), last = page + r.pages - 1;
        uint64_t lines = r.kind == TW_RECORD_ZERO_PAGES ? TW_ALL_LINES : r.bitmap;
        if (before != UINT64_MAX && page < before)
            return out_of_place(m, "pages in disorder", err);
        for (uint64_t p = page; p <= last; p++)
            if (lines & ~m->missing.of_page[p])
                return out_of_place(m, "a line that is not missing", err);
        before = last;
    }
    if (code != TW_NOT_FOUND)
        return code;
    return reader.index == header->count ? TW_OK
                                         : tw_fail(err, TW_DATA_LOSS, m->params.id, NULL, NULL,
                                                   "number of records differs from the header");
}

static uint8_t *page_at(const struct tw_mirror *m, uint64_t page)
{
    return (uint8_t *)m->memory + page * TW_PAGE_SIZE;
}

static void note_filled(struct tw_mirror *m, uint64_t page)
{
    const uint64_t bit = UINT64_C(1) << (page % 64);
    if (!(m->filled[page / 64] & bit))
        m->bytes_held += TW_PAGE_SIZE;
    m->filled[page / 64] |= bit;
}

/* False: a line came twice in this chunk, in two records of one page. */
static bool store(struct tw_mirror *m, const struct tw_record *r)
{
    uint64_t page = tw_page_of(r->page_address);
    uint64_t lines = r->kind == TW_RECORD_ZERO_PAGES ? TW_ALL_LINES : r->bitmap;
    const uint8_t *from = r->lines;
    for (uint64_t p = page; p < page + r->pages; p++) {
        if (tw_line_set_take(&m->missing, p, lines) != lines)
            return false;
        if (r->kind != TW_RECORD_LINES)
            continue; /* zeros are what is there */
        note_filled(m, p);
        if (m->mutations.keep_wrong)
            continue;
        for (uint64_t left = lines; left; left &= left - 1, from += TW_LINE_SIZE)
            memcpy(page_at(m, p) + (unsigned)__builtin_ctzll(left) * TW_LINE_SIZE, from,
                   TW_LINE_SIZE);
        m->digest += tw_lines_digest(p, page_at(m, p), lines);
    }
    return true;
}

static enum tw_code take_lines(struct tw_mirror *m, const struct tw_chunk_header *header,
                               const uint8_t *payload, struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record r;
    if (!m->mapped || m->ended)
        return out_of_place(m, "lines", err);
    enum tw_code code = check_lines(m, header, payload, err);
    tw_record_reader_init(&reader, payload, header->length, m->memory_bytes);
    while (code == TW_OK && tw_record_next(&reader, &r, NULL) == TW_OK)
        if (!store(m, &r))
            code = out_of_place(m, "a line twice", err);
    return code;
}

static enum tw_code take_map(struct tw_mirror *m, const struct tw_chunk_header *header,
                             const uint8_t *payload, struct tw_error *err)
{
    if (!m->begun || m->mapped || header->tag != TW_BLOB_MAP)
        return out_of_place(m, "a map", err);
    return tw_line_set_unpack(&m->named, payload, header->length, err);
}

static enum tw_code take_begin(struct tw_mirror *m, const struct tw_control_begin *b,
                               struct tw_error *err)
{
    char where[TW_WHERE_SIZE], expected[32], given[32];
    if (m->begun)
        return out_of_place(m, "begin", err);
    snprintf(expected, sizeof expected, "%" PRIu64, m->memory_bytes);
    snprintf(given, sizeof given, "%" PRIu64, b->memory_bytes);
    if (b->memory_bytes != m->memory_bytes || b->epoch != m->params.epoch)
        return tw_fail(err, TW_INVALID_ARGUMENT, tw_migration_where(&m->params, where), expected,
                       given, "another memory size or epoch than prepared for");
    if (b->method == TW_METHOD_PRE_COPY)
        return out_of_place(m, "a pre-copy", err);
    m->params.limits.method = (enum tw_migration_method)b->method;
    m->begun = true;
    return TW_OK;
}

static enum tw_code take_map_end(struct tw_mirror *m, const struct tw_control_map_end *e,
                                 struct tw_error *err)
{
    if (!m->begun || m->mapped || !e->final || e->lines != m->named.count)
        return out_of_place(m, "the end of a map", err);
    for (uint64_t p = tw_line_set_next(&m->named, 0); p < m->pages;
         p = tw_line_set_next(&m->named, p + 1))
        tw_line_set_add(&m->missing, p, m->named.of_page[p]);
    m->mapped = true;
    return TW_OK;
}

static enum tw_code take_keep_end(struct tw_mirror *m, const struct tw_control_keep_end *e,
                                  struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    if (!m->mapped || m->ended || e->epoch != m->params.epoch)
        return out_of_place(m, "keep_end", err);
    bool same = e->digest == m->digest || m->mutations.keep_wrong;
    if (m->missing.count || e->lines != m->named.count || !same)
        return tw_fail(err, TW_DATA_LOSS, tw_migration_where(&m->params, where), NULL, NULL,
                       "what is held here is not what was sent");
    m->ended = true;
    return TW_OK;
}

static enum tw_code take_control(struct tw_mirror *m, uint32_t kind, const union tw_control *c,
                                 struct tw_error *err)
{
    switch (kind) {
    case TW_CONTROL_BEGIN:
        return take_begin(m, &c->begin, err);
    case TW_CONTROL_MAP_END:
        return take_map_end(m, &c->map_end, err);
    case TW_CONTROL_KEEP_END:
        return take_keep_end(m, &c->keep_end, err);
    case TW_CONTROL_RELEASE:
        m->release_asked = c->epoch.epoch == m->params.epoch;
        return m->release_asked ? TW_OK : out_of_place(m, "release of another epoch", err);
    default:
        return out_of_place(m, tw_control_name(kind), err);
    }
}

static enum tw_code on_chunk(void *side, enum tw_lane lane, const struct tw_chunk_header *header,
                             const uint8_t *payload, struct tw_error *err)
{
    struct tw_mirror *m = side;
    union tw_control c;
    enum tw_code code;
    if (tw_machine_done(&m->machine) || m->down)
        return TW_OK;
    if (header->kind == TW_CHUNK_CONTROL) {
        code = tw_control_decode(header, lane, payload, &c, err);
        if (code == TW_OK)
            code = take_control(m, header->tag, &c, err);
    } else if (lane != TW_LANE_BULK) {
        code = out_of_place(m, "data that overtakes", err);
    } else if (header->kind == TW_CHUNK_LINES) {
        code = take_lines(m, header, payload, err);
    } else {
        code = take_map(m, header, payload, err);
    }
    if (code != TW_OK) {
        m->error = *err;
        m->failed = m->down = true;
    }
    return code;
}

static void on_down(void *side, const struct tw_error *why)
{
    struct tw_mirror *m = side;
    m->conn = NULL;
    m->down = true;
    if (!m->failed && m->machine.state < MIRROR_HOLDING) {
        m->error = *why;
        m->failed = true;
    }
}

/* ---- What a destination gets -------------------------------------------------------------------
 */

static bool host_alive(void *ctx)
{
    (void)ctx;
    return true;
}

static const struct tw_host_ops host_ops = {.alive = host_alive}; /* there is only memory */

static enum tw_code heir_journal(void *ctx, enum tw_hand_over state, struct tw_error *err)
{
    struct tw_mirror *m = ctx;
    (void)err;
    m->whole = state == TW_HAND_OVER_COMMITTED;
    return TW_OK;
}

static enum tw_code open_heir(struct tw_mirror *m, struct tw_error *err)
{
    struct tw_migration_env env = {
        .clock = m->env.clock, .fabric = m->env.fabric, .journal = heir_journal, .ctx = m};
    m->host = (struct tw_host){.ops = &host_ops,
                               .ctx = m,
                               .memory = (uint8_t *)m->memory,
                               .memory_bytes = m->memory_bytes,
                               .sees_all_writers = true};
    enum tw_code code = tw_source_adopt(&env, &m->params, &m->host, &m->heir, err);
    if (code == TW_OK)
        m->heir->rest.held = &m->named;
    return code;
}

static enum tw_code accept_destination(struct tw_mirror *m, struct tw_conn *conn,
                                       const struct tw_hello *hello, struct tw_migration_end **out,
                                       struct tw_error *err)
{
    enum tw_code code = m->heir ? TW_OK : open_heir(m, err);
    if (code == TW_OK)
        code = tw_source_accept(m->heir, conn, hello, err);
    if (code != TW_OK)
        return code;
    *out = tw_source_end(m->heir);
    if (m->machine.state == MIRROR_HOLDING)
        tw_machine_move(&m->machine, MIRROR_SERVING, "the destination asks for what it misses");
    return TW_OK;
}

enum tw_code tw_mirror_accept(struct tw_mirror *m, struct tw_conn *conn,
                              const struct tw_hello *hello, struct tw_migration_end **out,
                              struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    tw_migration_where(&m->params, where);
    if (memcmp(hello->owner, m->params.token, TW_OWNER_SIZE) != 0)
        return tw_fail(err, TW_UNAUTHENTICATED, where, NULL, NULL, "not this mirror's token");
    if (hello->epoch != m->params.epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, NULL, NULL,
                       "the mirror is of another epoch");
    if (m->machine.state == MIRROR_HOLDING || m->machine.state == MIRROR_SERVING)
        return accept_destination(m, conn, hello, out, err);
    if (m->machine.state != MIRROR_WAITING)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, "waiting, holding or serving",
                       tw_machine_state_name(&m->machine), "nothing is to be had from here");
    enum tw_code code = tw_line_set_open(&m->named, m->pages, err);
    if (code == TW_OK)
        code = tw_line_set_open(&m->missing, m->pages, err);
    if (code != TW_OK)
        return code;
    m->conn = conn;
    *out = &m->end;
    m->deadline_ns =
        tw_after(tw_now(m->env.clock), tw_after(m->params.limits.timeout_ns, DEADLINE_SLACK_NS));
    tw_machine_move(&m->machine, MIRROR_FILLING, "the source has connected");
    return TW_OK;
}

/* ---- Steps ------------------------------------------------------------------------------------
 */

static void say_kept(struct tw_mirror *m)
{
    tw_fault_point("mirror.whole");
    const union tw_control kept = {.epoch = {.epoch = m->params.epoch}};
    struct tw_error err;
    enum tw_code code = tw_control_send(m->conn, TW_CONTROL_KEPT, &kept, &err);
    m->kept_said = code == TW_OK;
    if (code == TW_OK || code == TW_RESOURCE_EXHAUSTED)
        return;
    m->error = err;
    m->failed = m->down = true;
}

static uint64_t step_filling(struct tw_mirror *m, uint64_t now_ns)
{
    if (m->down && m->conn) { /* what came was wrong: the fabric ends the connection as well */
        fail(m, &m->error);
        return now_ns;
    }
    if (m->down || m->release_asked) {
        end(m, m->down ? "the source is gone, and not all is here" : "told by the source");
        return now_ns;
    }
    if (now_ns >= m->deadline_ns) {
        fail_for(m, TW_DEADLINE_EXCEEDED, "the migration took longer than its limit");
        return now_ns;
    }
    if (m->ended && !m->kept_said && !m->mutations.keep_quiet)
        say_kept(m);
    if (m->kept_said)
        tw_machine_move(&m->machine, MIRROR_HOLDING, "all is here, and equal to what was sent");
    return m->kept_said || !m->ended ? m->deadline_ns : tw_after(now_ns, TW_BLOCKED_NS);
}

/* Behind the hand-over a source that is gone is what this side is for. */
static uint64_t step_holding(struct tw_mirror *m)
{
    if (m->down && m->conn) {
        tw_conn_close(m->conn);
        m->conn = NULL;
    }
    if (m->release_asked)
        end(m, "told by the source");
    return TW_NEVER;
}

static uint64_t step_serving(struct tw_mirror *m)
{
    uint64_t due = tw_source_step(m->heir);
    if (m->whole && tw_source_done(m->heir)) {
        const struct tw_error *why = tw_source_error(m->heir);
        if (why)
            m->error = *why;
        m->failed = why != NULL;
        end(m, "the destination has all of its memory");
    }
    return due;
}

uint64_t tw_mirror_step(struct tw_mirror *m)
{
    uint64_t now_ns = tw_now(m->env.clock);
    if (tw_machine_done(&m->machine))
        return tw_farewell_step(&m->farewell, &m->conn, now_ns);
    switch (m->machine.state) {
    case MIRROR_WAITING:
        if (now_ns >= m->deadline_ns)
            fail_for(m, TW_DEADLINE_EXCEEDED, "the source has not connected in time");
        return m->deadline_ns;
    case MIRROR_FILLING:
        return step_filling(m, now_ns);
    case MIRROR_HOLDING:
        return step_holding(m);
    default:
        return step_serving(m);
    }
}

/* ---- Made, asked, freed ------------------------------------------------------------------------
 */

enum tw_code tw_mirror_start(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, uint64_t memory_bytes,
                             uint64_t connect_timeout_ns, struct tw_mirror **mirror,
                             struct tw_error *err)
{
    const struct tw_host like = {.memory_bytes = memory_bytes};
    enum tw_code code = tw_migration_params_check(params, &like, err);
    if (code != TW_OK)
        return code;
    struct tw_mirror *m = calloc(1, sizeof *m);
    if (!m)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, params->id, NULL, NULL, "no memory");
    m->env = *env;
    m->params = *params;
    m->params.limits = tw_limits_complete(params->limits);
    m->memory_bytes = memory_bytes;
    m->pages = memory_bytes / TW_PAGE_SIZE;
    m->memory = tw_big_array_open(memory_bytes / sizeof *m->memory, "mirrored memory", err);
    m->filled = m->memory ? tw_big_array_open(m->pages / 64 + 1, "page bitmaps", err) : NULL;
    if (!m->filled) {
        tw_mirror_free(m);
        return TW_RESOURCE_EXHAUSTED;
    }
    m->end = (struct tw_migration_end){NULL, on_chunk, on_down, m};
    tw_machine_init(&m->machine, &tw_mirror_table, m, env->trace, env->ctx);
    tw_machine_move(&m->machine, MIRROR_WAITING, "started");
    m->deadline_ns = 0;
    tw_mirror_wait_anew(m, connect_timeout_ns);
    *mirror = m;
    return TW_OK;
}

void tw_mirror_wait_anew(struct tw_mirror *m, uint64_t connect_timeout_ns)
{
    if (m->machine.state == MIRROR_WAITING)
        m->deadline_ns = tw_after(tw_now(m->env.clock),
                                  connect_timeout_ns ? connect_timeout_ns : CONNECT_TIMEOUT_NS);
}

void tw_mirror_release(struct tw_mirror *m, const char *why)
{
    end(m, why);
}

bool tw_mirror_done(const struct tw_mirror *m)
{
    return tw_machine_done(&m->machine) && !m->conn;
}

const struct tw_error *tw_mirror_error(const struct tw_mirror *m)
{
    return m->failed ? &m->error : NULL;
}

void tw_mirror_progress(const struct tw_mirror *m, struct tw_mirror_progress *out)
{
    *out = (struct tw_mirror_progress){
        .phase = tw_machine_state_name(&m->machine),
        .memory_bytes = m->memory_bytes,
        .lines_named = m->named.count,
        .lines_held = m->mapped ? m->named.count - m->missing.count : 0,
        .bytes_held = m->bytes_held,
        .complete = m->memory && m->ended && m->missing.count == 0,
        .source_there = m->conn != NULL,
    };
    if (!m->heir)
        return;
    out->serving = m->heir->conn != NULL;
    out->lines_served = m->heir->rest.asked_for - m->heir->rest.lines.count;
}

void tw_mirror_mutate(struct tw_mirror *m, struct tw_migration_mutations mutations)
{
    m->mutations = mutations;
}

void tw_mirror_free(struct tw_mirror *m)
{
    if (!m)
        return;
    tw_conn_close(m->conn);
    let_go(m);
    free(m);
}
