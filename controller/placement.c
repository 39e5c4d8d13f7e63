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
