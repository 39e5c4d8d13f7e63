/* Hosts, VMs and migrations: records to rows and back. */
#include "controller/store.h"

#include "base/clock.h"
#include "controller/db.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Hosts --------------------------------------------------------------------------------- */

enum tw_code tw_store_host_put(struct tw_store *store, const struct tw_host_record *h,
                               struct tw_error *err)
{
    return tw_db_run(tw_store_db(store), err, NULL, NULL,
                     "INSERT OR REPLACE INTO hosts(name, rpc_url, fabric_address, fabric, capacity,"
                     " used, cpus, version, instance, alive, last_seen)"
                     " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "ttttuuutuuu", h->name, h->rpc_url, h->fabric_address, h->fabric,
                     h->capacity_bytes, h->used_bytes, (uint64_t)h->cpus, h->version, h->instance,
                     (uint64_t)h->alive, h->last_seen_unix_ms);
}

struct host_reader {
    tw_host_fn fn;
    void *ctx;
};

static void host_row(void *ctx, tw_row *row)
{
    struct host_reader *reader = ctx;
    struct tw_host_record h = {0};
    tw_row_text(row, 0, h.name, sizeof h.name);
    tw_row_text(row, 1, h.rpc_url, sizeof h.rpc_url);
    tw_row_text(row, 2, h.fabric_address, sizeof h.fabric_address);
    tw_row_text(row, 3, h.fabric, sizeof h.fabric);
    h.capacity_bytes = tw_row_u64(row, 4);
    h.used_bytes = tw_row_u64(row, 5);
    h.cpus = (uint32_t)tw_row_u64(row, 6);
    tw_row_text(row, 7, h.version, sizeof h.version);
    h.instance = tw_row_u64(row, 8);
    h.alive = tw_row_u64(row, 9) != 0;
    h.last_seen_unix_ms = tw_row_u64(row, 10);
    reader->fn(reader->ctx, &h);
}

enum tw_code tw_store_hosts_each(struct tw_store *store, tw_host_fn fn, void *ctx,
                                 struct tw_error *err)
{
    struct host_reader reader = {fn, ctx};
    return tw_db_run(tw_store_db(store), err, host_row, &reader,
                     "SELECT name, rpc_url, fabric_address, fabric, capacity, used, cpus, version,"
                     " instance, alive, last_seen FROM hosts ORDER BY name",
                     "");
}

/* ---- VMs ----------------------------------------------------------------------------------- */

#define VM_COLUMNS                                                                                 \
    "name, spec, memory, host, epoch, epoch_issued, state, wanted, reason, migration, created,"    \
    " changed"

struct vm_reader {
    tw_vm_fn fn;
    void *ctx;
    struct tw_vm_record *one;
    bool found;
};

static void vm_row(void *ctx, tw_row *row)
{
    struct vm_reader *reader = ctx;
    struct tw_vm_record vm = {0};
    tw_row_text(row, 0, vm.name, sizeof vm.name);
    vm.spec_size = tw_row_blob(row, 1, vm.spec, sizeof vm.spec);
    vm.memory_bytes = tw_row_u64(row, 2);
    tw_row_text(row, 3, vm.host, sizeof vm.host);
    vm.epoch = tw_row_u64(row, 4);
    vm.epoch_issued = tw_row_u64(row, 5);
    vm.state = (enum tw_vm_state)tw_row_u64(row, 6);
    vm.wanted = (enum tw_wanted)tw_row_u64(row, 7);
    tw_row_text(row, 8, vm.reason, sizeof vm.reason);
    tw_row_text(row, 9, vm.migration, sizeof vm.migration);
    vm.created_unix_ms = tw_row_u64(row, 10);
    vm.changed_unix_ms = tw_row_u64(row, 11);
    reader->found = true;
    if (reader->one)
        *reader->one = vm;
    else
        reader->fn(reader->ctx, &vm);
}

enum tw_code tw_store_vm_get(struct tw_store *store, const char *name, struct tw_vm_record *vm,
                             struct tw_error *err)
{
    struct vm_reader reader = {.one = vm};
    enum tw_code code = tw_db_run(tw_store_db(store), err, vm_row, &reader,
                                  "SELECT " VM_COLUMNS " FROM vms WHERE name = ?", "t", name);
    if (code == TW_OK && !reader.found)
        code = tw_fail(err, TW_NOT_FOUND, name, NULL, NULL, "no such VM");
    return code;
}

