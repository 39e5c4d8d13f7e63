#include "controller/mirror.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

static bool is_none(const char *name)
{
    return !name[0] || strcmp(name, TW_MIRROR_NONE) == 0;
}

static bool is_auto(const char *name)
{
    return strcmp(name, TW_MIRROR_AUTO) == 0;
}

/* Nothing follows a VM whose memory goes first. */
static bool follows(const Towline__V1__MigrationLimits *l)
{
    return l->method != TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_UNSPECIFIED &&
           l->method != TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY;
}

void tw_mirror_wish(Towline__V1__MigrationLimits *limits, char name[TW_NAME_SIZE],
                    const Towline__V1__MigrationLimits *vm,
                    const Towline__V1__MigrationLimits *defaults)
{
    const char *wish = limits->mirror;
    if (!wish[0] && vm)
        wish = vm->mirror;
    if (!wish[0])
        wish = defaults->mirror;
    snprintf(name, TW_NAME_SIZE, "%s", wish);
    limits->mirror = name;
}

static bool judge(const struct tw_host_view *h, const struct tw_move *move, const char *destination,
                  tw_why *why)
{
    const struct tw_host_record *r = &h->record;
    const bool third = strcmp(r->name, move->source) != 0 && strcmp(r->name, destination) != 0;
    const bool fits = h->free_bytes >= move->memory_bytes;
    const struct tw_rule rules[] = {
        {r->name, "mirror_third_host", 0, 0, NULL, r->name, "neither source nor destination"},
        {r->name, "mirror_alive", 0, 0, NULL, r->alive ? "alive" : "dead", "alive"},
        {r->name, "mirror_memory", h->free_bytes, move->memory_bytes, "bytes", NULL, NULL}};
    if (!third)
        return false;
    tw_why_add(why, r->alive ? TW_PASS : TW_REFUSE, &rules[1],
               r->alive ? "its agent reports" : "its lease has run out: no mirror there");
    tw_why_add(why, fits ? TW_PASS : TW_REFUSE, &rules[2],
               fits ? "what follows the VM fits, even if that is all of it"
                    : "all of the VM might follow it, and does not fit");
    return r->alive && fits && r->fabric_address[0];
}

static enum tw_code refuse(const struct tw_host_view *wanted, const char *name,
                           const struct tw_move *move, bool third, struct tw_error *err)
{
    char where[96], need[TW_SIZE_TEXT], has[TW_SIZE_TEXT], expected[96], given[64];
    snprintf(where, sizeof where, "mirror %.63s", name);
    snprintf(expected, sizeof expected, "a living host but source and destination with %s free",
             tw_size_format(move->memory_bytes, need));
    if (!wanted && !is_auto(name))
        return tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such host");
    if (!wanted)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, expected, "none",
                       "no host can keep what follows the VM");
    if (!third)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a third host", wanted->record.name,
                       "a mirror beside source or destination is lost with it");
    snprintf(given, sizeof given, "%s, %s free", wanted->record.alive ? "alive" : "dead",
             tw_size_format(wanted->free_bytes, has));
    return tw_fail(err, wanted->record.alive ? TW_RESOURCE_EXHAUSTED : TW_UNAVAILABLE, where,
                   expected, given, "the host cannot keep what follows the VM");
}

enum tw_code tw_mirror_place(const struct tw_host_view *hosts, size_t count,
                             const struct tw_move *move, const char *destination,
                             Towline__V1__MigrationLimits *limits, char name[TW_NAME_SIZE],
                             tw_why *why, struct tw_error *err)
{
    const struct tw_host_view *best = NULL, *named = NULL;
    limits->mirror = name;
    if (is_none(name) || !follows(limits)) {
        name[0] = 0;
        return TW_OK;
    }
    for (size_t i = 0; i < count; i++) {
        const struct tw_host_view *h = &hosts[i];
        bool wanted = strcmp(h->record.name, name) == 0;
        named = wanted ? h : named;
        if (!wanted && !is_auto(name))
            continue;
        if (judge(h, move, destination, why) && (!best || h->free_bytes > best->free_bytes))
            best = h;
    }
    bool third = strcmp(name, move->source) != 0 && strcmp(name, destination) != 0;
    if (!best)
        return refuse(named, name, move, third, err);
    limits->mirror_optional |= is_auto(name);
    const struct tw_rule chosen = {
        best->record.name, "mirror", best->free_bytes, move->memory_bytes, "bytes", NULL, NULL};
    tw_why_add(why, TW_PASS, &chosen, "keeps what follows the VM until all of it has arrived");
    snprintf(name, TW_NAME_SIZE, "%s", best->record.name);
    return TW_OK;
}

bool tw_mirror_missed(const struct tw_migration_record *m)
{
    Towline__V1__MigrationLimits *l =
        towline__v1__migration_limits__unpack(NULL, m->limits_size, m->limits);
    bool missed = l && is_auto(l->mirror) && follows(l);
    if (l)
        towline__v1__migration_limits__free_unpacked(l, NULL);
    return missed;
}

void tw_mirror_host(const struct tw_migration_record *m, char host[TW_NAME_SIZE])
{
    Towline__V1__MigrationLimits *l =
        towline__v1__migration_limits__unpack(NULL, m->limits_size, m->limits);
    host[0] = 0;
    if (!l)
        return;
    if (!is_none(l->mirror) && !is_auto(l->mirror) && follows(l))
        snprintf(host, TW_NAME_SIZE, "%s", l->mirror);
    towline__v1__migration_limits__free_unpacked(l, NULL);
}
