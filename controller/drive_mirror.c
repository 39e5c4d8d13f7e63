/* The third host of a migration with a mirror: looked at while the migration lasts, and, where the
 * source has nothing any more, the one that the destination goes on from. Where it does not answer
 * nobody decides against it: it may have everything, so the VM waits until it is heard or an
 * operator declares it lost. Released by whoever settles what is owed. */
#include "controller/drive.h"

#include "controller/mirror.h"
#include "controller/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_MS     500u
#define ASK_NS     (500 * TW_MS)
#define SILENT_NS  (2 * TW_SEC) /* between two questions to one that does not answer */
#define TELL_MS    2000u
#define SILENCE_NS (3 * TW_SEC)

#define STATE(name) TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_##name

/* ---- What is known of it ------------------------------------------------------------------- */

void tw_drive_mirror_init(struct tw_drive *d)
{
    const struct tw_migration_record *m = &d->record;
    Towline__V1__MigrationProgress *p =
        towline__v1__migration_progress__unpack(NULL, m->progress_size, m->progress);
    tw_mirror_host(m, d->mirror.host);
    d->mirror.known = m->state > TW_MIGRATION_PREPARING;
    d->mirror_word = TW_MIRROR_UNHEARD;
    if (tw_mirror_missed(m) || (p && p->mirror_state == STATE(WITHOUT))) {
        d->mirror.state = STATE(WITHOUT);
        d->mirror_word = TW_MIRROR_LACKS;
        snprintf(d->mirror.reason, sizeof d->mirror.reason, "%s", p ? p->mirror_reason : "");
    }
    if (p)
        towline__v1__migration_progress__free_unpacked(p, NULL);
    memcpy(d->mirror_host, d->mirror.host, sizeof d->mirror_host);
}

static void set_word(struct tw_drive *d, enum tw_mirror_word word)
{
    pthread_mutex_lock(&d->lock);
    d->mirror_word = d->record.fenced & TW_FENCED_MIRROR ? TW_MIRROR_LACKS : word;
    pthread_mutex_unlock(&d->lock);
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

void tw_drive_mirror_tell(struct tw_drive *d, enum tw_log_level level, const char *what)
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
    d->mirror.state = state;
    if ((size_t)state < sizeof texts / sizeof *texts && texts[state])
        tw_drive_mirror_tell(d, state == STATE(HOLDING) ? TW_LOG_INFO : TW_LOG_WARN, texts[state]);
}

static void silent(struct tw_drive *d, uint64_t now)
{
    if (!d->mirror.silent_since_ns)
        d->mirror.silent_since_ns = now;
    if (now > d->mirror.silent_since_ns + SILENCE_NS)
        become(d, STATE(SILENT));
    set_word(d, TW_MIRROR_UNHEARD);
}

