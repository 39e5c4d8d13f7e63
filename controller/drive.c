/* The job of one migration: a step asks both sides, decides (resolve.h), writes, acts. */
#include "controller/drive.h"

#include "base/fault.h"
#include "base/log.h"
#include "controller/drive_begin.h"

#include <stdio.h>
#include <string.h>

#define COPYING_NS         (100 * TW_MS)
#define SWITCHING_NS       (20 * TW_MS)
#define SLOW_MAX_NS        (1 * TW_SEC)
#define DOUBT_FIRST_NS     (100 * TW_MS)
#define DOUBT_LAST_NS      (10 * TW_SEC)
#define SILENCE_NS         (2 * TW_SEC) /* until silence is told as such */
#define GIVEN_UP_STUCK_NS  (5 * TW_SEC) /* after that a source that has given up needs help */
#define LAST_WORD_NS       (5 * TW_SEC) /* for the figures of a source that is busy with its end */
#define LAST_WORD_AGAIN_NS (200 * TW_MS)
#define OUT_STUCK_NS       (2 * TW_SEC) /* ... and one whose destination is out */
#define SAVE_PROGRESS_NS   TW_SEC
#define CANCEL_AGAIN_NS    TW_SEC
#define TIMEOUT_GRACE_MS   2000u /* the source minds the timeout by itself */
#define CALL_MS            2000u
#define ALARM_AFTER        5u

/* ---- What is known ------------------------------------------------------------------------- */

/* Until they are asked again. Hosts on which answers take long have better things to do. */
static uint64_t pause_of(const struct tw_drive *d, enum tw_migration_state state)
{
    const uint64_t slow = d->asking_ns * 2 < SLOW_MAX_NS ? d->asking_ns * 2 : SLOW_MAX_NS;
    const uint64_t usual = state == TW_MIGRATION_SWITCHING ? SWITCHING_NS : COPYING_NS;
    return slow > usual ? slow : usual;
}

static void ask_both(struct tw_drive *d)
{
    const uint64_t begin = tw_now(&tw_monotonic);
    /* In this order: a destination that owns is never older news than the source's answer. */
    tw_drive_ask(d, TW_SOURCE_SIDE);
    tw_drive_ask(d, TW_DESTINATION_SIDE);
    const struct tw_answer *s = &d->answer[TW_SOURCE_SIDE], *t = &d->answer[TW_DESTINATION_SIDE];
    uint64_t now = tw_now(&tw_monotonic);
    d->asking_ns = now - begin;
    if (s->answers && t->answers)
        d->silent_since_ns = 0;
    else if (!d->silent_since_ns)
        d->silent_since_ns = now;
    if (d->seen[TW_SOURCE_SIDE] != s->known || d->seen[TW_DESTINATION_SIDE] != t->known) {
        d->seen[TW_SOURCE_SIDE] = s->known;
        d->seen[TW_DESTINATION_SIDE] = t->known;
        d->seen_since_ns = now;
    }
    if (!d->cause.code && s->error.code && s->answers)
        d->cause = s->error;
    if (!d->cause.code && t->error.code && t->answers)
        d->cause = t->error;
}

/* A source that neither finishes nor says that its peer is lost is taken for stuck in the end. */
static bool source_waits_too_long(const struct tw_drive *d)
{
    uint64_t still = tw_now(&tw_monotonic) - d->seen_since_ns;
    enum tw_known t = d->seen[TW_DESTINATION_SIDE];
    if (d->seen[TW_SOURCE_SIDE] == TW_KNOWN_GIVEN_UP) /* post-copy serves as long as it takes */
        return !d->answer[TW_SOURCE_SIDE].serving && still > GIVEN_UP_STUCK_NS;
    return d->seen[TW_SOURCE_SIDE] == TW_KNOWN_ACTIVE &&
           (t == TW_KNOWN_ABORTED || t == TW_KNOWN_UNKNOWN) && still > OUT_STUCK_NS;
}

