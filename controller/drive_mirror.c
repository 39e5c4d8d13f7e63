/* The third host of a migration with a mirror: asked to keep what follows the VM before the others
 * are told anything, looked at while the migration lasts, and, where the source has nothing any
 * more, the one that the destination goes on from. Released by whoever settles what is owed. */
#include "controller/drive.h"

#include "base/log.h"
#include "controller/mirror.h"

#include <stdio.h>
#include <string.h>

#define HOLD_MS    5000u
#define CONNECT_MS 45000u /* longer than the destination waits: it is asked first */
#define ASK_MS     500u
#define ASK_NS     (500 * TW_MS)
#define TELL_MS    2000u
#define SILENCE_NS (3 * TW_SEC)

#define STATE(name) TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_##name

enum tw_code tw_drive_mirror_hold(struct tw_drive *d, uint64_t memory_bytes,
                                  Towline__V1__MigrationLimits *limits,
                                  Towline__V1__HoldMirrorResponse **answer, struct tw_error *err)
{
    Towline__V1__HoldMirrorRequest r = TOWLINE__V1__HOLD_MIRROR_REQUEST__INIT;
    *answer = NULL;
    pthread_mutex_lock(&d->lock); /* the method may have been chosen since */
    tw_mirror_host(&d->record, d->mirror.host);
    pthread_mutex_unlock(&d->lock);
    if (!d->mirror.host[0])
        return TW_OK;
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

static Towline__V1__MirrorState state_of(const Towline__V1__GetMirrorResponse *r)
{
    if (!r->known)
        return STATE(LOST);
    if (strcmp(r->phase, "released") == 0)
        return r->error ? STATE(LOST) : STATE(RELEASED);
    if (!r->complete)
        return STATE(FILLING);
    return strcmp(r->phase, "serving") == 0 ? STATE(SERVING) : STATE(HOLDING);
}

static void tell(struct tw_drive *d, enum tw_log_level level, const char *what)
{
    struct tw_store *store = d->owner->config.store;
    struct tw_error err = {0};
    const char *pairs[] = {"mirror", d->mirror.host, "vm", d->vm, NULL};
    tw_log(level, "migration", "mirror", "migration=%s mirror=%s what=\"%s\"", d->id,
           d->mirror.host, what);
    if (tw_store_begin(store, TW_STORE_RELAXED, &err) == TW_OK)
        tw_store_end(store,
                     tw_store_event(store, "migration.mirror", d->id, pairs, &err, "mirror %s: %s",
                                    d->mirror.host, what),
                     &err);
}

static void become(struct tw_drive *d, Towline__V1__MirrorState state)
{
    static const char *const texts[] = {
        [STATE(HOLDING)] = "holds what follows the VM",
        [STATE(SERVING)] = "the destination goes on from it",
        [STATE(SILENT)] = "does not answer: as long as that lasts nobody but the source is sure",
        [STATE(LOST)] = "holds nothing any more: no longer mirrored",
    };
    if (state == d->mirror.state)
        return;
    pthread_mutex_lock(&d->lock); /* an operator's order looks at it */
    d->mirror.state = state;
    pthread_mutex_unlock(&d->lock);
    if ((size_t)state < sizeof texts / sizeof *texts && texts[state])
        tell(d, state == STATE(HOLDING) ? TW_LOG_INFO : TW_LOG_WARN, texts[state]);
}

void tw_drive_mirror_ask(struct tw_drive *d)
{
    const uint64_t now = tw_now(&tw_monotonic);
    Towline__V1__GetMirrorResponse *r = NULL;
    if (!d->mirror.host[0] || !d->mirror.known || now < d->mirror.asked_ns + ASK_NS)
        return;
    d->mirror.asked_ns = now;
    if (tw_reach_mirror(&d->owner->config.reach, d->mirror.host, d->id, ASK_MS, &r, NULL) !=
        TW_OK) {
        if (!d->mirror.silent_since_ns)
            d->mirror.silent_since_ns = now;
        if (now > d->mirror.silent_since_ns + SILENCE_NS)
            become(d, STATE(SILENT));
        return;
    }
    d->mirror.silent_since_ns = 0;
    if (r->lines_held) { /* let go, it was as much as before */
        d->mirror.lines = r->lines_held;
        d->mirror.bytes = r->bytes_held;
    }
    become(d, state_of(r));
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

void tw_drive_mirror_stamp(const struct tw_drive *d, Towline__V1__MigrationProgress *p)
{
    if (!d->mirror.host[0])
        return;
    p->mirror_state = d->mirror.state ? d->mirror.state : STATE(FILLING);
    p->mirror_lines = d->mirror.lines;
    p->mirror_bytes = d->mirror.bytes;
}

/* Until it is heard that it has nothing, or an operator gives that word for it, it may have all. */
bool tw_drive_mirror_may_hold(const struct tw_drive *d)
{
    const Towline__V1__MirrorState state = d->mirror.state;
    const bool lost = d->record.fenced & TW_FENCED_MIRROR && state == STATE(SILENT);
    return d->mirror.host[0] && !lost && state != STATE(LOST) && state != STATE(FILLING);
}

bool tw_drive_mirror_silent(const struct tw_drive *d)
{
    return d->mirror.state == STATE(SILENT);
}

bool tw_drive_mirror_replaces(struct tw_drive *d)
{
    struct tw_error err = {0};
    pthread_mutex_lock(&d->lock);
    bool may = tw_drive_mirror_may_hold(d);
    pthread_mutex_unlock(&d->lock);
    if (!may)
        return false;
    /* One that does not answer hears it when it does; one that gets the rest needs no word. */
    if (!d->answer[TW_DESTINATION_SIDE].path_lost)
        return true;
    if (tw_reach_from_mirror(&d->owner->config.reach, d->destination, d->id, TELL_MS, &err) !=
        TW_OK)
        tw_log(TW_LOG_WARN, "migration", "not told", "migration=%s action=from_mirror what=\"%s\"",
               d->id, err.what);
    return true;
}
