/* The migrations under way: each is driven by a job until it has ended.
 *
 * Every move of a migration's state, and every decision, is in the store before anything is done
 * about it, so that a controller that was killed finds its way from the store and from what both
 * agents keep durably (resolve.h). Thread-safe. */
#ifndef TOWLINE_CONTROLLER_MIGRATIONS_H
#define TOWLINE_CONTROLLER_MIGRATIONS_H

#include "base/machine.h"
#include "controller/jobs.h"
#include "controller/reach.h"
#include "controller/store.h"
#include "controller/why.h"
#include "towline/v1/migration.pb-c.h"

#define TW_MIGRATIONS_ACTIVE_MAX 1024u /* not ended */
#define TW_MIGRATIONS_AT_ONCE    32u   /* preparing, copying or switching; others stay pending */

struct tw_migrations;

/* The machine "migration"; its states are enum tw_migration_state, its object a record. */
extern const struct tw_machine_table tw_migration_table;

struct tw_migrations_config {
    struct tw_store *store;
    struct tw_reach reach;
    struct tw_jobs *jobs;
    Towline__V1__MigrationLimits limits; /* where neither operator nor VM say any */
    /* A migration has ended and something is owed to an agent; may be NULL. */
    void (*on_owed)(void *ctx);
    void *ctx;
};

/* Goes on with whatever the store says is not ended. */
enum tw_code tw_migrations_open(const struct tw_migrations_config *config,
                                struct tw_migrations **migrations, struct tw_error *err);
/* After the jobs were closed. */
void tw_migrations_close(struct tw_migrations *migrations);

struct tw_wish {
    const char *vm, *destination;               /* destination "" = any host */
    const Towline__V1__MigrationLimits *limits; /* may be NULL */
    const Towline__V1__Plan *plan;              /* that it runs; NULL = none */
};

/* Where the VM would go, with which limits, and why; nothing is begun. `placed->why` is the
 * caller's, whatever the outcome; it may be NULL. */
struct tw_placed {
    char source[TW_NAME_SIZE], destination[TW_NAME_SIZE];
    uint64_t epoch;            /* of the VM */
    char mirror[TW_NAME_SIZE]; /* of the limits, which point here */
    Towline__V1__MigrationLimits limits;
    tw_why *why;
};
enum tw_code tw_migrations_place(struct tw_migrations *migrations, const struct tw_wish *wish,
                                 struct tw_placed *placed, struct tw_error *err);

/* Each fills *record with the migration as it is after the call. */
enum tw_code tw_migrations_start(struct tw_migrations *migrations, const struct tw_wish *wish,
                                 struct tw_migration_record *record, struct tw_error *err);
enum tw_code tw_migrations_get(struct tw_migrations *migrations, const char *id,
                               struct tw_migration_record *record, struct tw_error *err);
/* Hybrid only: the VM is to move now. */
enum tw_code tw_migrations_switch(struct tw_migrations *migrations, const char *id,
                                  struct tw_migration_record *record, struct tw_error *err);
/* Bandwidth, downtime budget, pause: the source is told, then it is written down. */
enum tw_code tw_migrations_adjust(struct tw_migrations *migrations,
                                  const Towline__V1__AdjustMigrationRequest *request,
                                  struct tw_migration_record *record, struct tw_error *err);
/* Post-copy, the path is lost: the destination tries again, or goes on from the mirror. */
enum tw_code tw_migrations_reconnect(struct tw_migrations *migrations, const char *id,
                                     bool from_mirror, struct tw_migration_record *record,
                                     struct tw_error *err);
enum tw_code tw_migrations_cancel(struct tw_migrations *migrations, const char *id,
                                  struct tw_migration_record *record, struct tw_error *err);
/* `fenced`: FENCED_DESTINATION gives the VM to the source, FENCED_SOURCE to the destination. */
enum tw_code tw_migrations_recover(struct tw_migrations *migrations, const char *id,
                                   enum tw_fenced fenced, struct tw_migration_record *record,
                                   struct tw_error *err);
/* An operator declares a host of it lost for good. `prospect` gets what becomes of the VM; without
 * `confirmed` that is all that happens. Refused while the host is heard. */
enum tw_code tw_migrations_lost(struct tw_migrations *migrations, const char *id, const char *host,
                                bool confirmed, struct tw_migration_record *record,
                                enum tw_prospect *prospect, struct tw_error *err);
/* True, and *record is as it is now, when the migration is under way here. */
bool tw_migrations_live(struct tw_migrations *migrations, const char *id,
                        struct tw_migration_record *record);

/* A host was heard: whoever waits for it asks again. */
void tw_migrations_host_heard(struct tw_migrations *migrations, const char *host);

#define TW_DOWNTIME_BUCKETS 8u
/* Upper bounds in milliseconds; the last is unbounded. */
extern const uint64_t tw_downtime_bucket_ms[TW_DOWNTIME_BUCKETS];
struct tw_migration_figures {
    uint64_t active[TW_MIGRATION_STATES];   /* now, by state */
    uint64_t ended[TW_MIGRATION_STATES];    /* since the start of this program */
    uint64_t bytes_sent, bytes_if_pages;    /* of ended ones */
    uint64_t downtime[TW_DOWNTIME_BUCKETS]; /* completed ones */
    uint64_t downtime_us, downtime_count;
};
void tw_migrations_figures(struct tw_migrations *migrations, struct tw_migration_figures *out);

#endif