enum tw_code tw_store_vm_put(struct tw_store *store, struct tw_vm_record *vm, struct tw_error *err)
{
    vm->changed_unix_ms = tw_wall_ms();
    if (!vm->created_unix_ms)
        vm->created_unix_ms = vm->changed_unix_ms;
    return tw_db_run(
        tw_store_db(store), err, NULL, NULL,
        "INSERT OR REPLACE INTO vms(" VM_COLUMNS ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "tbutuuuuttuu", vm->name, (const void *)vm->spec, vm->spec_size, vm->memory_bytes, vm->host,
        vm->epoch, vm->epoch_issued, (uint64_t)vm->state, (uint64_t)vm->wanted, vm->reason,
        vm->migration, vm->created_unix_ms, vm->changed_unix_ms);
}

enum tw_code tw_store_vms_each(struct tw_store *store, const char *host, tw_vm_fn fn, void *ctx,
                               struct tw_error *err)
{
    struct vm_reader reader = {.fn = fn, .ctx = ctx};
    struct tw_db *db = tw_store_db(store);
    if (!host[0])
        return tw_db_run(db, err, vm_row, &reader, "SELECT " VM_COLUMNS " FROM vms ORDER BY name",
                         "");
    return tw_db_run(db, err, vm_row, &reader,
                     "SELECT " VM_COLUMNS " FROM vms WHERE host = ? ORDER BY name", "t", host);
}

enum tw_code tw_store_vms_prune(struct tw_store *store, uint64_t now_unix_ms, struct tw_error *err)
{
    uint64_t before =
        now_unix_ms > TW_STORE_TOMBSTONES_MS ? now_unix_ms - TW_STORE_TOMBSTONES_MS : 0;
    return tw_db_run(tw_store_db(store), err, NULL, NULL,
                     "DELETE FROM vms WHERE wanted = ? AND host = '' AND changed < ?", "uu",
                     (uint64_t)TW_WANTED_GONE, before);
}

/* ---- Migrations ---------------------------------------------------------------------------- */

#define MIGRATION_COLUMNS                                                                          \
    "number, vm, source, destination, state, limits, progress, error_code, error_where,"           \
    " error_what, error_expected, error_given, epoch, source_epoch, reclaim_epoch, source_known,"  \
    " destination_known, decision, fenced, owed, cancel_requested, created, ended"

struct migration_reader {
    tw_migration_fn fn;
    void *ctx;
    struct tw_migration_record *one;
    bool found;
};

static void migration_id(struct tw_migration_record *m)
{
    snprintf(m->id, sizeof m->id, "m-%" PRIu64, m->number);
}

static void error_columns(tw_row *row, int first, struct tw_error *e)
{
    e->code = (enum tw_code)tw_row_u64(row, first);
    tw_row_text(row, first + 1, e->where, sizeof e->where);
    tw_row_text(row, first + 2, e->what, sizeof e->what);
    tw_row_text(row, first + 3, e->expected, sizeof e->expected);
    tw_row_text(row, first + 4, e->given, sizeof e->given);
}

static void migration_row(void *ctx, tw_row *row)
{
    struct migration_reader *reader = ctx;
    struct tw_migration_record m = {.number = tw_row_u64(row, 0)};
    migration_id(&m);
    tw_row_text(row, 1, m.vm, sizeof m.vm);
    tw_row_text(row, 2, m.source, sizeof m.source);
    tw_row_text(row, 3, m.destination, sizeof m.destination);
    m.state = (enum tw_migration_state)tw_row_u64(row, 4);
    m.limits_size = tw_row_blob(row, 5, m.limits, sizeof m.limits);
    m.progress_size = tw_row_blob(row, 6, m.progress, sizeof m.progress);
    error_columns(row, 7, &m.error);
    m.epoch = tw_row_u64(row, 12);
    m.source_epoch = tw_row_u64(row, 13);
    m.reclaim_epoch = tw_row_u64(row, 14);
    m.source_known = (enum tw_known)tw_row_u64(row, 15);
    m.destination_known = (enum tw_known)tw_row_u64(row, 16);
    m.decision = (enum tw_decided)tw_row_u64(row, 17);
    m.fenced = (enum tw_fenced)tw_row_u64(row, 18);
    m.owed = (unsigned)tw_row_u64(row, 19);
    m.cancel_requested = tw_row_u64(row, 20) != 0;
    m.created_unix_ms = tw_row_u64(row, 21);
    m.ended_unix_ms = tw_row_u64(row, 22);
    reader->found = true;
    if (reader->one)
        *reader->one = m;
    else
        reader->fn(reader->ctx, &m);
}

