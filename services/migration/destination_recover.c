/* Post-copy whose path was lost, or whose agent: the VM runs on, whoever touches what is absent
 * waits, and the destination connects to the source again and names what it still misses. The
 * source stands still, so it can serve whoever asks: nothing that has arrived comes a second time.
 *
 * What is missing is kept in memory that outlives the agent (env.keep). A line is stored first,
 * then it leaves the set, then its page is opened. Killed between any two of these, the next agent
 * asks for a line once more that no guest has seen, or opens a page when it is touched. */
#include "services/migration/destination.h"

#include "services/migration/big_array.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIRROR_AFTER_NS (30 * TW_SEC)
#define KEPT_MAGIC      UINT64_C(0x3154504b4c4e5754) /* "TWNLKPT1" */

/* Before the bitmaps, in words. */
struct kept_header {
    uint64_t magic; /* written last: the map is complete */
    uint64_t pages, epoch, to_come;
    uint64_t reserved[4];
};
static_assert(sizeof(struct kept_header) == 8 * sizeof(uint64_t), "whole words");
#define HEADER_WORDS (sizeof(struct kept_header) / sizeof(uint64_t))

/* ---- What outlives the agent ------------------------------------------------------------------
 */

enum tw_code tw_destination_keep_lines(struct tw_destination *d, struct tw_error *err)
{
    uint64_t pages = d->received.pages, *kept;
    if (!d->env.keep)
        return tw_line_set_open(&d->missing.lines, pages, err);
    enum tw_code code = d->env.keep(d->env.ctx, HEADER_WORDS + pages, true, &kept, err);
    if (code != TW_OK)
        return code;
    d->missing.kept = kept;
    tw_line_set_open_in(&d->missing.lines, pages, kept + HEADER_WORDS);
    return TW_OK;
}

void tw_destination_keep_map(struct tw_destination *d)
{
    struct kept_header *h = (struct kept_header *)(void *)d->missing.kept;
    if (!h)
        return;
    *h = (struct kept_header){.pages = d->missing.lines.pages,
                              .epoch = d->params.epoch,
                              .to_come = d->meter.p.lines_to_come};
    atomic_signal_fence(memory_order_release);
    h->magic = KEPT_MAGIC;
}

static enum tw_code read_kept(struct tw_destination *d, struct tw_error *err)
{
    uint64_t pages = d->host->memory_bytes / TW_PAGE_SIZE, *kept;
    char where[TW_WHERE_SIZE];
    enum tw_code code = d->env.keep(d->env.ctx, HEADER_WORDS + pages, false, &kept, err);
    if (code != TW_OK)
        return code;
    const struct kept_header *h = (const struct kept_header *)(const void *)kept;
    tw_line_set_open_in(&d->missing.lines, pages, kept + HEADER_WORDS);
    bool ours = h->magic == KEPT_MAGIC && h->pages == pages && h->epoch == d->params.epoch;
    if (!ours || h->to_come < d->missing.lines.count)
        return tw_fail(err, TW_DATA_LOSS, tw_migration_where(&d->params, where), NULL, NULL,
                       "what vm %s still misses is not known any more", d->params.vm);
    d->missing.kept = kept;
    d->missing.watched = tw_big_array_open(pages / 64 + 1, "bitmap of watched pages", err);
    if (!d->missing.watched)
        return TW_RESOURCE_EXHAUSTED;
    d->meter.p.lines_to_come = h->to_come;
    d->missing.came = h->to_come - d->missing.lines.count;
    return TW_OK;
}

/* ---- The path is lost -------------------------------------------------------------------------
 */

static void ask_again(struct tw_missing *m)
{
    for (unsigned i = 0; i < m->waiting_count; i++)
        m->waiting[i].asked = false;
}

static void try_from_now_on(struct tw_destination *d, uint64_t now_ns)
{
    uint64_t recover_ns = d->params.recover_ns ? d->params.recover_ns : TW_RECOVER_DEFAULT_NS;
    d->recovery.deadline_ns = tw_after(now_ns, recover_ns);
    d->recovery.retry_ns = now_ns;
    d->recovery.tries = 0;
}

void tw_destination_lose_path(struct tw_destination *d, const char *why, uint64_t now_ns)
{
    if (d->down || d->refused)
        tw_destination_note_error(d, &d->trouble);
    uint64_t first = tw_line_set_next(&d->missing.lines, 0);
    if (d->mutations.forget_line && first < d->missing.lines.pages)
        tw_line_set_take(&d->missing.lines, first, d->missing.lines.of_page[first] & 1);
    tw_destination_close_connection(d);
    d->down = d->refused = false;
    d->missing.running_said = true; /* what is missing will be told instead */
    ask_again(&d->missing);
    d->recovery.lost_ns = now_ns;
    try_from_now_on(d, now_ns);
    tw_destination_move(d, TW_DESTINATION_PATH_LOST, why);
}

