#include "controller/drive_begin.h"

#include "base/fault.h"
#include "base/log.h"
#include "controller/plans.h"
#include "controller/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_TIMEOUT_MS 600000u
#define CONNECT_MS         30000u /* the destination waits that long for the source */
#define PREPARE_MS         15000u
#define START_MS           5000u
#define ASK_MS             1000u
#define ABORT_MS           2000u
#define CHOICE_MS          2000u /* a VM is measured before a method is chosen for it */
#define CHOICE_POLL_NS     (100 * TW_MS)
#define WAIT_TURN_NS       (200 * TW_MS)
#define COPYING_NS         (20 * TW_MS)

static Towline__V1__MigrationLimits *limits_of(const struct tw_migration_record *m)
{
    return towline__v1__migration_limits__unpack(NULL, m->limits_size, m->limits);
}

uint64_t tw_drive_deadline_ms(const struct tw_migration_record *m)
{
    Towline__V1__MigrationLimits *limits = limits_of(m);
    uint64_t timeout = limits && limits->timeout_ms ? limits->timeout_ms : DEFAULT_TIMEOUT_MS;
    if (limits)
        towline__v1__migration_limits__free_unpacked(limits, NULL);
    return m->created_unix_ms + timeout;
}

void tw_drive_alarm(struct tw_drive *d, const char *reason)
{
    struct tw_store *store = d->owner->config.store;
    struct tw_error err = {0};
    const char *pairs[] = {"migration",   d->id,          "source", d->source,
                           "destination", d->destination, NULL};
    tw_log(TW_LOG_ERROR, "migration", "contradiction", "migration=%s vm=%s what=\"%s\"", d->id,
           d->vm, reason);
    if (tw_store_begin(store, TW_STORE_RELAXED, &err) == TW_OK)
        tw_store_end(store,
                     tw_store_event(store, "vm.conflict", d->vm, pairs, &err,
                                    "the hosts of %s contradict each other: %s", d->id, reason),
                     &err);
}

/* ---- An end before the source was told anything -------------------------------------------- */

static uint64_t end(struct tw_drive *d, const struct tw_error *why, bool owed)
{
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    m.state = m.cancel_requested ? TW_MIGRATION_CANCELLED : TW_MIGRATION_FAILED;
    m.decision = TW_DECIDED_ABORT;
    m.owed = owed ? TW_OWED_DESTINATION_ABORT : TW_OWED_NOTHING;
    if (d->mirror.host[0])
        m.owed |= TW_OWED_MIRROR_RELEASE;
    m.ended_unix_ms = tw_wall_ms();
    m.error = *why;
    if (m.cancel_requested)
        tw_fail(&m.error, TW_CANCELLED, m.id, NULL, NULL, "cancelled by an operator");
    const struct tw_drive_change change = {
        .mode = TW_STORE_DURABLE, .why = m.error.what, .release = true};
    enum tw_code code = tw_drive_write(d, &m, &change, NULL);
    pthread_mutex_unlock(&d->lock);
    return code == TW_OK ? TW_NEVER : tw_after(tw_now(&tw_monotonic), TW_SEC);
}

/* The destination may hold something. It is told at once; what it does not hear it is owed. */
static uint64_t give_up(struct tw_drive *d, const struct tw_error *why)
{
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    m.decision = TW_DECIDED_ABORT;
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = why->what};
    enum tw_code code = tw_drive_write(d, &m, &change, NULL);
    pthread_mutex_unlock(&d->lock);
    if (code != TW_OK)
        return tw_after(tw_now(&tw_monotonic), TW_SEC);
    code = tw_reach_resolve(&d->owner->config.reach, d->destination, d->id,
                            TOWLINE__V1__DECISION__DECISION_ABORT, 0, ABORT_MS, NULL);
    return end(d, why, code != TW_OK);
}

static bool over(struct tw_drive *d, struct tw_error *why)
{
    pthread_mutex_lock(&d->lock);
    bool cancelled = d->record.cancel_requested, decided = d->record.decision == TW_DECIDED_ABORT;
    bool late = tw_wall_ms() > tw_drive_deadline_ms(&d->record);
    pthread_mutex_unlock(&d->lock);
    if (late)
        tw_fail(why, TW_DEADLINE_EXCEEDED, d->id, NULL, NULL, "the migration's time was over");
    else
        tw_fail(why, TW_ABORTED, d->id, NULL, NULL, "ended before it began");
    return cancelled || decided || late;
}

/* ---- Pending ------------------------------------------------------------------------------- */

