/* Post-copy whose path was lost, or whose agent, seen from the source: the VM's memory stands still
 * here, so whoever proves to be its destination may ask again for what has not arrived. What was
 * sent and lost on the way is sent again, and nothing else. */
#include "services/migration/source.h"

#include <string.h>

#define MISSING_LIMIT_NS (10 * TW_SEC) /* from one part of what is missing to the next */

/* ---- The path is lost, and back ---------------------------------------------------------------
 */

void tw_source_lose_path(struct tw_source *s, const char *why)
{
    s->rest.map_said = false; /* nothing is sent before the destination has said what */
    s->rest.count = 0;
    s->rest.asking = false;
    tw_line_set_close(&s->rest.asked);
    tw_source_move(s, TW_SOURCE_PATH_LOST, why);
}

static bool takes_again(const struct tw_source *s)
{
    unsigned state = s->machine.state;
    return tw_source_postcopies(s) && (state == TW_SOURCE_GIVEN_UP || state == TW_SOURCE_SERVING ||
                                       state == TW_SOURCE_PATH_LOST);
}

enum tw_code tw_source_accept(struct tw_source *s, struct tw_conn *conn,
                              const struct tw_hello *hello, struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    uint64_t pages = s->host->memory_bytes / TW_PAGE_SIZE;
    tw_migration_where(&s->params, where);
    if (memcmp(hello->owner, s->params.token, TW_OWNER_SIZE) != 0)
        return tw_fail(err, TW_UNAUTHENTICATED, where, NULL, NULL, "not this migration's token");
    if (hello->epoch != s->params.epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, NULL, NULL,
                       "the destination works towards another epoch");
    if (!takes_again(s))
        return tw_fail(err, TW_FAILED_PRECONDITION, where, "given_up, serving or path_lost",
                       tw_machine_state_name(&s->machine), "nothing is to be fetched from here");
    tw_source_close_connection(s); /* the destination knows that the one before is lost */
    if (s->machine.state == TW_SOURCE_SERVING)
        tw_source_lose_path(s, "the destination has connected again");
    tw_line_set_close(&s->rest.asked);
    enum tw_code code = tw_line_set_open(&s->rest.asked, pages, err);
    if (code != TW_OK)
        return code;
    s->conn = conn;
    s->up = s->rest.asking = true;
    s->rest.map_said = false;
    s->rest.count = 0;
    s->down = s->peer_aborted = false;
    s->rest.asked_ns = tw_now(s->env.clock);
    return TW_OK;
}

/* ---- What is missing ---------------------------------------------------------------------------
 */

enum tw_code tw_source_take_missing(struct tw_source *s, const struct tw_chunk_header *header,
                                    const uint8_t *payload, struct tw_error *err)
{
    if (!s->rest.asking || header->tag != TW_BLOB_MAP)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, NULL,
                       tw_machine_state_name(&s->machine), "a map out of place");
    s->rest.asked_ns = tw_now(s->env.clock);
    return tw_line_set_unpack(&s->rest.asked, payload, header->length, err);
}

/* What was not sent yet cannot have arrived. What was sent and is missing was lost on the way: its
 * part of the digest goes, and comes again when it is sent again. */
static bool take_back_lost(struct tw_source *s)
{
    struct tw_rest *r = &s->rest;
    for (uint64_t p = 0; p < r->asked.pages; p++) {
        uint64_t lost = r->asked.of_page[p] & ~r->lines.of_page[p];
        if (r->lines.of_page[p] & ~r->asked.of_page[p])
            return false;
        if (!lost)
            continue;
        s->meter.p.lines_again += tw_popcount(lost);
        if (!s->limits.skip_verify)
            r->digest -= tw_lines_digest(p, s->host->memory + p * TW_PAGE_SIZE, lost);
    }
    return true;
}

/* Both digests are of what has arrived so far, or the present agent of a side cannot know it. */
static void compare_digests(struct tw_source *s, const struct tw_control_missing *m, bool remembers)
{
    struct tw_rest *r = &s->rest;
    r->partly_compared |= !remembers || !m->known;
    if (remembers && m->known && !s->limits.skip_verify && m->digest != r->digest)
        r->wrong = true;
    r->digest = m->known ? m->digest : 0;
}

/* Whether all that is asked for is here: a mirror holds no more than it was given. */
static bool holds_asked(const struct tw_rest *r)
{
    for (uint64_t p = 0; r->held && p < r->asked.pages; p++)
        if (r->asked.of_page[p] & ~r->held->of_page[p])
            return false;
    return true;
}

enum tw_code tw_source_hears_missing(struct tw_source *s, const struct tw_control_missing *m,
                                     struct tw_error *err)
{
    struct tw_rest *r = &s->rest;
    bool remembers = r->lines.of_page != NULL;
    bool same = !remembers || m->to_come == s->meter.p.lines_to_come;
    if (!r->asking || m->epoch != s->params.epoch || m->lines != r->asked.count || !same)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, NULL,
                       tw_machine_state_name(&s->machine),
                       "the destination does not say what is missing");
    if (!holds_asked(r))
        return tw_fail(err, TW_FAILED_PRECONDITION, s->params.id, NULL, NULL,
                       "lines are missing that were never kept here");
    if (remembers && !take_back_lost(s))
        return tw_fail(err, TW_INVALID_ARGUMENT, s->params.id, NULL, NULL,
                       "lines that were never sent are said to have arrived");
    compare_digests(s, m, remembers);
    if (s->mutations.send_all_again)
        for (uint64_t p = 0; p < r->asked.pages; p++)
            tw_line_set_add(&r->asked, p, TW_ALL_LINES);
    tw_line_set_close(&r->lines);
    r->lines = r->asked;
    r->asked = (struct tw_line_set){0};
    r->asked_for = m->lines;
    s->meter.p.lines_to_come = m->to_come;
    s->meter.p.reconnects++;
    s->failed = false;
    r->cursor = 0;
    r->sent_ns = tw_now(s->env.clock);
    r->asking = r->limited = false;
    r->map_said = s->state_said = s->running = true;
    return TW_OK;
}

bool tw_source_asks(struct tw_source *s, uint64_t now_ns, uint64_t *due)
{
    *due = tw_after(s->rest.asked_ns, MISSING_LIMIT_NS);
    if (!s->rest.asking || !s->conn)
        return false;
    if (now_ns < *due)
        return true;
    tw_source_fail(s, TW_DEADLINE_EXCEEDED, "the destination does not say what is missing");
    return false;
}

uint64_t tw_source_step_path_lost(struct tw_source *s, uint64_t now_ns)
{
    uint64_t due;
    if (tw_source_asks(s, now_ns, &due))
        return due;
    if (!s->conn || !s->rest.map_said)
        return TW_NEVER; /* until the destination connects, or a decision from outside */
    tw_source_move(s, TW_SOURCE_SERVING, "the destination has said what is missing");
    return now_ns;
}
