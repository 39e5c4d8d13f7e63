#include "controller/settle.h"

#include "base/log.h"
#include "controller/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_NS   (500 * TW_MS)
#define PRUNE_NS   (600 * TW_SEC)
#define TELL_MS    2000u
#define SILENT_MAX 64u

/* Hosts that did not answer in this turn are left alone for the rest of it. */
struct silent_hosts {
    char names[SILENT_MAX][TW_NAME_SIZE];
    unsigned count;
};

static bool reachable(const struct tw_settle *s, const struct silent_hosts *silent,
                      const char *host)
{
    char url[TW_URL_SIZE];
    bool alive;
    for (unsigned i = 0; i < silent->count; i++)
        if (strcmp(silent->names[i], host) == 0)
            return false;
    return tw_catalogue_locate(s->reach.catalogue, host, url, &alive) && alive;
}

static void is_silent(struct silent_hosts *silent, const char *host)
{
    if (silent->count < SILENT_MAX)
        snprintf(silent->names[silent->count++], TW_NAME_SIZE, "%s", host);
}

/* ---- VMs ----------------------------------------------------------------------------------- */

struct vm_list {
    char names[TW_SETTLE_AT_ONCE][TW_NAME_SIZE], hosts[TW_SETTLE_AT_ONCE][TW_NAME_SIZE];
    unsigned count;
};

static void collect_vm(void *ctx, const struct tw_vm_record *vm)
{
    struct vm_list *list = ctx;
    if (!tw_vm_unsettled(vm) || vm->migration[0] || list->count == TW_SETTLE_AT_ONCE)
        return;
    memcpy(list->names[list->count], vm->name, TW_NAME_SIZE);
    memcpy(list->hosts[list->count++], vm->host, TW_NAME_SIZE);
}

static void settle_vms(struct tw_settle *s, struct silent_hosts *silent)
{
    static const struct vm_list none;
    struct vm_list list = none;
    if (tw_store_begin(s->store, TW_STORE_READ, NULL) != TW_OK ||
        tw_store_end(s->store, tw_store_vms_each(s->store, "", collect_vm, &list, NULL), NULL) !=
            TW_OK)
        return;
    for (unsigned i = 0; i < list.count; i++) {
        bool unanswered = false;
        if (reachable(s, silent, list.hosts[i]))
            tw_vms_settle(s->vms, list.names[i], &unanswered);
        if (unanswered)
            is_silent(silent, list.hosts[i]);
    }
}

/* ---- Outcomes ------------------------------------------------------------------------------ */

struct owed_list {
    struct tw_migration_record *items;
    unsigned count;
};

static void collect_owed(void *ctx, const struct tw_migration_record *m)
{
    struct owed_list *list = ctx;
    if (list->count < TW_SETTLE_AT_ONCE)
        list->items[list->count++] = *m;
}

static enum tw_code paid(struct tw_settle *s, const struct tw_migration_record *m, unsigned what,
                         struct tw_error *err)
{
    struct tw_migration_record now;
    enum tw_code code = tw_store_migration_get(s->store, m->id, &now, err);
    if (code != TW_OK)
        return code;
    now.owed &= ~what;
    return tw_store_migration_put(s->store, &now, err);
}

static void complain(struct tw_settle *s, const struct tw_migration_record *m, const char *host,
                     const struct tw_error *why)
{
    const char *pairs[] = {"host", host, "migration", m->id, "given", why->given, NULL};
    tw_log(TW_LOG_ERROR, "settle", "outcome refused", "migration=%s host=%s what=\"%s\" given=%s",
           m->id, host, why->what, why->given);
    if (tw_store_begin(s->store, TW_STORE_RELAXED, NULL) == TW_OK)
        tw_store_end(s->store,
                     tw_store_event(s->store, "vm.conflict", m->vm, pairs, NULL,
                                    "host %s refuses the outcome of %s: %s", host, m->id,
                                    why->what),
                     NULL);
}

/* A host that an operator had declared off did not take part in the hand-over: what it still
 * holds is an old copy by the operator's word, and goes. Its epoch is below the owner's. */
static enum tw_code remove_fenced(struct tw_settle *s, const struct tw_migration_record *m,
                                  const char *host, bool source, struct tw_error *err)
{
    uint64_t kept = m->reclaim_epoch ? m->reclaim_epoch : m->source_epoch;
    return tw_reach_remove_vm(&s->reach, host, m->vm, source ? kept : m->epoch, TELL_MS, err);
}

