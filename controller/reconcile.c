#include "controller/reconcile.h"

#include <string.h>

static enum tw_reconcile own_host(const struct tw_vm_record *record, const struct tw_report *report,
                                  bool insists)
{
    if (report->epoch > record->epoch)
        return TW_RECONCILE_MOVE;
    if (report->epoch < record->epoch)
        return insists ? TW_RECONCILE_STALE : TW_RECONCILE_NOTHING;
    if (report->state != record->state || strcmp(report->reason, record->reason) != 0)
        return TW_RECONCILE_STATE;
    return TW_RECONCILE_NOTHING;
}

static enum tw_reconcile other_host(const struct tw_vm_record *record,
                                    const struct tw_report *report, bool owner_claims, bool insists)
{
    if (!insists)
        return TW_RECONCILE_NOTHING;
    if (owner_claims)
        return TW_RECONCILE_CONFLICT;
    return report->epoch > record->epoch ? TW_RECONCILE_MOVE : TW_RECONCILE_STALE;
}

enum tw_reconcile tw_reconcile(const struct tw_vm_record *record, const char *host,
                               const struct tw_report *report, bool owner_claims, bool settled)
{
    /* Copies in a hand-over belong to their migration, which knows what to do with them. */
    if (!tw_report_owns(report->state))
        return TW_RECONCILE_NOTHING;
    if (!record)
        return TW_RECONCILE_ADOPT;
    if (record->migration[0])
        return TW_RECONCILE_NOTHING;
    /* A heartbeat that was on its way while the record changed may say something old: whatever
     * makes noise must be said twice, about a record that is at rest. */
    bool insists = settled && report->repeats > 0;
    if (record->wanted != TW_WANTED_RUNNING)
        return insists && record->state == TW_VM_STOPPED ? TW_RECONCILE_STALE
                                                         : TW_RECONCILE_NOTHING;
    return strcmp(record->host, host) == 0 ? own_host(record, report, insists)
                                           : other_host(record, report, owner_claims, insists);
}

bool tw_reconcile_missing(const struct tw_vm_record *record, uint64_t now_unix_ms,
                          uint64_t patience_ms)
{
    return record->wanted == TW_WANTED_RUNNING && !record->migration[0] &&
           (record->state == TW_VM_RUNNING || record->state == TW_VM_PAUSED) &&
           now_unix_ms >= record->changed_unix_ms + patience_ms;
}
