/* What the controller remembers: hosts, VMs, migrations and events in one SQLite file (WAL).
 *
 * Everything happens between tw_store_begin() and tw_store_end(), which hold the store's lock:
 * one caller at a time, short. A DURABLE transaction is on the disk when tw_store_end() returns
 * OK (whatever decides who owns a VM); a RELAXED one survives the death of the process, not of
 * the machine. A failed transaction leaves nothing behind and the store usable; a full disk is
 * RESOURCE_EXHAUSTED. Thread-safe.
 *
 *   code = tw_store_begin(store, TW_STORE_DURABLE, err);
 *   if (code == TW_OK)
 *       code = tw_store_end(store, change_things(store, err), err);
 */
#ifndef TOWLINE_CONTROLLER_STORE_H
#define TOWLINE_CONTROLLER_STORE_H

#include "controller/record.h"

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#define TW_STORE_EVENTS_KEPT   100000u
#define TW_STORE_VMS_MAX       10000u
#define TW_STORE_MIGRATIONS    10000u /* ended ones that are kept */
#define TW_STORE_TOMBSTONES_MS 3600000u

struct tw_store;

struct tw_store_config {
    const char *path;
    uint64_t bytes_max;   /* of the file; 0 = no bound */
    uint32_t events_kept; /* 0 = TW_STORE_EVENTS_KEPT */
    /* Called without the lock after a transaction that wrote events; may be NULL. */
    void (*on_events)(void *ctx, uint64_t revision);
    void *ctx;
};

/* Opens or makes the file and brings its tables up to date. FAILED_PRECONDITION: another process
 * has it open, or it was written by a newer program. */
enum tw_code tw_store_open(const struct tw_store_config *config, struct tw_store **store,
                           struct tw_error *err);
void tw_store_close(struct tw_store *store);

enum tw_store_mode { TW_STORE_READ, TW_STORE_RELAXED, TW_STORE_DURABLE };

enum tw_code tw_store_begin(struct tw_store *store, enum tw_store_mode mode, struct tw_error *err);
/* Commits when `code` is OK, else rolls back and passes `code` on. */
enum tw_code tw_store_end(struct tw_store *store, enum tw_code code, struct tw_error *err);

/* ---- Inside a transaction ------------------------------------------------------------------ */

enum tw_code tw_store_host_put(struct tw_store *store, const struct tw_host_record *host,
                               struct tw_error *err);
typedef void (*tw_host_fn)(void *ctx, const struct tw_host_record *host);
enum tw_code tw_store_hosts_each(struct tw_store *store, tw_host_fn fn, void *ctx,
                                 struct tw_error *err);

/* NOT_FOUND when there is none. Deleted VMs (wanted GONE) are found as well. */
enum tw_code tw_store_vm_get(struct tw_store *store, const char *name, struct tw_vm_record *vm,
                             struct tw_error *err);
/* Inserts or replaces; sets changed_unix_ms. */
enum tw_code tw_store_vm_put(struct tw_store *store, struct tw_vm_record *vm, struct tw_error *err);
typedef void (*tw_vm_fn)(void *ctx, const struct tw_vm_record *vm);
/* By name; host "" = all. */
enum tw_code tw_store_vms_each(struct tw_store *store, const char *host, tw_vm_fn fn, void *ctx,
                               struct tw_error *err);
/* Forgets deleted VMs whose time is over. */
enum tw_code tw_store_vms_prune(struct tw_store *store, uint64_t now_unix_ms, struct tw_error *err);

/* Gives it the next number, id and creation time. */
enum tw_code tw_store_migration_add(struct tw_store *store, struct tw_migration_record *m,
                                    struct tw_error *err);
enum tw_code tw_store_migration_put(struct tw_store *store, const struct tw_migration_record *m,
                                    struct tw_error *err);
enum tw_code tw_store_migration_get(struct tw_store *store, const char *id,
                                    struct tw_migration_record *m, struct tw_error *err);
/* Numbers up to `number` are not given out again. */
enum tw_code tw_store_migration_skip(struct tw_store *store, uint64_t number, struct tw_error *err);
typedef void (*tw_migration_fn)(void *ctx, const struct tw_migration_record *m);
/* Newest first; vm "" = all. */
enum tw_code tw_store_migrations_each(struct tw_store *store, const char *vm, uint32_t limit,
                                      tw_migration_fn fn, void *ctx, struct tw_error *err);
enum tw_code tw_store_migrations_running(struct tw_store *store, tw_migration_fn fn, void *ctx,
                                         struct tw_error *err);
enum tw_code tw_store_migrations_owed(struct tw_store *store, tw_migration_fn fn, void *ctx,
                                      struct tw_error *err);

/* Appends an event and logs it. `pairs`: key, value, key, value, ..., NULL. */
enum tw_code tw_store_event(struct tw_store *store, const char *kind, const char *subject,
                            const char *const *pairs, struct tw_error *err, const char *text, ...)
    __attribute__((format(printf, 6, 7)));
/* `body` is a packed Event whose revision is to be taken from the argument. */
typedef void (*tw_event_fn)(void *ctx, uint64_t revision, const uint8_t *body, size_t size);
enum tw_code tw_store_events_read(struct tw_store *store, uint64_t after, const char *subject,
                                  uint32_t max, tw_event_fn fn, void *ctx, struct tw_error *err);
enum tw_code tw_store_events_bounds(struct tw_store *store, uint64_t *oldest, uint64_t *newest,
                                    struct tw_error *err);

/* Packed messages that belong to a migration, a plan or a refusal, by its id and what they are:
 * "plan", "forecast", "why", "audit". The oldest go when there are too many. */
#define TW_STORE_NOTES_KEPT 100000u
#define TW_NOTE_BYTES       262144u
enum tw_code tw_store_note_add(struct tw_store *store, const char *id, const char *kind,
                               const ProtobufCMessage *message, struct tw_error *err);
/* In place of all that there are of that kind. */
enum tw_code tw_store_note_put(struct tw_store *store, const char *id, const char *kind,
                               const ProtobufCMessage *message, struct tw_error *err);
typedef void (*tw_note_fn)(void *ctx, const uint8_t *body, size_t size);
/* The oldest first, at most `max`. */
enum tw_code tw_store_notes_each(struct tw_store *store, const char *id, const char *kind,
                                 uint32_t max, tw_note_fn fn, void *ctx, struct tw_error *err);

/* A number that grows with each opening of this store. */
uint64_t tw_store_generation(const struct tw_store *store);

/* ---- Figures (thread-safe, no transaction) ------------------------------------------------- */

#define TW_STORE_BUCKETS 8u
/* Upper bounds of the buckets in microseconds; the last is unbounded. */
extern const uint64_t tw_store_bucket_us[TW_STORE_BUCKETS];
struct tw_store_figures {
    uint64_t durable[TW_STORE_BUCKETS]; /* DURABLE transactions by duration */
    uint64_t durable_us, durable_count, relaxed_count, failed_count;
    bool last_write_ok;
};
void tw_store_figures(struct tw_store *store, struct tw_store_figures *out);

/* ---- Inside the store's files -------------------------------------------------------------- */

struct tw_db *tw_store_db(struct tw_store *store);

#endif
