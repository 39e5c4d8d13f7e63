/* Whom a migration slows is told as it begins and ends. */
#include "controller/drive.h"

#include "base/log.h"
#include "towline/v1/common.pb-c.h"

#include <inttypes.h>
#include <stdio.h>

static enum tw_code event_write(struct tw_drive *d, const Towline__V1__MigrationProgress *p,
                                struct tw_error *err)
{
    struct tw_store *store = d->owner->config.store;
    char lines[24], share[24];
    const char *pairs[] = {"vm",  d->vm, "source", d->source, "lines", lines, "share_permille",
                           share, NULL};
    snprintf(lines, sizeof lines, "%" PRIu64, p->paced_lines_most);
    snprintf(share, sizeof share, "%u", p->pace_share_permille);
    if (p->pace_delay_ns)
        return tw_store_event(store, "migration.paced", d->id, pairs, err,
                              "writers of hot lines are slowed: %s", p->pace_reason);
    return tw_store_event(store, "migration.unpaced", d->id, pairs, err,
                          "nobody is slowed any more; the writers of up to %s hot lines waited for "
                          "%u.%u %% of the time",
                          lines, p->pace_share_permille / 10, p->pace_share_permille % 10);
}

void tw_drive_note_pacing(struct tw_drive *d, const Towline__V1__MigrationProgress *p)
{
    struct tw_store *store = d->owner->config.store;
    struct tw_error err = {0};
    const bool paced = p->pace_delay_ns != 0;
    if (paced == d->paced)
        return;
    d->paced = paced;
    enum tw_code code = tw_store_begin(store, TW_STORE_RELAXED, &err);
    if (code == TW_OK)
        code = tw_store_end(store, event_write(d, p, &err), &err);
    if (code != TW_OK)
        tw_log(TW_LOG_WARN, "migration", "not written", "migration=%s what=\"%s\"", d->id,
               err.what);
}