static void merge(struct tw_drive *d, struct tw_migration_record *m)
{
    const struct tw_answer *s = &d->answer[TW_SOURCE_SIDE], *t = &d->answer[TW_DESTINATION_SIDE];
    m->source_known = tw_known_merge(true, m->source_known, s->known, s->holds_vm);
    m->destination_known = tw_known_merge(false, m->destination_known, t->known, t->holds_vm);
    /* A destination that did not live to say so itself. */
    if (s->peer_ran)
        m->destination_known =
            tw_known_merge(false, m->destination_known, TW_KNOWN_PARTLY, t->holds_vm);
}

static struct tw_verdict judge(struct tw_drive *d, const struct tw_migration_record *m)
{
    const struct tw_answer *s = &d->answer[TW_SOURCE_SIDE], *t = &d->answer[TW_DESTINATION_SIDE];
    d->view = (struct tw_resolve_view){
        .source = {m->source_known, s->answers, s->peer_lost || source_waits_too_long(d),
                   s->holds_vm, s->vm_ended},
        .destination = {m->destination_known, t->answers, t->peer_lost, t->holds_vm, t->vm_ended},
        .decided = m->decision,
        .fenced = m->fenced,
    };
    struct tw_verdict verdict = tw_resolve(&d->view);
    /* Nobody can take back a VM whose process is gone. */
    if (verdict.action == TW_ACTION_RECLAIM && s->vm_ended)
        verdict.action = TW_ACTION_LOST;
    return verdict;
}

/* ---- The end ------------------------------------------------------------------------------- */

static void end_error(struct tw_drive *d, struct tw_migration_record *m,
                      const struct tw_verdict *verdict)
{
    if (m->state == TW_MIGRATION_LOST && verdict->action == TW_ACTION_COMPLETE)
        return; /* the destination has said why */
    tw_error_clear(&m->error);
    if (m->state == TW_MIGRATION_COMPLETED)
        return;
    if (m->state == TW_MIGRATION_LOST && m->fenced)
        tw_fail(&m->error, TW_DATA_LOSS, m->id, NULL, NULL, "vm lost with its host: %s",
                verdict->reason);
    else if (m->state == TW_MIGRATION_CANCELLED)
        tw_fail(&m->error, TW_CANCELLED, m->id, NULL, NULL, "cancelled by an operator");
    else if (d->timed_out)
        tw_fail(&m->error, TW_DEADLINE_EXCEEDED, m->id, NULL, NULL,
                "the migration's time was over");
    else if (d->cause.code)
        m->error = d->cause;
    else
        tw_fail(&m->error, TW_ABORTED, m->id, NULL, NULL, "%s", verdict->reason);
}

/* Who keeps the VM, and what is still to be told to whom. */
static void end_at_destination(const struct tw_drive *d, struct tw_migration_record *m,
                               struct tw_drive_change *change)
{
    m->state = TW_MIGRATION_COMPLETED;
    if (d->answer[TW_DESTINATION_SIDE].holds_vm)
        m->destination_known = TW_KNOWN_COMMITTED;
    if (m->source_known != TW_KNOWN_COMMITTED || m->fenced & TW_FENCED_SOURCE)
        m->owed |= TW_OWED_SOURCE_FINISH;
    change->host = d->destination;
    change->epoch = m->epoch;
    change->state = TW_VM_RUNNING;
    change->reason = "";
    if (d->answer[TW_DESTINATION_SIDE].error.code == TW_DATA_LOSS) { /* its memory did not follow */
        m->state = TW_MIGRATION_LOST;
        m->error = d->answer[TW_DESTINATION_SIDE].error;
        change->state = TW_VM_FAILED;
        change->reason = m->error.what;
    }
}

