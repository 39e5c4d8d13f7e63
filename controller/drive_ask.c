/* Asking both sides of a migration for their truth. */
#include "controller/drive.h"

#include "controller/spec.h"

#include <stdio.h>
#include <string.h>

#define ASK_TIMEOUT_MS 1000u

/* The phases of the agents' source machine in which the VM runs; in all others it is stopped. */
static bool runs_in(const char *phase)
{
    static const char *const running[] = {"",        "new",   "connecting", "full_copy",
                                          "waiting", "round", "precompare", "announcing"};
    for (size_t i = 0; i < sizeof running / sizeof *running; i++)
        if (strcmp(phase, running[i]) == 0)
            return true;
    return false;
}

/* The truth about ownership is whole only with the VM itself: who holds nothing of the migration
 * may still own the VM, and who has given up may have lost its process. */
static bool needs_report(enum tw_side side, enum tw_known known, bool stuck, bool fenced)
{
    /* A host that was declared off and is here again: does its copy run? */
    if (known == TW_KNOWN_UNKNOWN || known == TW_KNOWN_ABORTED || fenced)
        return true;
    return side == TW_SOURCE_SIDE && known == TW_KNOWN_GIVEN_UP && stuck;
}

static enum tw_code ask_vm(struct tw_drive *d, const char *host, enum tw_side side,
                           struct tw_answer *a)
{
    bool found;
    enum tw_code code = tw_reach_vm(&d->owner->config.reach, host, d->vm, ASK_TIMEOUT_MS, &found,
                                    &a->report, &a->error);
    if (code != TW_OK)
        return code;
    bool newer = a->report.epoch >= d->epoch;
    bool ours = side == TW_SOURCE_SIDE || newer;
    a->has_report = found;
    a->holds_vm = found && ours && tw_report_runs(a->report.state);
    a->vm_ended = !found || a->report.pid == 0;
    return TW_OK;
}

/* What only the destination knows goes into what the source has told. */
static void keep_path(struct tw_drive *d, const Towline__V1__MigrationProgress *p)
{
    struct tw_migration_record *m = &d->record;
    Towline__V1__MigrationProgress *kept =
        towline__v1__migration_progress__unpack(NULL, m->progress_size, m->progress);
    uint8_t bytes[TW_PROGRESS_SIZE];
    size_t size;
    if (!kept)
        return;
    kept->reconnects = p->reconnects;
    kept->path_lost_ms = p->path_lost_ms;
    kept->path_left_ms = p->path_left_ms;
    kept->path_waited_ms = p->path_waited_ms;
    kept->from_mirror = p->from_mirror;
    tw_drive_mirror_stamp(d, kept);
    if (tw_message_keep(&kept->base, d->id, bytes, sizeof bytes, &size, NULL) == TW_OK) {
        memcpy(m->progress, bytes, size);
        m->progress_size = size;
    }
    towline__v1__migration_progress__free_unpacked(kept, NULL);
}

static void keep_progress(struct tw_drive *d, enum tw_side side,
                          const Towline__V1__MigrationProgress *p)
{
    struct tw_migration_record *m = &d->record;
    size_t size;
    uint8_t bytes[TW_PROGRESS_SIZE];
    if (!p || tw_message_keep(&p->base, d->id, bytes, sizeof bytes, &size, NULL) != TW_OK)
        return;
    if (side == TW_SOURCE_SIDE)
        tw_drive_note_pacing(d, p);
    pthread_mutex_lock(&d->lock);
    if (side == TW_DESTINATION_SIDE && (p->reconnects || p->path_lost_ms))
        keep_path(d, p);
    /* The source measures; the destination stands in for one that is gone. */
    if (side == TW_SOURCE_SIDE || m->progress_size == 0) {
        memcpy(m->progress, bytes, size);
        m->progress_size = size;
    }
    pthread_mutex_unlock(&d->lock);
}

static void take(struct tw_drive *d, enum tw_side side, struct tw_answer *a,
                 const Towline__V1__AgentGetMigrationResponse *r)
{
    a->answers = true;
    a->known =
        (unsigned)r->hand_over < TW_KNOWN_COUNT ? (enum tw_known)r->hand_over : TW_KNOWN_NOTHING;
    a->peer_lost = r->peer_lost;
    a->switching = side == TW_SOURCE_SIDE && r->progress && !runs_in(r->progress->phase);
    a->serving = side == TW_SOURCE_SIDE && r->progress && !r->peer_lost &&
                 strcmp(r->progress->phase, "serving") == 0;
    a->peer_ran =
        a->serving || (side == TW_SOURCE_SIDE && a->known == TW_KNOWN_GIVEN_UP && r->progress &&
                       (strcmp(r->progress->phase, "serving") == 0 ||
                        strcmp(r->progress->phase, "path_lost") == 0));
    a->path_lost = side == TW_DESTINATION_SIDE && r->peer_lost && a->known == TW_KNOWN_PARTLY;
    a->paused = a->path_lost && r->progress && r->progress->path_left_ms == 0 &&
                strcmp(r->progress->phase, "paused") == 0;
    a->lacks = side == TW_DESTINATION_SIDE && r->progress && r->progress->lines_left;
    tw_error_from_proto(r->error, &a->error);
    if (side == TW_SOURCE_SIDE && r->progress) {
        tw_drive_mirror_hear(d, r->progress);
        tw_drive_mirror_stamp(d, r->progress);
    }
    keep_progress(d, side, r->progress);
}

void tw_drive_ask(struct tw_drive *d, enum tw_side side)
{
    struct tw_answer a = {0};
    const char *host = side == TW_SOURCE_SIDE ? d->source : d->destination;
    Towline__V1__AgentGetMigrationResponse *r;
    pthread_mutex_lock(&d->lock);
    bool fenced =
        d->record.fenced & (side == TW_SOURCE_SIDE ? TW_FENCED_SOURCE : TW_FENCED_DESTINATION);
    pthread_mutex_unlock(&d->lock);
    struct tw_error err = {0};
    if (tw_reach_migration(&d->owner->config.reach, host, d->id, ASK_TIMEOUT_MS, &r, &err) ==
        TW_OK) {
        take(d, side, &a, r);
        protobuf_c_message_free_unpacked(&r->base, NULL);
    } else {
        a.error = err;
    }
    if (a.answers && a.known == TW_KNOWN_NOTHING)
        a.answers = false;
    if (a.answers && needs_report(side, a.known, a.peer_lost, fenced)) {
        struct tw_error own = a.error;
        if (ask_vm(d, host, side, &a) != TW_OK)
            a.answers = false;
        else
            a.error = own;
    }
    if (!a.answers)
        a.known = TW_KNOWN_NOTHING;
    d->answer[side] = a;
    pthread_mutex_lock(&d->lock);
    d->silent[side] = !a.answers;
    if (side == TW_SOURCE_SIDE)
        d->claims = a.answers && (a.holds_vm || a.known == TW_KNOWN_ACTIVE);
    else if (a.answers)
        d->lacks = a.lacks;
    pthread_mutex_unlock(&d->lock);
}
