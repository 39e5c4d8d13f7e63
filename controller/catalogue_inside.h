/* Inside the catalogue's files: what is kept of a host in memory. */
#ifndef TOWLINE_CONTROLLER_CATALOGUE_INSIDE_H
#define TOWLINE_CONTROLLER_CATALOGUE_INSIDE_H

#include "controller/catalogue.h"

#include <pthread.h>

struct tw_catalogue_host {
    struct tw_host_record record;
    uint64_t lease_until_ns;
    uint64_t saved_unix_ms;
    struct tw_report *reports;
    size_t count;
};

struct tw_catalogue {
    struct tw_catalogue_config config;
    pthread_mutex_t lock; /* taken before the store's, never after */
    struct tw_catalogue_host *hosts[TW_HOSTS_MAX];
    size_t count;
};

struct tw_catalogue_host *tw_catalogue_find(struct tw_catalogue *catalogue, const char *host);
/* NULL when there is none, or no host. */
const struct tw_report *tw_catalogue_find_report(const struct tw_catalogue_host *host,
                                                 const char *vm);

/* Brings the records of VMs up to date with the host's reports; called with the lock. */
void tw_catalogue_reconcile(struct tw_catalogue *catalogue, struct tw_catalogue_host *host);

#endif