static void end_at_source(const struct tw_drive *d, struct tw_migration_record *m,
                          struct tw_drive_change *change)
{
    const struct tw_answer *s = &d->answer[TW_SOURCE_SIDE];
    m->state = m->cancel_requested && !d->timed_out ? TW_MIGRATION_CANCELLED : TW_MIGRATION_FAILED;
    change->host = d->source;
    change->epoch = m->decision == TW_DECIDED_RECLAIM ? m->reclaim_epoch : m->source_epoch;
    change->reason = "";
    change->state = TW_VM_RUNNING;
    if (s->has_report) {
        change->epoch = s->report.epoch;
        change->state = s->report.state;
    }
    if (m->decision != TW_DECIDED_RECLAIM)
        m->decision = TW_DECIDED_ABORT;
    if (m->destination_known != TW_KNOWN_ABORTED || m->fenced & TW_FENCED_DESTINATION)
        m->owed |= TW_OWED_DESTINATION_ABORT;
}

/* Whatever is left of it anywhere is older than the record's epoch, and goes when it is found. */
static void end_with_host(const struct tw_drive *d, struct tw_migration_record *m,
                          struct tw_drive_change *change)
{
    if (m->fenced == TW_FENCED_SOURCE)
        change->host = d->destination; /* the host that is there is asked to forget it */
    change->epoch = (m->reclaim_epoch ? m->reclaim_epoch : m->epoch) + 1;
    change->reason = "an operator declared a host lost that had the only copy";
    if (m->fenced & TW_FENCED_SOURCE || m->source_known == TW_KNOWN_ACTIVE)
        m->owed |= TW_OWED_SOURCE_FINISH;
    if (m->fenced & TW_FENCED_DESTINATION)
        m->owed |= TW_OWED_DESTINATION_ABORT;
}

static void end_nowhere(const struct tw_drive *d, struct tw_migration_record *m,
                        struct tw_drive_change *change)
{
    m->state = TW_MIGRATION_LOST;
    change->host = d->source;
    change->state = TW_VM_FAILED;
    change->reason = "its process ended while it was migrated";
    if (m->destination_known != TW_KNOWN_ABORTED)
        m->owed |= TW_OWED_DESTINATION_ABORT;
    if (m->source_known == TW_KNOWN_GIVEN_UP)
        m->owed |= TW_OWED_SOURCE_FINISH;
    if (m->fenced)
        end_with_host(d, m, change);
}

/* Called with the lock. */
static uint64_t end(struct tw_drive *d, struct tw_migration_record *m,
                    const struct tw_verdict *verdict)
{
    struct tw_drive_change change = {
        .mode = TW_STORE_DURABLE, .why = verdict->reason, .release = true};
    if (verdict->action == TW_ACTION_COMPLETE)
        end_at_destination(d, m, &change);
    else if (verdict->action == TW_ACTION_KEEP)
        end_at_source(d, m, &change);
    else
        end_nowhere(d, m, &change);
    end_error(d, m, verdict);
    if (d->mirror.host[0])
        m->owed |= TW_OWED_MIRROR_RELEASE;
    m->ended_unix_ms = tw_wall_ms();
    if (tw_drive_write(d, m, &change, NULL) != TW_OK)
        return tw_after(tw_now(&tw_monotonic), TW_SEC);
    return TW_NEVER;
}

/* ---- Under way ----------------------------------------------------------------------------- */

static uint64_t in_ns(uint64_t delay_ns)
{
    return tw_after(tw_now(&tw_monotonic), delay_ns);
}

static uint64_t back_off(unsigned times)
{
    uint64_t delay = DOUBT_FIRST_NS;
    while (times-- && delay < DOUBT_LAST_NS)
        delay *= 2;
    return in_ns(delay < DOUBT_LAST_NS ? delay : DOUBT_LAST_NS);
}

/* The operator's or the clock's wish to end it goes to the source, which may still refuse. */
static void forward_cancel(struct tw_drive *d, const struct tw_migration_record *m)
{
    uint64_t now = tw_now(&tw_monotonic), wall = tw_wall_ms();
    const struct tw_answer *s = &d->answer[TW_SOURCE_SIDE];
    if (wall > tw_drive_deadline_ms(m) + TIMEOUT_GRACE_MS)
        d->timed_out = true;
    if ((!m->cancel_requested && !d->timed_out) || s->known != TW_KNOWN_ACTIVE ||
        (d->cancel_sent_ns && now < d->cancel_sent_ns + CANCEL_AGAIN_NS))
        return;
    d->cancel_sent_ns = now;
    tw_reach_cancel(&d->owner->config.reach, d->source, d->id, CALL_MS, NULL);
}