/* When the source has had its time: from then on the mirror is tried, and the source, in turn. */
static uint64_t mirror_due_ns(const struct tw_destination *d)
{
    const struct tw_recovery *r = &d->recovery;
    uint64_t after_ns = d->params.mirror_after_ns ? d->params.mirror_after_ns : MIRROR_AFTER_NS;
    uint64_t recover_ns = d->params.recover_ns ? d->params.recover_ns : TW_RECOVER_DEFAULT_NS;
    if (!d->env.dial_mirror)
        return TW_NEVER;
    if (r->from_mirror)
        return r->lost_ns;
    return tw_after(r->lost_ns, after_ns < recover_ns / 2 ? after_ns : recover_ns / 2);
}

static void dial(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_recovery *r = &d->recovery;
    struct tw_hello hello = {.epoch = d->params.epoch};
    struct tw_error err = {0};
    memcpy(hello.owner, d->params.token, TW_OWNER_SIZE);
    r->at_mirror = now_ns >= mirror_due_ns(d) && r->tries++ % 2 == 0;
    r->up = r->packed = false;
    r->cursor = 0;
    r->retry_ns = tw_after(now_ns, TW_REDIAL_NS);
    tw_migration_dial to = r->at_mirror ? d->env.dial_mirror : d->env.dial;
    if (to && to(d->env.ctx, &hello, tw_after(now_ns, TW_DIAL_LIMIT_NS), &d->end, &d->conn, &err) !=
                  TW_OK) {
        d->conn = NULL;
        tw_destination_note_error(d, &err);
    }
}

void tw_destination_on_up(void *side)
{
    struct tw_destination *d = side;
    d->recovery.up = true;
}

/* An attempt, or what came of it, has failed. */
static void hang_up(struct tw_destination *d, uint64_t now_ns)
{
    tw_destination_note_error(d, &d->trouble);
    tw_destination_close_connection(d);
    d->down = d->refused = false;
    d->recovery.up = false;
    d->recovery.retry_ns = tw_after(now_ns, TW_REDIAL_NS);
}

/* True when all that is missing was named; false = no credit now, or the path is lost again. */
static bool send_missing(struct tw_destination *d)
{
    struct tw_missing *m = &d->missing;
    struct tw_recovery *r = &d->recovery;
    struct tw_chunk_writer writer;
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    while (!r->packed && code == TW_OK) {
        uint8_t *payload = tw_conn_chunk_begin(d->conn, TW_LANE_BULK);
        if (!payload)
            return false;
        tw_chunk_writer_init(&writer, payload);
        tw_line_set_pack(&m->lines, &r->cursor, &writer);
        r->packed = r->cursor >= m->lines.pages;
        struct tw_chunk_header header = {
            .kind = TW_CHUNK_BLOB, .tag = TW_BLOB_MAP, .length = writer.length};
        if (writer.length)
            code = tw_conn_chunk_send(d->conn, TW_LANE_BULK, &header, &err);
        else
            tw_conn_chunk_release(d->conn, TW_LANE_BULK);
    }
    union tw_control missing = {.missing = {.epoch = d->params.epoch,
                                            .lines = m->lines.count,
                                            .to_come = d->meter.p.lines_to_come,
                                            .digest = m->digest,
                                            .known = !r->digest_lost}};
    if (code == TW_OK)
        code = tw_control_send(d->conn, TW_CONTROL_MISSING, &missing, &err);
    if (code != TW_OK && code != TW_RESOURCE_EXHAUSTED) {
        d->refused = true;
        d->trouble = err;
    }
    return code == TW_OK;
}

static void path_is_back(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_recovery *r = &d->recovery;
    d->meter.p.reconnects++;
    d->meter.p.path_waited_ns += now_ns - r->lost_ns;
    d->failed = false;
    if (r->digest_lost) /* from here on both sides count anew */
        d->missing.digest = 0;
    d->meter.p.from_mirror = r->from_mirror = r->at_mirror;
    tw_destination_move(d, TW_DESTINATION_FETCHING,
                        r->at_mirror ? "the mirror knows what is missing"
                                     : "the source knows what is missing");
}

uint64_t tw_destination_step_path_lost(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_recovery *r = &d->recovery;
    uint64_t due = tw_destination_continue(d, now_ns);
    if (d->down || d->refused)
        hang_up(d, now_ns);
    if (!d->conn && now_ns >= r->deadline_ns) {
        tw_destination_move(d, TW_DESTINATION_PAUSED, "no path in time");
        return now_ns;
    }
    if (!d->conn) {
        if (now_ns >= r->retry_ns)
            dial(d, now_ns);
        uint64_t next = r->retry_ns < r->deadline_ns ? r->retry_ns : r->deadline_ns;
        return due < next ? due : next;
    }
    if (!r->up)
        return due;
    if (send_missing(d))
        path_is_back(d, now_ns);
    else if (!d->refused)
        return tw_after(now_ns, TW_BLOCKED_NS);
    return now_ns;
}