void tw_drive_mirror_ask(struct tw_drive *d)
{
    const uint64_t now = tw_now(&tw_monotonic);
    const uint64_t pause_ns = d->mirror.state == STATE(SILENT) ? SILENT_NS : ASK_NS;
    Towline__V1__GetMirrorResponse *r = NULL;
    if (!d->mirror.host[0] || !d->mirror.known || d->mirror.state == STATE(WITHOUT) ||
        now < d->mirror.asked_ns + pause_ns)
        return;
    enum tw_code code =
        tw_reach_mirror(&d->owner->config.reach, d->mirror.host, d->id, ASK_MS, &r, NULL);
    d->mirror.asked_ns = tw_now(&tw_monotonic);
    if (code != TW_OK) {
        silent(d, now);
        return;
    }
    d->mirror.silent_since_ns = 0;
    if (r->lines_held) { /* let go, it was as much as before */
        d->mirror.lines = r->lines_held;
        d->mirror.bytes = r->bytes_held;
    }
    Towline__V1__MirrorState state = state_of(r);
    bool holds = state == STATE(HOLDING) || state == STATE(SERVING);
    become(d, state);
    set_word(d, holds ? TW_MIRROR_HOLDS : TW_MIRROR_LACKS);
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

void tw_drive_mirror_hear(struct tw_drive *d, const Towline__V1__MigrationProgress *p)
{
    if (p->mirror_state != STATE(WITHOUT) || d->mirror.state == STATE(WITHOUT))
        return;
    char what[TW_REASON_SIZE];
    snprintf(what, sizeof what, "%.150s: the VM moves without a mirror", p->mirror_reason);
    snprintf(d->mirror.reason, sizeof d->mirror.reason, "%s", p->mirror_reason);
    d->mirror.state = STATE(WITHOUT);
    set_word(d, TW_MIRROR_LACKS);
    tw_drive_mirror_tell(d, TW_LOG_WARN, what);
}

void tw_drive_mirror_stamp(const struct tw_drive *d, Towline__V1__MigrationProgress *p)
{
    if (d->mirror.state == STATE(WITHOUT) && !p->mirror_reason[0]) {
        char *reason = strdup(d->mirror.reason);
        if (reason && p->mirror_reason != (const char *)protobuf_c_empty_string)
            free(p->mirror_reason);
        if (reason)
            p->mirror_reason = reason;
    }
    if (!d->mirror.host[0] && d->mirror.state != STATE(WITHOUT))
        return;
    p->mirror_state = d->mirror.state ? d->mirror.state : STATE(FILLING);
    p->mirror_lines = d->mirror.lines;
    p->mirror_bytes = d->mirror.bytes;
}

/* ---- What it decides ----------------------------------------------------------------------- */

static bool source_is_lost(const struct tw_drive *d, const struct tw_migration_record *m)
{
    return m->fenced & TW_FENCED_SOURCE && !d->answer[TW_SOURCE_SIDE].answers;
}

/* Its destination is prepared, and its source will never send what is missing there. */
static void judge_commit(const struct tw_drive *d, struct tw_verdict *v)
{
    if (d->mirror_word == TW_MIRROR_HOLDS)
        return;
    bool heard = d->mirror_word == TW_MIRROR_LACKS;
    v->action = heard ? TW_ACTION_ABORT : TW_ACTION_DOUBT;
    if (heard)
        snprintf(v->reason, sizeof v->reason,
                 "the source is lost, and nobody has the memory that the destination misses");
    else
        snprintf(v->reason, sizeof v->reason,
                 "the source is lost; mirror %.63s may have what is missing and does not answer",
                 d->mirror.host);
}

bool tw_drive_mirror_judge(struct tw_drive *d, const struct tw_migration_record *m,
                           struct tw_verdict *v)
{
    const struct tw_answer *t = &d->answer[TW_DESTINATION_SIDE];
    if (v->action == TW_ACTION_COMMIT && m->decision != TW_DECIDED_COMMIT && t->lacks &&
        source_is_lost(d, m))
        judge_commit(d, v);
    bool replaced =
        v->action == TW_ACTION_ABANDON && d->mirror.host[0] && d->mirror_word != TW_MIRROR_LACKS;
    if (replaced && !t->path_lost)
        v->action = TW_ACTION_WAIT; /* it goes on from there, or was not heard now */
    if (!replaced || !t->path_lost) {
        d->mirror.wanted &= t->path_lost;
        return false;
    }
    bool holds = d->mirror_word == TW_MIRROR_HOLDS;
    v->action = TW_ACTION_DOUBT;
    snprintf(v->reason, sizeof v->reason,
             holds ? "the source has nothing any more; the destination goes on from mirror %.63s"
                   : "the source has nothing any more; mirror %.63s may have it and does not "
                     "answer: it is waited for until it is declared lost",
             d->mirror.host);
    /* Once, and when it is heard again or the destination has stopped trying. */
    bool order = !d->mirror.wanted || (holds && t->paused);
    d->mirror.wanted = true;
    return order;
}

void tw_drive_mirror_order(struct tw_drive *d)
{
    struct tw_error err = {0};
    if (tw_reach_from_mirror(&d->owner->config.reach, d->destination, d->id, TELL_MS, &err) ==
        TW_OK)
        return;
    d->mirror.wanted = false;
    tw_log(TW_LOG_WARN, "migration", "not told", "migration=%s action=from_mirror what=\"%s\"",
           d->id, err.what);
}

static enum tw_prospect by_word(const struct tw_drive *d, enum tw_prospect if_held)
{
    if (!d->mirror_host[0] || d->mirror_word == TW_MIRROR_LACKS)
        return TW_PROSPECT_LOST;
    return d->mirror_word == TW_MIRROR_HOLDS ? if_held : TW_PROSPECT_AWAITED;
}

enum tw_prospect tw_drive_mirror_prospect(const struct tw_drive *d, enum tw_fenced lost)
{
    struct tw_resolve_view view = d->view;
    const enum tw_fenced sides = d->record.fenced & TW_FENCED_BOTH;
    const bool runs_there = d->record.destination_known == TW_KNOWN_PARTLY &&
                            !(sides & TW_FENCED_DESTINATION) && lost != TW_FENCED_DESTINATION;
    view.fenced = sides;
    enum tw_prospect p = tw_resolve_prospect(&view, lost & TW_FENCED_BOTH);
    if (lost == TW_FENCED_MIRROR) {
        bool needed = runs_there && tw_resolve(&view).action == TW_ACTION_ABANDON;
        bool half = d->lacks && !runs_there && p == TW_PROSPECT_DESTINATION_RESUMES;
        return needed || half ? TW_PROSPECT_LOST : TW_PROSPECT_UNMIRRORED;
    }
    if (p == TW_PROSPECT_LOST && runs_there && lost & TW_FENCED_SOURCE)
        return by_word(d, TW_PROSPECT_MIRROR);
    if (p == TW_PROSPECT_DESTINATION_RESUMES && d->lacks)
        return by_word(d, p);
    return p;
}

enum tw_code tw_drive_mirror_suffices(const struct tw_drive *d, struct tw_error *err)
{
    static const char *const given[] = {"it does not hold it", "", "it does not answer"};
    if (!d->lacks || d->mirror_word == TW_MIRROR_HOLDS)
        return TW_OK;
    return tw_fail(err, TW_FAILED_PRECONDITION, d->id,
                   "a mirror that holds what the destination misses",
                   d->mirror_host[0] ? given[d->mirror_word] : "no mirror",
                   "the destination does not hold the whole VM");
}
