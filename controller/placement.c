#include "controller/placement.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

static enum tw_code place_at(const struct tw_host_view *host, uint64_t memory_bytes,
                             struct tw_error *err)
{
    char where[80], need[TW_SIZE_TEXT], has[TW_SIZE_TEXT], expected[64], given[64];
    snprintf(where, sizeof where, "host %.63s", host->record.name);
    if (!host->record.alive)
        return tw_fail(err, TW_UNAVAILABLE, where, "a living host", "dead",
                       "the host's lease has run out");
    if (host->free_bytes >= memory_bytes)
        return TW_OK;
    snprintf(expected, sizeof expected, "%s free", tw_size_format(memory_bytes, need));
    snprintf(given, sizeof given, "%s free", tw_size_format(host->free_bytes, has));
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, expected, given, "not enough memory");
}

/* "node-a is dead, node-b has 12 MiB free": what fits into an error. */
static void explain(const struct tw_host_view *hosts, size_t count, char *text, size_t size)
{
    char has[TW_SIZE_TEXT];
    text[0] = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(text);
        const char *name = hosts[i].record.name;
        if (n + strlen(name) + 32 > size) {
            snprintf(text + n, size - n, ", ...");
            return;
        }
        if (hosts[i].record.alive)
            snprintf(text + n, size - n, "%s%s has %s free", n ? ", " : "", name,
                     tw_size_format(hosts[i].free_bytes, has));
        else
            snprintf(text + n, size - n, "%s%s is dead", n ? ", " : "", name);
    }
}

static enum tw_code place_anywhere(const struct tw_host_view *hosts, size_t count,
                                   uint64_t memory_bytes, const struct tw_host_view **chosen,
                                   struct tw_error *err)
{
    char need[TW_SIZE_TEXT], expected[64], reasons[128];
    const struct tw_host_view *best = NULL;
    for (size_t i = 0; i < count; i++)
        if (hosts[i].record.alive && (!best || hosts[i].free_bytes > best->free_bytes))
            best = &hosts[i];
    explain(hosts, count, reasons, sizeof reasons);
    if (!best)
        return tw_fail(err, TW_UNAVAILABLE, "placement", "a living host",
                       count ? reasons : "no host", "no host is alive");
    if (best->free_bytes < memory_bytes) {
        snprintf(expected, sizeof expected, "%s free", tw_size_format(memory_bytes, need));
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "placement", expected, reasons,
                       "no host has enough memory");
    }
    *chosen = best;
    return TW_OK;
}

enum tw_code tw_place(const struct tw_host_view *hosts, size_t count, const char *wanted,
                      uint64_t memory_bytes, const struct tw_host_view **chosen,
                      struct tw_error *err)
{
    *chosen = NULL;
    if (!wanted[0])
        return place_anywhere(hosts, count, memory_bytes, chosen, err);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(hosts[i].record.name, wanted) != 0)
            continue;
        enum tw_code code = place_at(&hosts[i], memory_bytes, err);
        if (code == TW_OK)
            *chosen = &hosts[i];
        return code;
    }
    char where[80];
    snprintf(where, sizeof where, "host %.63s", wanted);
    return tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such host");
}

/* ---- Moves ---------------------------------------------------------------------------------- */

struct judged {
    unsigned refused, warned;
};

static void note(tw_why *why, struct judged *j, Towline__V1__ReasonVerdict verdict,
                 const struct tw_rule *rule, const char *text)
{
    j->refused += verdict == TW_REFUSE;
    j->warned += verdict == TW_WARN;
    tw_why_add(why, verdict, rule, "%s", text);
}

static void judge_life(const struct tw_host_view *h, const struct tw_move *move, tw_why *why,
                       struct judged *j)
{
    const struct tw_host_record *r = &h->record;
    uint64_t silent =
        move->now_unix_ms > r->last_seen_unix_ms ? move->now_unix_ms - r->last_seen_unix_ms : 0;
    uint64_t lease = h->lease_expires_unix_ms > r->last_seen_unix_ms
                         ? h->lease_expires_unix_ms - r->last_seen_unix_ms
                         : 0;
    const struct tw_rule rule = {r->name, "heartbeat", silent, lease, "ms", NULL, NULL};
    note(why, j, r->alive ? TW_PASS : TW_REFUSE, &rule,
         r->alive ? "its agent reports" : "its lease has run out: it is taken for dead");
}