uint64_t tw_destination_step_paused(struct tw_destination *d, uint64_t now_ns)
{
    return tw_destination_continue(d, now_ns);
}

/* ---- Orders -----------------------------------------------------------------------------------
 */

static enum tw_code not_lost(const struct tw_destination *d, const char *what, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&d->params, where), "path_lost",
                   tw_machine_state_name(&d->machine), "cannot %s", what);
}

enum tw_code tw_destination_reconnect(struct tw_destination *d, struct tw_error *err)
{
    uint64_t now_ns = tw_now(d->env.clock);
    if (d->machine.state != TW_DESTINATION_PATH_LOST && d->machine.state != TW_DESTINATION_PAUSED)
        return not_lost(d, "connect again", err);
    try_from_now_on(d, now_ns);
    if (d->machine.state == TW_DESTINATION_PAUSED)
        tw_destination_move(d, TW_DESTINATION_PATH_LOST, "told to try again");
    return TW_OK;
}

enum tw_code tw_destination_from_mirror(struct tw_destination *d, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    if (!d->env.dial_mirror)
        return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&d->params, where),
                       "a migration with a mirror", NULL,
                       "nobody keeps what is missing but the source");
    enum tw_code code = tw_destination_reconnect(d, err);
    d->recovery.from_mirror |= code == TW_OK;
    return code;
}

enum tw_code tw_destination_abandon(struct tw_destination *d, struct tw_error *err)
{
    struct tw_error why;
    char where[TW_WHERE_SIZE], given[48];
    bool waits =
        d->machine.state == TW_DESTINATION_PATH_LOST || d->machine.state == TW_DESTINATION_PAUSED;
    if (d->machine.state == TW_DESTINATION_LOST)
        return TW_OK;
    if (!waits)
        return not_lost(d, "give up what is missing", err);
    snprintf(given, sizeof given, "%" PRIu64 " lines are missing", d->missing.lines.count);
    tw_fail(&why, TW_DATA_LOSS, tw_migration_where(&d->params, where), NULL, given,
            "vm %s is lost: its memory could not follow it, the source has nothing of it any more",
            d->params.vm);
    tw_destination_note_error(d, &why);
    tw_destination_close_connection(d);
    tw_destination_move(d, TW_DESTINATION_LOST, why.what);
    return TW_OK;
}

/* ---- The agent has started again --------------------------------------------------------------
 */

uint64_t tw_destination_step_rejoining(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (now_ns < d->retry_ns)
        return d->retry_ns;
    tw_destination_show_missing(d);
    if (!d->host->faults->rejoin(d->host->ctx, &code, &err))
        return tw_after(now_ns, TW_POLL_NS);
    if (code != TW_OK) { /* as long as there is a machine; until then whoever waits, waits */
        tw_destination_note_error(d, &err);
        d->retry_ns = tw_after(now_ns, TW_RETRY_NS);
        return d->retry_ns;
    }
    d->retry_ns = 0;
    d->failed = false;
    d->missing.guarded = true;
    if (d->missing.lines.count)
        tw_destination_lose_path(d, "a new agent, and lines are missing", now_ns);
    else
        tw_destination_move(d, TW_DESTINATION_FETCHING, "the last line was here already");
    return now_ns;
}

enum tw_code tw_destination_adopt_partly(const struct tw_migration_env *env,
                                         const struct tw_migration_params *params,
                                         struct tw_host *host, struct tw_destination **destination,
                                         struct tw_error *err)
{
    struct tw_destination *d;
    if (!env->keep || !host->faults)
        return tw_fail(err, TW_FAILED_PRECONDITION, params->id, NULL, NULL,
                       "no host for a VM whose memory follows");
    enum tw_code code = tw_destination_new(env, params, host, &d, err);
    if (code != TW_OK)
        return code;
    code = read_kept(d, err);
    if (code != TW_OK) {
        tw_destination_free(d);
        return code;
    }
    d->hand_over = TW_HAND_OVER_COMMITTED;
    d->begun = d->lines_complete = d->state_complete = true;
    d->begin.method = (uint32_t)d->limits.method;
    d->begin.verify = !d->limits.skip_verify;
    d->missing.mapped = d->missing.running_said = true;
    d->recovery.digest_lost = true; /* it may lag behind the lines by some */
    d->phase_ns = d->meter.start_ns;
    tw_destination_move(d, TW_DESTINATION_REJOINING, "adopted");
    *destination = d;
    return TW_OK;
}
