/* A third host is asked to keep what follows the VM, before the others are told anything. One that
 * does not answer is asked again for some time only. Who insisted on it gets no migration then;
 * otherwise the next best host is asked, and when none does it the VM moves without a mirror. */
#include "controller/drive.h"

#include "controller/mirror.h"
#include "controller/services.h"
#include "controller/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLD_MS       3000u
#define CONNECT_MS    45000u /* longer than the destination waits: it is asked first */
#define HOLD_LIMIT_NS (10 * TW_SEC)
#define TRIES_MAX     3u /* hosts */

static enum tw_code ask(struct tw_drive *d, uint64_t memory_bytes,
                        Towline__V1__MigrationLimits *limits,
                        Towline__V1__HoldMirrorResponse **answer, struct tw_error *err)
{
    Towline__V1__HoldMirrorRequest r = TOWLINE__V1__HOLD_MIRROR_REQUEST__INIT;
    r.migration = d->id;
    r.vm = d->vm;
    r.memory_bytes = memory_bytes;
    r.epoch = d->epoch;
    r.timeout_ms = CONNECT_MS;
    r.limits = limits;
    enum tw_code code =
        tw_reach_hold_mirror(&d->owner->config.reach, d->mirror.host, &r, HOLD_MS, answer, err);
    if (code != TW_OK)
        return code;
    const Towline__V1__MirrorTarget *t = (*answer)->mirror;
    d->mirror.known = t && t->fabric_address[0] && t->token.len == 16;
    if (d->mirror.known)
        return TW_OK;
    protobuf_c_message_free_unpacked(&(*answer)->base, NULL);
    *answer = NULL;
    return tw_fail(err, TW_INTERNAL, d->mirror.host, "an address and 16 bytes of token", NULL,
                   "the mirror's answer is not usable");
}

/* The one with the most room but that which has just failed; "" = there is none. */
static void next_best(struct tw_drive *d, uint64_t memory_bytes,
                      const Towline__V1__MigrationLimits *limits, char name[TW_NAME_SIZE])
{
    struct tw_host_view *hosts = NULL;
    size_t count = 0;
    struct tw_error err;
    Towline__V1__MigrationLimits copy = *limits;
    const struct tw_move move = {d->source, d->destination, memory_bytes, tw_wall_ms()};
    snprintf(name, TW_NAME_SIZE, TW_MIRROR_AUTO);
    enum tw_code code = tw_catalogue_hosts(d->owner->config.reach.catalogue, &hosts, &count, &err);
    for (size_t i = 0; i < count && code == TW_OK; i++)
        hosts[i].record.alive &= strcmp(hosts[i].record.name, d->mirror.host) != 0;
    if (code == TW_OK)
        code = tw_mirror_place(hosts, count, &move, d->destination, &copy, name, NULL, &err);
    if (code != TW_OK)
        name[0] = 0;
    free(hosts);
}

/* In the record, so that whoever asks later, or another controller, knows it, and in `limits`. */
static enum tw_code write_down(struct tw_drive *d, const char *name,
                               Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = "another mirror"};
    char *text = strdup(name);
    if (!text)
        return tw_no_memory(d->id, err);
    free(limits->mirror); /* it had one */
    limits->mirror = text;
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    enum tw_code code =
        tw_message_keep(&limits->base, d->id, m.limits, sizeof m.limits, &m.limits_size, err);
    if (code == TW_OK)
        code = tw_drive_write(d, &m, &change, err);
    pthread_mutex_unlock(&d->lock);
    return code;
}

/* OK: another host was chosen, which is in d->mirror.host, or none is. */
static enum tw_code go_on_without(struct tw_drive *d, uint64_t memory_bytes,
                                  Towline__V1__MigrationLimits *limits, const struct tw_error *why,
                                  struct tw_error *err)
{
    char name[TW_NAME_SIZE] = "", what[TW_REASON_SIZE];
    if (++d->mirror.tries < TRIES_MAX)
        next_best(d, memory_bytes, limits, name);
    enum tw_code code = write_down(d, name[0] ? name : TW_MIRROR_AUTO, limits, err);
    if (code != TW_OK)
        return code;
    if (name[0])
        snprintf(what, sizeof what, "%.120s; %s is asked instead", why->what, name);
    else
        snprintf(what, sizeof what, "%.120s: the VM moves without a mirror", why->what);
    tw_drive_mirror_tell(d, TW_LOG_WARN, what);
    snprintf(d->mirror.reason, sizeof d->mirror.reason, "%.63s: %.120s", d->mirror.host, why->what);
    pthread_mutex_lock(&d->lock);
    memcpy(d->mirror.host, name, sizeof d->mirror.host);
    memcpy(d->mirror_host, name, sizeof d->mirror_host);
    if (!name[0]) {
        d->mirror.state = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_WITHOUT;
        d->mirror_word = TW_MIRROR_LACKS;
    }
    pthread_mutex_unlock(&d->lock);
    return TW_OK;
}

enum tw_code tw_drive_mirror_hold(struct tw_drive *d, uint64_t memory_bytes,
                                  Towline__V1__MigrationLimits *limits,
                                  Towline__V1__HoldMirrorResponse **answer, struct tw_error *err)
{
    *answer = NULL;
    pthread_mutex_lock(&d->lock); /* the method may have been chosen since */
    tw_mirror_host(&d->record, d->mirror.host);
    memcpy(d->mirror_host, d->mirror.host, sizeof d->mirror_host);
    pthread_mutex_unlock(&d->lock);
    while (d->mirror.host[0]) {
        struct tw_error why = {0};
        enum tw_code code = ask(d, memory_bytes, limits, answer, &why);
        if (code == TW_OK) {
            d->mirror.hold_since_ns = 0;
            return TW_OK;
        }
        if (limits->mirror_optional)
            code = go_on_without(d, memory_bytes, limits, &why, err);
        else
            *err = why;
        if (code == TW_OK)
            continue;
        if (!d->mirror.hold_since_ns)
            d->mirror.hold_since_ns = tw_now(&tw_monotonic);
        return code;
    }
    return TW_OK;
}

bool tw_drive_mirror_holds_on(const struct tw_drive *d, enum tw_code code)
{
    return d->mirror.hold_since_ns && tw_agents_silent(code) &&
           tw_now(&tw_monotonic) < tw_after(d->mirror.hold_since_ns, HOLD_LIMIT_NS);
}