static void judge_memory(const struct tw_host_view *h, const struct tw_move *move, tw_why *why,
                         struct judged *j)
{
    bool fits = h->free_bytes >= move->memory_bytes;
    const struct tw_rule rule = {h->record.name, "memory", h->free_bytes, move->memory_bytes,
                                 "bytes",        NULL,     NULL};
    note(why, j, fits ? TW_PASS : TW_REFUSE, &rule,
         fits ? "enough is free, promised memory counted as used" : "not enough is free");
}

static void judge_path(const struct tw_host_view *h, const struct tw_host_view *from, tw_why *why,
                       struct judged *j)
{
    const struct tw_host_record *r = &h->record;
    bool verbs = r->verbs_address[0] && from && from->record.verbs_address[0];
    bool any = verbs || r->fabric_address[0];
    const struct tw_rule rule = {
        r->name, "path", 0, 0, NULL, verbs ? "verbs" : any ? "tcp" : "none", "verbs or tcp"};
    note(why, j, any ? TW_PASS : TW_REFUSE, &rule,
         any ? "lines can be streamed to it" : "it says no address for lines");
}

static void judge_version(const struct tw_host_view *h, const struct tw_host_view *from,
                          tw_why *why, struct judged *j)
{
    bool same = !from || strcmp(h->record.version, from->record.version) == 0;
    const struct tw_rule rule = {
        h->record.name, "version", 0, 0, NULL, h->record.version, from ? from->record.version : ""};
    note(why, j, same ? TW_PASS : TW_WARN, &rule,
         same ? "its agent is the source's version" : "its agent is of another version");
}

static void judge_clock(const struct tw_host_view *h, tw_why *why, struct judged *j)
{
    int64_t ahead = h->record.clock_ahead_ms;
    uint64_t off = ahead < 0 ? (uint64_t)-ahead : (uint64_t)ahead;
    const struct tw_rule rule = {h->record.name, "clock", off, TW_CLOCK_AHEAD_MS, "ms", NULL, NULL};
    if (h->record.clock_known)
        note(why, j, off <= TW_CLOCK_AHEAD_MS ? TW_PASS : TW_WARN, &rule,
             off <= TW_CLOCK_AHEAD_MS ? "its clock is the controller's"
                                      : "its clock differs from the controller's");
}

static struct judged judge_host(const struct tw_host_view *h, const struct tw_host_view *from,
                                const struct tw_move *move, tw_why *why)
{
    struct judged j = {0};
    bool here = strcmp(h->record.name, move->source) == 0;
    const struct tw_rule rule = {h->record.name, "another_host", 0,           0,
                                 NULL,           h->record.name, move->source};
    if (here) {
        note(why, &j, TW_REFUSE, &rule, "the VM is there already");
        return j;
    }
    judge_life(h, move, why, &j);
    judge_memory(h, move, why, &j);
    judge_path(h, from, why, &j);
    judge_version(h, from, why, &j);
    judge_clock(h, why, &j);
    return j;
}

static bool better(const struct tw_host_view *a, const struct judged *ja,
                   const struct tw_host_view *b, const struct judged *jb)
{
    if (ja->warned != jb->warned)
        return ja->warned < jb->warned;
    return a->free_bytes > b->free_bytes;
}

enum tw_code tw_place_move(const struct tw_host_view *hosts, size_t count,
                           const struct tw_move *move, tw_why *why,
                           const struct tw_host_view **chosen, struct tw_error *err)
{
    const struct tw_host_view *from = NULL, *best = NULL;
    struct judged best_judged = {0};
    char need[TW_SIZE_TEXT], expected[80], reasons[128];
    *chosen = NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(hosts[i].record.name, move->source) == 0)
            from = &hosts[i];
    for (size_t i = 0; i < count; i++) {
        struct judged j = judge_host(&hosts[i], from, move, why);
        if (j.refused || (best && !better(&hosts[i], &j, best, &best_judged)))
            continue;
        best = &hosts[i];
        best_judged = j;
    }
    if (move->wanted[0])
        return tw_place(hosts, count, move->wanted, move->memory_bytes, chosen, err);
    *chosen = best;
    if (best)
        return TW_OK;
    explain(hosts, count, reasons, sizeof reasons);
    snprintf(expected, sizeof expected, "another living host with %s free",
             tw_size_format(move->memory_bytes, need));
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, "placement", expected, reasons,
                   "no host can take the VM");
}
