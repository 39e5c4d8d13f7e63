/* Hosts by their heartbeats, and what they report of VMs.
 *
 * A host is alive while its lease runs; heartbeats renew it. What hosts are lives in the store;
 * their last reports only in memory. Reports bring the records of VMs up to date (reconcile.h)
 * and never make anybody remove a VM. Thread-safe. */
#ifndef TOWLINE_CONTROLLER_CATALOGUE_H
#define TOWLINE_CONTROLLER_CATALOGUE_H

#include "base/clock.h"
#include "controller/store.h"
#include "towline/v1/host.pb-c.h"

#define TW_HOSTS_MAX   1024u
#define TW_REPORTS_MAX 1024u /* VMs that one host may report */

struct tw_catalogue;

/* What a VM wrote, as its agent measured it last; duration 0 = it did not. */
struct tw_report_dirty {
    uint64_t duration_us, lines, pages, regions;
};

/* A VM as its host reported it last. */
struct tw_report {
    char name[TW_NAME_SIZE], migration[TW_NAME_SIZE], reason[TW_REASON_SIZE];
    uint64_t epoch, memory_bytes, pid, lines_written;
    struct tw_report_dirty dirty;
    enum tw_vm_state state;
    unsigned repeats; /* heartbeats before this one that said the same of epoch and ownership */
    unsigned silence; /* heartbeats since people were last told of a contradiction; 0 = never */
};

struct tw_host_view {
    struct tw_host_record record;
    uint64_t lease_expires_unix_ms;
    uint32_t vms;        /* that it owns */
    uint64_t free_bytes; /* capacity less what is used or promised */
};

struct tw_catalogue_config {
    struct tw_store *store;
    const struct tw_clock *clock;
    uint64_t lease_ns;
    uint64_t heartbeat_ns;
    /* After each heartbeat, without locks held; may be NULL. */
    void (*on_heartbeat)(void *ctx, const char *host);
    void *ctx;
};

enum tw_code tw_catalogue_open(const struct tw_catalogue_config *config,
                               struct tw_catalogue **catalogue, struct tw_error *err);
void tw_catalogue_close(struct tw_catalogue *catalogue);

enum tw_code tw_catalogue_heartbeat(struct tw_catalogue *catalogue,
                                    const Towline__V1__HeartbeatRequest *request,
                                    struct tw_error *err);

/* Declares hosts dead whose lease has run out. Returns when the next one may. */
uint64_t tw_catalogue_expire(struct tw_catalogue *catalogue);

/* Where the host's agent serves and whether its lease is valid. False: no such host. */
bool tw_catalogue_locate(struct tw_catalogue *catalogue, const char *host, char url[TW_URL_SIZE],
                         bool *alive);

/* All hosts by name; malloc'ed array, *count entries, freed by the caller. */
enum tw_code tw_catalogue_hosts(struct tw_catalogue *catalogue, struct tw_host_view **hosts,
                                size_t *count, struct tw_error *err);

/* The host's last reports; malloc'ed copy, freed by the caller. NOT_FOUND: no such host. */
enum tw_code tw_catalogue_reports(struct tw_catalogue *catalogue, const char *host,
                                  struct tw_report **reports, size_t *count, struct tw_error *err);

/* False: that host reports no such VM. */
bool tw_catalogue_report(struct tw_catalogue *catalogue, const char *host, const char *vm,
                         struct tw_report *report);

uint64_t tw_catalogue_lease_ms(const struct tw_catalogue *catalogue);
uint64_t tw_catalogue_heartbeat_ms(const struct tw_catalogue *catalogue);

/* A state in which the reporting host owns the VM. */
static inline bool tw_report_owns(enum tw_vm_state state)
{
    return state >= TW_VM_STARTING && state <= TW_VM_FAILED;
}
/* ... and has a process of it. */
static inline bool tw_report_runs(enum tw_vm_state state)
{
    return state >= TW_VM_STARTING && state <= TW_VM_PAUSED;
}

#endif