enum tw_code tw_store_migration_put(struct tw_store *store, const struct tw_migration_record *m,
                                    struct tw_error *err)
{
    const struct tw_error *e = &m->error;
    return tw_db_run(
        tw_store_db(store), err, NULL, NULL,
        "INSERT OR REPLACE INTO migrations(" MIGRATION_COLUMNS
        ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "utttubbuttttuuuuuuuuuuu", m->number, m->vm, m->source, m->destination, (uint64_t)m->state,
        (const void *)m->limits, m->limits_size, (const void *)m->progress, m->progress_size,
        (uint64_t)e->code, e->where, e->what, e->expected, e->given, m->epoch, m->source_epoch,
        m->reclaim_epoch, (uint64_t)m->source_known, (uint64_t)m->destination_known,
        (uint64_t)m->decision, (uint64_t)m->fenced, (uint64_t)m->owed,
        (uint64_t)m->cancel_requested, m->created_unix_ms, m->ended_unix_ms);
}

enum tw_code tw_store_migration_skip(struct tw_store *store, uint64_t number, struct tw_error *err)
{
    return tw_db_run(tw_store_db(store), err, NULL, NULL,
                     "INSERT INTO meta(key, value) VALUES('migrations', ?)"
                     " ON CONFLICT(key) DO UPDATE SET value = MAX(value, excluded.value)",
                     "u", number);
}

enum tw_code tw_store_migration_add(struct tw_store *store, struct tw_migration_record *m,
                                    struct tw_error *err)
{
    uint64_t last;
    struct tw_db *db = tw_store_db(store);
    enum tw_code code =
        tw_db_number(db, "SELECT value FROM meta WHERE key = 'migrations'", 0, &last, err);
    if (code != TW_OK)
        return code;
    m->number = last + 1;
    migration_id(m);
    m->created_unix_ms = tw_wall_ms();
    code = tw_store_migration_skip(store, m->number, err);
    if (code == TW_OK)
        code = tw_store_migration_put(store, m, err);
    if (code == TW_OK && m->number > TW_STORE_MIGRATIONS && m->number % 100 == 0)
        code = tw_db_run(db, err, NULL, NULL,
                         "DELETE FROM migrations WHERE number <= ? AND ended != 0 AND owed = 0",
                         "u", m->number - TW_STORE_MIGRATIONS);
    return code;
}

static bool number_of(const char *id, uint64_t *number)
{
    char *end;
    if (strncmp(id, "m-", 2) != 0 || id[2] < '1' || id[2] > '9' || strlen(id) > 20)
        return false;
    *number = strtoull(id + 2, &end, 10);
    return *end == 0 && *number <= INT64_MAX;
}

enum tw_code tw_store_migration_get(struct tw_store *store, const char *id,
                                    struct tw_migration_record *m, struct tw_error *err)
{
    uint64_t number = 0;
    struct migration_reader reader = {.one = m};
    enum tw_code code = TW_OK;
    if (number_of(id, &number))
        code =
            tw_db_run(tw_store_db(store), err, migration_row, &reader,
                      "SELECT " MIGRATION_COLUMNS " FROM migrations WHERE number = ?", "u", number);
    char where[64];
    snprintf(where, sizeof where, "migration %.48s", id);
    if (code == TW_OK && !reader.found)
        code = tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such migration");
    return code;
}

enum tw_code tw_store_migrations_each(struct tw_store *store, const char *vm, uint32_t limit,
                                      tw_migration_fn fn, void *ctx, struct tw_error *err)
{
    struct migration_reader reader = {.fn = fn, .ctx = ctx};
    struct tw_db *db = tw_store_db(store);
    if (!vm[0])
        return tw_db_run(db, err, migration_row, &reader,
                         "SELECT " MIGRATION_COLUMNS
                         " FROM migrations ORDER BY number DESC LIMIT ?",
                         "u", (uint64_t)limit);
    return tw_db_run(db, err, migration_row, &reader,
                     "SELECT " MIGRATION_COLUMNS
                     " FROM migrations WHERE vm = ? ORDER BY number DESC LIMIT ?",
                     "tu", vm, (uint64_t)limit);
}

enum tw_code tw_store_migrations_running(struct tw_store *store, tw_migration_fn fn, void *ctx,
                                         struct tw_error *err)
{
    struct migration_reader reader = {.fn = fn, .ctx = ctx};
    return tw_db_run(tw_store_db(store), err, migration_row, &reader,
                     "SELECT " MIGRATION_COLUMNS " FROM migrations WHERE ended = 0 ORDER BY number",
                     "");
}

enum tw_code tw_store_migrations_owed(struct tw_store *store, tw_migration_fn fn, void *ctx,
                                      struct tw_error *err)
{
    struct migration_reader reader = {.fn = fn, .ctx = ctx};
    return tw_db_run(tw_store_db(store), err, migration_row, &reader,
                     "SELECT " MIGRATION_COLUMNS " FROM migrations WHERE owed != 0 ORDER BY number"
                     " LIMIT 1000",
                     "");
}