/* An agent that knows the id already was told it by a controller with another store: what it knows
 * is about another migration. */
static bool id_is_taken(struct tw_drive *d, const char *host, struct tw_error *why)
{
    Towline__V1__AgentGetMigrationResponse *r;
    char where[80];
    if (tw_reach_migration(&d->owner->config.reach, host, d->id, ASK_MS, &r, NULL) != TW_OK)
        return false;
    bool taken = r->hand_over != TOWLINE__V1__HAND_OVER__HAND_OVER_UNKNOWN;
    protobuf_c_message_free_unpacked(&r->base, NULL);
    snprintf(where, sizeof where, "host %.63s", host);
    if (taken)
        tw_fail(why, TW_ABORTED, where, "an id that is new to the host", d->id,
                "the host knows this id from another store: try again");
    return taken;
}

/* Far beyond whatever the other store can have given out. */
static void skip_numbers(struct tw_drive *d)
{
    struct tw_store *store = d->owner->config.store;
    struct tw_error err = {0};
    if (tw_store_begin(store, TW_STORE_DURABLE, &err) == TW_OK &&
        tw_store_end(store, tw_store_migration_skip(store, tw_wall_ms() / 1000, &err), &err) ==
            TW_OK)
        tw_log(TW_LOG_WARN, "migration", "ids skipped", "after=%s", d->id);
}

/* ---- Which method? -------------------------------------------------------------------------
 */

static bool wants_choice(const struct tw_migration_record *m)
{
    Towline__V1__MigrationLimits *l = limits_of(m);
    bool automatic = l && l->method == TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO;
    if (l)
        towline__v1__migration_limits__free_unpacked(l, NULL);
    return automatic;
}

static enum tw_code measure(struct tw_drive *d, Towline__V1__MeasureVmResponse **answer,
                            struct tw_error *err)
{
    Towline__V1__MeasureVmRequest r = TOWLINE__V1__MEASURE_VM_REQUEST__INIT;
    enum tw_code code = tw_plans_history(d->owner->config.store, d->vm, &r.history, err);
    pthread_mutex_lock(&d->lock);
    r.limits = limits_of(&d->record);
    pthread_mutex_unlock(&d->lock);
    r.plan = d->id;
    r.vm = d->vm;
    r.for_ms = CHOICE_MS;
    if (code == TW_OK)
        code = tw_reach_measure(&d->owner->config.reach, d->source, &r, START_MS, answer, err);
    if (r.limits)
        towline__v1__migration_limits__free_unpacked(r.limits, NULL);
    if (r.history)
        towline__v1__fixed_costs__free_unpacked(r.history, NULL);
    return code;
}

/* Forecast and reasons of the choice, for whoever asks; and an event that says it. */
static enum tw_code keep_choice(struct tw_drive *d, const Towline__V1__MeasureVmResponse *a,
                                const char *method, struct tw_error *err)
{
    struct tw_store *store = d->owner->config.store;
    tw_why *why = NULL;
    const char *text = "chosen by the forecast";
    const char *pairs[] = {"method", method, "vm", d->vm, NULL};
    if (tw_why_load(store, d->id, &why, NULL) != TW_OK)
        why = tw_why_new(d->vm, d->destination);
    if (why && tw_reasons_copy(&why->reasons, &why->n_reasons, a->reasons, a->n_reasons))
        tw_why_keep(store, d->id, why, NULL);
    if (why)
        towline__v1__why_migration_response__free_unpacked(why, NULL);
    for (size_t i = 0; i < a->n_reasons; i++)
        if (strcmp(a->reasons[i]->rule, "choice") == 0)
            text = a->reasons[i]->text;
    enum tw_code code = tw_store_begin(store, TW_STORE_RELAXED, err);
    if (code != TW_OK)
        return code;
    for (size_t i = 0; i < a->n_forecasts && code == TW_OK; i++)
        if (a->forecasts[i]->method == a->method)
            code = tw_store_note_put(store, d->id, "forecast", &a->forecasts[i]->base, err);
    if (code == TW_OK)
        code = tw_store_event(store, "migration.method", d->id, pairs, err, "%s", text);
    return tw_store_end(store, code, err);
}