static Towline__V1__Decision told_to(const struct tw_migration_record *m, bool source)
{
    if (source)
        return TOWLINE__V1__DECISION__DECISION_FINISH;
    return m->destination_known == TW_KNOWN_PARTLY ? TOWLINE__V1__DECISION__DECISION_ABANDON
                                                   : TOWLINE__V1__DECISION__DECISION_ABORT;
}

static void pay(struct tw_settle *s, const struct tw_migration_record *m, unsigned what,
                struct silent_hosts *silent)
{
    bool source = what == TW_OWED_SOURCE_FINISH;
    const char *host = source ? m->source : m->destination;
    struct tw_error err = {0};
    if (!(m->owed & what) || !reachable(s, silent, host))
        return;
    bool fenced = m->fenced & (source ? TW_FENCED_SOURCE : TW_FENCED_DESTINATION);
    enum tw_code told =
        tw_reach_resolve(&s->reach, host, m->id, told_to(m, source), 0, TELL_MS, &err);
    enum tw_code code = told;
    if (fenced && !tw_agents_silent(code))
        code = remove_fenced(s, m, host, source, &err);
    if (tw_agents_silent(code)) {
        is_silent(silent, host);
        return;
    }
    /* It has understood, and is still ending what it held. */
    if (fenced && told == TW_OK && code == TW_FAILED_PRECONDITION)
        return;
    /* Refused: nothing more that could be told. People have to look. */
    if (code != TW_OK)
        complain(s, m, host, &err);
    if (tw_store_begin(s->store, TW_STORE_DURABLE, NULL) == TW_OK)
        tw_store_end(s->store, paid(s, m, what, NULL), NULL);
}

static void release_mirror(struct tw_settle *s, const struct tw_migration_record *m,
                           struct silent_hosts *silent)
{
    char host[TW_NAME_SIZE];
    struct tw_error err = {0};
    if (!(m->owed & TW_OWED_MIRROR_RELEASE))
        return;
    tw_mirror_host(m, host);
    if (host[0] && !reachable(s, silent, host))
        return;
    enum tw_code code =
        host[0] ? tw_reach_release_mirror(&s->reach, host, m->id, TELL_MS, &err) : TW_OK;
    if (tw_agents_silent(code)) {
        is_silent(silent, host);
        return;
    }
    if (code != TW_OK)
        complain(s, m, host, &err);
    if (tw_store_begin(s->store, TW_STORE_DURABLE, NULL) == TW_OK)
        tw_store_end(s->store, paid(s, m, TW_OWED_MIRROR_RELEASE, NULL), NULL);
}

static void settle_outcomes(struct tw_settle *s, struct silent_hosts *silent)
{
    struct owed_list list = {calloc(TW_SETTLE_AT_ONCE, sizeof *list.items), 0};
    if (list.items && tw_store_begin(s->store, TW_STORE_READ, NULL) == TW_OK &&
        tw_store_end(s->store, tw_store_migrations_owed(s->store, collect_owed, &list, NULL),
                     NULL) == TW_OK) {
        for (unsigned i = 0; i < list.count; i++) {
            pay(s, &list.items[i], TW_OWED_SOURCE_FINISH, silent);
            pay(s, &list.items[i], TW_OWED_DESTINATION_ABORT, silent);
            release_mirror(s, &list.items[i], silent);
        }
    }
    free(list.items);
}

static void prune(struct tw_settle *s)
{
    uint64_t now = tw_now(&tw_monotonic);
    if (now < s->prune_ns)
        return;
    s->prune_ns = now + PRUNE_NS;
    if (tw_store_begin(s->store, TW_STORE_RELAXED, NULL) == TW_OK)
        tw_store_end(s->store, tw_store_vms_prune(s->store, tw_wall_ms(), NULL), NULL);
}

uint64_t tw_settle_step(void *ctx)
{
    struct tw_settle *s = ctx;
    prune(s);
    struct silent_hosts silent = {.count = 0};
    settle_outcomes(s, &silent);
    settle_vms(s, &silent);
    return tw_after(tw_now(&tw_monotonic), AGAIN_NS);
}