static enum tw_migration_state following(const struct tw_drive *d,
                                         const struct tw_migration_record *m)
{
    uint64_t now = tw_now(&tw_monotonic);
    if (d->silent_since_ns &&
        (m->state == TW_MIGRATION_RESOLVING || now > d->silent_since_ns + SILENCE_NS))
        return TW_MIGRATION_RESOLVING;
    if (d->answer[TW_DESTINATION_SIDE].path_lost)
        return TW_MIGRATION_RESOLVING;
    if (m->source_known == TW_KNOWN_GIVEN_UP || m->destination_known == TW_KNOWN_PREPARED ||
        m->destination_known == TW_KNOWN_COMMITTED || m->destination_known == TW_KNOWN_PARTLY ||
        d->answer[TW_SOURCE_SIDE].switching)
        return TW_MIGRATION_SWITCHING;
    /* Without the source's word it is where it was. */
    return d->answer[TW_SOURCE_SIDE].answers || m->state == TW_MIGRATION_RESOLVING
               ? TW_MIGRATION_COPYING
               : m->state;
}

static void resolving(struct tw_migration_record *m, struct tw_drive_change *change,
                      const struct tw_verdict *verdict)
{
    m->state = TW_MIGRATION_RESOLVING;
    tw_fail(&m->error, TW_UNAVAILABLE, m->id, "the answers of both hosts", NULL, "%s",
            verdict->reason);
    change->why = verdict->reason;
    if (m->source_known == TW_KNOWN_GIVEN_UP && m->destination_known != TW_KNOWN_PARTLY) {
        change->state = TW_VM_PAUSED;
        change->reason = verdict->reason;
    }
}

/* What people read while the destination has no path to the source. */
static struct tw_verdict path_verdict(const struct tw_drive *d, const struct tw_verdict *from)
{
    const struct tw_answer *t = &d->answer[TW_DESTINATION_SIDE];
    struct tw_verdict v = *from;
    if (t->paused)
        snprintf(v.reason, sizeof v.reason,
                 "no path to the source in time; the VM waits: tow migration reconnect %s", d->id);
    else if (t->path_lost)
        snprintf(v.reason, sizeof v.reason,
                 "the path is lost; the destination connects to the source again");
    return v;
}

/* A source that has started again may listen elsewhere; without the lock. */
static void tell_where(struct tw_drive *d)
{
    char fabric[TW_URL_SIZE], verbs[TW_URL_SIZE];
    const struct tw_reach *reach = &d->owner->config.reach;
    if (!d->answer[TW_DESTINATION_SIDE].path_lost ||
        !tw_catalogue_addresses(reach->catalogue, d->source, fabric, verbs) ||
        strcmp(fabric, d->told_fabric) == 0)
        return;
    if (tw_reach_reconnect(reach, d->destination, d->id, fabric, verbs, false, CALL_MS, NULL) ==
        TW_OK)
        memcpy(d->told_fabric, fabric, sizeof fabric);
}

/* The agents are at it; called with the lock. */
static uint64_t go_on(struct tw_drive *d, struct tw_migration_record *m,
                      const struct tw_verdict *from)
{
    struct tw_verdict path = path_verdict(d, from);
    const struct tw_verdict *verdict = &path;
    struct tw_drive_change change = {.mode = TW_STORE_RELAXED, .why = verdict->reason};
    enum tw_migration_state state = following(d, m);
    uint64_t now = tw_now(&tw_monotonic);
    bool known = m->source_known != d->record.source_known ||
                 m->destination_known != d->record.destination_known;
    d->doubts = d->alarms = 0;
    if (state == TW_MIGRATION_RESOLVING) {
        resolving(m, &change, verdict);
    } else {
        m->state = state;
        tw_error_clear(&m->error);
    }
    if (m->state != d->record.state || known || now > d->saved_ns + SAVE_PROGRESS_NS) {
        d->saved_ns = now;
        tw_drive_write(d, m, &change, NULL);
    }
    return in_ns(pause_of(d, state));
}