static enum tw_code set_method(struct tw_drive *d, Towline__V1__MigrationMethod method,
                               struct tw_error *err)
{
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    Towline__V1__MigrationLimits *l = limits_of(&m);
    enum tw_code code =
        l ? TW_OK : tw_fail(err, TW_DATA_LOSS, d->id, NULL, NULL, "unreadable limits");
    if (l) {
        const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = "method chosen"};
        l->method = method;
        code = tw_message_keep(&l->base, d->id, m.limits, sizeof m.limits, &m.limits_size, err);
        towline__v1__migration_limits__free_unpacked(l, NULL);
        if (code == TW_OK)
            code = tw_drive_write(d, &m, &change, err);
    }
    pthread_mutex_unlock(&d->lock);
    return code;
}

static bool choice_refused(const Towline__V1__MeasureVmResponse *a, struct tw_error *why)
{
    for (size_t i = 0; i < a->n_reasons; i++) {
        const Towline__V1__Reason *r = a->reasons[i];
        if (strcmp(r->rule, "choice") == 0 && r->verdict == TW_REFUSE) {
            tw_fail(why, TW_FAILED_PRECONDITION, "method", "one that can end well", NULL, "%s",
                    r->text);
            return true;
        }
    }
    return false;
}

/* One look at how far the measurement is. True: the method is chosen, or `why` says why not. */
static bool choose(struct tw_drive *d, struct tw_error *why)
{
    static const char *const names[] = {"precopy", "precopy", "postcopy", "hybrid"};
    Towline__V1__MeasureVmResponse *a = NULL;
    struct tw_error err = {0};
    enum tw_code code = measure(d, &a, &err);
    bool done = code == TW_OK && a->done;
    if (code != TW_OK && !tw_agents_silent(code))
        *why = err;
    if (done && !choice_refused(a, why)) {
        unsigned method = (unsigned)a->method < 4 ? (unsigned)a->method : 0;
        if (keep_choice(d, a, names[method], &err) != TW_OK ||
            set_method(d, (Towline__V1__MigrationMethod)method, &err) != TW_OK)
            done = false; /* again: the store may be full for a moment */
    }
    if (a)
        protobuf_c_message_free_unpacked(&a->base, NULL);
    return done || why->code;
}

uint64_t tw_drive_pending(struct tw_drive *d)
{
    struct tw_error why = {0};
    if (over(d, &why))
        return end(d, &why, false);
    if (!tw_drive_count(d, true))
        return tw_after(tw_now(&tw_monotonic), WAIT_TURN_NS);
    if (id_is_taken(d, d->source, &why) || id_is_taken(d, d->destination, &why)) {
        skip_numbers(d);
        return end(d, &why, false);
    }
    pthread_mutex_lock(&d->lock);
    bool open = wants_choice(&d->record);
    pthread_mutex_unlock(&d->lock);
    if (open) {
        struct tw_error no = {0};
        bool chosen = choose(d, &no);
        if (no.code)
            return end(d, &no, false);
        return tw_after(tw_now(&tw_monotonic), chosen ? 0 : CHOICE_POLL_NS);
    }
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    m.state = TW_MIGRATION_PREPARING;
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE,
                                           .why = "the destination is asked to make room"};
    enum tw_code code = tw_drive_write(d, &m, &change, NULL);
    pthread_mutex_unlock(&d->lock);
    return code == TW_OK ? tw_now(&tw_monotonic) : tw_after(tw_now(&tw_monotonic), TW_SEC);
}

/* ---- Preparing ----------------------------------------------------------------------------- */

static enum tw_code spec_load(struct tw_drive *d, Towline__V1__VmSpec **spec, struct tw_error *err)
{
    struct tw_store *store = d->owner->config.store;
    struct tw_vm_record vm;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, tw_store_vm_get(store, d->vm, &vm, err), err);
    if (code != TW_OK)
        return code;
    *spec = towline__v1__vm_spec__unpack(NULL, vm.spec_size, vm.spec);
    return *spec ? TW_OK
                 : tw_fail(err, TW_DATA_LOSS, d->vm, NULL, NULL, "its specification is unreadable");
}

