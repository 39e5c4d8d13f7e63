/* What a host's report of a VM means for the VM's record: a pure decision. */
#ifndef TOWLINE_CONTROLLER_RECONCILE_H
#define TOWLINE_CONTROLLER_RECONCILE_H

#include "controller/catalogue.h"

enum tw_reconcile {
    TW_RECONCILE_NOTHING,
    TW_RECONCILE_STATE,    /* the record takes the reported state */
    TW_RECONCILE_ADOPT,    /* no record: make one from the report */
    TW_RECONCILE_MOVE,     /* the reporting host holds a newer epoch: the record follows */
    TW_RECONCILE_STALE,    /* an older copy that nobody asked for: say so, touch nothing */
    TW_RECONCILE_CONFLICT, /* two hosts claim the VM: say so loudly, touch nothing */
};

/* `record` is NULL when there is none; `owner_claims`: the record's host, if another, reports
 * that it owns the VM now; `settled`: the record has not changed for longer than a heartbeat can
 * be on its way. */
enum tw_reconcile tw_reconcile(const struct tw_vm_record *record, const char *host,
                               const struct tw_report *report, bool owner_claims, bool settled);

/* The record's own host was heard and did not report the VM: is it gone? */
bool tw_reconcile_missing(const struct tw_vm_record *record, uint64_t now_unix_ms,
                          uint64_t patience_ms);

#endif