/* Nobody can decide now; called with the lock. */
static uint64_t stay(struct tw_drive *d, struct tw_migration_record *m,
                     const struct tw_verdict *verdict)
{
    struct tw_drive_change change = {.mode = TW_STORE_DURABLE};
    bool alarm = verdict->action == TW_ACTION_ALARM;
    resolving(m, &change, verdict);
    if (m->state != d->record.state || strcmp(m->error.what, d->record.error.what) != 0 ||
        m->source_known != d->record.source_known ||
        m->destination_known != d->record.destination_known)
        tw_drive_write(d, m, &change, NULL);
    if (alarm && ++d->alarms == ALARM_AFTER)
        tw_drive_alarm(d, verdict->reason);
    return back_off(alarm ? 1 : d->doubts++);
}

static const struct {
    enum tw_decided decided;
    Towline__V1__Decision told;
    enum tw_side side;
} orders[TW_ACTION_COUNT] = {
    [TW_ACTION_ABORT] = {TW_DECIDED_ABORT, TOWLINE__V1__DECISION__DECISION_ABORT,
                         TW_DESTINATION_SIDE},
    [TW_ACTION_COMMIT] = {TW_DECIDED_COMMIT, TOWLINE__V1__DECISION__DECISION_COMMIT,
                          TW_DESTINATION_SIDE},
    [TW_ACTION_FINISH] = {TW_DECIDED_NOTHING, TOWLINE__V1__DECISION__DECISION_FINISH,
                          TW_SOURCE_SIDE},
    [TW_ACTION_ABANDON] = {TW_DECIDED_NOTHING, TOWLINE__V1__DECISION__DECISION_ABANDON,
                           TW_DESTINATION_SIDE},
    [TW_ACTION_RECLAIM] = {TW_DECIDED_RECLAIM, TOWLINE__V1__DECISION__DECISION_RECLAIM,
                           TW_SOURCE_SIDE},
};

/* Writes the decision down; called with the lock. False: it could not be, so it is none. */
static bool decide(struct tw_drive *d, struct tw_migration_record *m,
                   const struct tw_verdict *verdict)
{
    struct tw_drive_change change = {.mode = TW_STORE_DURABLE};
    enum tw_decided decided = orders[verdict->action].decided;
    /* The copy that is aborted while the source takes the VM back changes nothing about that. */
    if (decided != TW_DECIDED_NOTHING &&
        !(decided == TW_DECIDED_ABORT && m->decision == TW_DECIDED_RECLAIM))
        m->decision = decided;
    if (verdict->action == TW_ACTION_RECLAIM && !m->reclaim_epoch)
        m->reclaim_epoch = m->epoch + 1;
    resolving(m, &change, verdict);
    if (tw_drive_write(d, m, &change, NULL) != TW_OK)
        return false;
    tw_log(TW_LOG_INFO, "migration", "decision", "migration=%s action=%s why=\"%s\"", m->id,
           tw_action_name(verdict->action), verdict->reason);
    return true;
}