static enum tw_code ask_room(struct tw_drive *d, const Towline__V1__VmSpec *spec,
                             Towline__V1__MigrationLimits *limits,
                             Towline__V1__HoldMirrorResponse *mirror,
                             Towline__V1__PrepareIncomingResponse **answer, struct tw_error *err)
{
    Towline__V1__PrepareIncomingRequest r = TOWLINE__V1__PREPARE_INCOMING_REQUEST__INIT;
    r.migration = d->id;
    r.spec = (Towline__V1__VmSpec *)(uintptr_t)spec;
    r.epoch = d->epoch;
    r.source = d->source;
    r.timeout_ms = CONNECT_MS;
    r.limits = limits;
    r.mirror = mirror ? mirror->mirror : NULL;
    char fabric[TW_URL_SIZE], verbs[TW_URL_SIZE];
    if (tw_catalogue_addresses(d->owner->config.reach.catalogue, d->source, fabric, verbs)) {
        r.source_fabric_address = fabric;
        r.source_verbs_address = verbs;
    }
    enum tw_code code =
        tw_reach_prepare(&d->owner->config.reach, d->destination, &r, PREPARE_MS, answer, err);
    if (code == TW_OK && (!(*answer)->fabric_address[0] || (*answer)->token.len != 16)) {
        protobuf_c_message_free_unpacked(&(*answer)->base, NULL);
        code = tw_fail(err, TW_INTERNAL, d->destination, "an address and 16 bytes of token", NULL,
                       "the destination's answer is not usable");
    }
    return code;
}

/* A destination that is not done in time but reports itself alive is at work on it, on a machine
 * that has more to do: it is asked again, which is the same request to it, until the migration's
 * own time is over. */
static bool busy(struct tw_drive *d, enum tw_code code)
{
    char url[TW_URL_SIZE];
    bool alive = false;
    return code == TW_DEADLINE_EXCEEDED &&
           tw_catalogue_locate(d->owner->config.reach.catalogue, d->destination, url, &alive) &&
           alive;
}

static void tell_source(struct tw_drive *d, Towline__V1__MigrationLimits *limits,
                        Towline__V1__HoldMirrorResponse *mirror,
                        const Towline__V1__PrepareIncomingResponse *room)
{
    Towline__V1__StartOutgoingRequest r = TOWLINE__V1__START_OUTGOING_REQUEST__INIT;
    struct tw_error err = {0};
    r.migration = d->id;
    r.vm = d->vm;
    r.epoch = d->epoch;
    r.destination = d->destination;
    r.fabric_address = room->fabric_address;
    r.verbs_address = room->verbs_address;
    r.token = room->token;
    r.limits = limits;
    r.mirror = mirror ? mirror->mirror : NULL;
    enum tw_code code =
        tw_reach_start_outgoing(&d->owner->config.reach, d->source, &r, START_MS, &err);
    /* Whether it has begun is found out from both sides; why not is kept for people. */
    if (code != TW_OK && !tw_agents_silent(code))
        d->cause = err;
}

static enum tw_code copying_begin(struct tw_drive *d)
{
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    m.state = TW_MIGRATION_COPYING;
    m.destination_known = TW_KNOWN_ACTIVE;
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE,
                                           .why = "the source is told to begin"};
    enum tw_code code = tw_drive_write(d, &m, &change, NULL);
    pthread_mutex_unlock(&d->lock);
    return code;
}

uint64_t tw_drive_prepare(struct tw_drive *d)
{
    struct tw_error why = {0};
    Towline__V1__VmSpec *spec = NULL;
    Towline__V1__PrepareIncomingResponse *room = NULL;
    Towline__V1__HoldMirrorResponse *mirror = NULL;
    if (over(d, &why))
        return give_up(d, &why);
    tw_drive_count(d, true);
    pthread_mutex_lock(&d->lock);
    Towline__V1__MigrationLimits *limits = limits_of(&d->record);
    pthread_mutex_unlock(&d->lock);
    enum tw_code code = spec_load(d, &spec, &why);
    if (code == TW_OK)
        code = tw_drive_mirror_hold(d, spec->memory_bytes, limits, &mirror, &why);
    bool again = tw_drive_mirror_holds_on(d, code);
    if (code == TW_OK) {
        code = ask_room(d, spec, limits, mirror, &room, &why);
        again = busy(d, code);
    }
    uint64_t next = tw_after(tw_now(&tw_monotonic), COPYING_NS);
    if (code != TW_OK && again && !over(d, &why)) {
        next = tw_after(tw_now(&tw_monotonic), WAIT_TURN_NS);
    } else if (code != TW_OK || over(d, &why)) {
        next = give_up(d, &why);
    } else if (copying_begin(d) == TW_OK) {
        tell_source(d, limits, mirror, room);
    } else {
        next = tw_after(tw_now(&tw_monotonic), TW_SEC);
    }
    if (mirror)
        protobuf_c_message_free_unpacked(&mirror->base, NULL);
    if (room)
        protobuf_c_message_free_unpacked(&room->base, NULL);
    if (spec)
        towline__v1__vm_spec__free_unpacked(spec, NULL);
    if (limits)
        towline__v1__migration_limits__free_unpacked(limits, NULL);
    return next;
}