/* Tells a side what was decided, without the lock. */
static uint64_t tell(struct tw_drive *d, const struct tw_verdict *verdict, uint64_t reclaim_epoch)
{
    struct tw_error err = {0};
    const struct tw_reach *reach = &d->owner->config.reach;
    enum tw_code code;
    tw_fault_point("migration.decided");
    if (verdict->action == TW_ACTION_CANCEL) {
        code = tw_reach_cancel(reach, d->source, d->id, CALL_MS, &err);
    } else {
        enum tw_side side = orders[verdict->action].side;
        uint64_t epoch = verdict->action == TW_ACTION_RECLAIM ? reclaim_epoch : d->epoch;
        code = tw_reach_resolve(reach, side == TW_SOURCE_SIDE ? d->source : d->destination, d->id,
                                orders[verdict->action].told, epoch, CALL_MS, &err);
    }
    tw_fault_point("migration.told");
    if (code == TW_OK) {
        d->doubts = 0;
        return in_ns(SWITCHING_NS);
    }
    tw_log(TW_LOG_WARN, "migration", "not told", "migration=%s action=%s what=\"%s\"", d->id,
           tw_action_name(verdict->action), err.what);
    return back_off(d->doubts++);
}

/* The destination owns the VM, so the end is certain; but only the source knows the last figures,
 * and whether the memory was compared. One that was too busy for an answer is asked again. */
static bool awaits_last_word(const struct tw_drive *d, const struct tw_migration_record *m)
{
    return m->source_known == TW_KNOWN_GIVEN_UP && !d->answer[TW_SOURCE_SIDE].answers &&
           !(m->fenced & TW_FENCED_SOURCE) && d->silent_since_ns &&
           tw_now(&tw_monotonic) < tw_after(d->silent_since_ns, LAST_WORD_NS);
}

/* ---- Steps --------------------------------------------------------------------------------- */

static uint64_t follow(struct tw_drive *d)
{
    uint64_t next, reclaim_epoch;
    ask_both(d);
    tw_drive_mirror_ask(d);
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    merge(d, &m);
    struct tw_verdict verdict = judge(d, &m);
    if (verdict.action == TW_ACTION_COMPLETE && awaits_last_word(d, &m)) {
        pthread_mutex_unlock(&d->lock);
        return in_ns(LAST_WORD_AGAIN_NS);
    }
    switch (verdict.action) {
    case TW_ACTION_COMPLETE:
    case TW_ACTION_KEEP:
    case TW_ACTION_LOST:
        next = end(d, &m, &verdict);
        pthread_mutex_unlock(&d->lock);
        return next;
    case TW_ACTION_WAIT:
        next = go_on(d, &m, &verdict);
        pthread_mutex_unlock(&d->lock);
        forward_cancel(d, &m);
        tell_where(d);
        return next;
    case TW_ACTION_DOUBT:
    case TW_ACTION_ALARM:
        next = stay(d, &m, &verdict);
        pthread_mutex_unlock(&d->lock);
        return next;
    case TW_ACTION_ABANDON:
        if (d->answer[TW_DESTINATION_SIDE].path_lost && d->mirror.host[0]) {
            pthread_mutex_unlock(&d->lock);
            if (tw_drive_mirror_replaces(d))
                return in_ns(TW_SEC);
            pthread_mutex_lock(&d->lock);
        }
        break;
    default:
        break;
    }
    bool decided = decide(d, &m, &verdict);
    reclaim_epoch = d->record.reclaim_epoch;
    pthread_mutex_unlock(&d->lock);
    return decided ? tell(d, &verdict, reclaim_epoch) : in_ns(TW_SEC);
}

uint64_t tw_drive_step(void *ctx)
{
    struct tw_drive *d = ctx;
    uint64_t next;
    pthread_mutex_lock(&d->lock);
    enum tw_migration_state before = d->record.state;
    pthread_mutex_unlock(&d->lock);
    if (before == TW_MIGRATION_PENDING)
        next = tw_drive_pending(d);
    else if (before == TW_MIGRATION_PREPARING)
        next = tw_drive_prepare(d);
    else
        next = follow(d);
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    pthread_mutex_unlock(&d->lock);
    if (m.state == TW_MIGRATION_RESOLVING || tw_migration_ended(&m))
        tw_drive_count(d, false);
    if (!tw_migration_ended(&m))
        return next;
    tw_migrations_count_end(d->owner, &m);
    if (m.owed && d->owner->config.on_owed)
        d->owner->config.on_owed(d->owner->config.ctx);
    return TW_NEVER;
}
