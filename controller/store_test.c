#include "controller/store.h"

#include "base/log.h"
#include "controller/schema.h"
#include "towline/v1/event.pb-c.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[96];
static struct tw_error err;

static void make_dir(void)
{
    tw_log_configure("test", TW_LOG_OFF);
    strcpy(dir, "/tmp/towline-store-XXXXXX");
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/store.db", dir);
}

static void drop_dir(void)
{
    static const char *const ends[] = {"", ".lock", "-wal", "-shm"};
    char name[160];
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    rmdir(dir);
}

TestSuite(store, .init = make_dir, .fini = drop_dir);

static struct tw_store *reopen(void)
{
    struct tw_store *store;
    const struct tw_store_config config = {.path = path};
    tw_error_clear(&err);
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_OK, "%s: %s", err.where, err.what);
    return store;
}

#define DO(store, mode, call)                                                                      \
    do {                                                                                           \
        cr_assert_eq(tw_store_begin(store, mode, &err), TW_OK);                                    \
        cr_assert_eq(tw_store_end(store, call, &err), TW_OK, "%s: %s", err.where, err.what);       \
    } while (0)

static struct tw_vm_record sample_vm(const char *name)
{
    struct tw_vm_record vm = {.memory_bytes = 256u << 20,
                              .epoch = 3,
                              .epoch_issued = 4,
                              .state = TW_VM_RUNNING,
                              .wanted = TW_WANTED_RUNNING,
                              .spec_size = 3,
                              .spec = {1, 0, 3}};
    snprintf(vm.name, sizeof vm.name, "%s", name);
    snprintf(vm.host, sizeof vm.host, "node-a");
    snprintf(vm.reason, sizeof vm.reason, "it's \"quoted\"");
    return vm;
}

static void count_vm(void *ctx, const struct tw_vm_record *vm)
{
    (void)vm;
    ++*(unsigned *)ctx;
}
static void count_migration(void *ctx, const struct tw_migration_record *m)
{
    (void)m;
    ++*(unsigned *)ctx;
}
static void keep_host(void *ctx, const struct tw_host_record *h)
{
    *(struct tw_host_record *)ctx = *h;
}

Test(store, keeps_hosts_and_vms_over_a_reopening)
{
    struct tw_store *store = reopen();
    uint64_t generation = tw_store_generation(store);
    struct tw_vm_record vm = sample_vm("web"), got;
    struct tw_host_record host = {.name = "node-a",
                                  .rpc_url = "tcp://127.0.0.1:1",
                                  .capacity_bytes = 1u << 30,
                                  .instance = UINT64_MAX,
                                  .alive = true,
                                  .cpus = 2},
                          read_host = {0};
    DO(store, TW_STORE_DURABLE, tw_store_vm_put(store, &vm, &err));
    DO(store, TW_STORE_RELAXED, tw_store_host_put(store, &host, &err));
    tw_store_close(store);
    store = reopen();
    cr_assert_gt(tw_store_generation(store), generation);
    DO(store, TW_STORE_READ, tw_store_vm_get(store, "web", &got, &err));
    cr_assert_eq(memcmp(&vm, &got, sizeof vm), 0);
    DO(store, TW_STORE_READ, tw_store_hosts_each(store, keep_host, &read_host, &err));
    cr_assert_eq(memcmp(&host, &read_host, sizeof host), 0);
    unsigned n = 0;
    DO(store, TW_STORE_READ, tw_store_vms_each(store, "node-b", count_vm, &n, &err));
    cr_assert_eq(n, 0);
    DO(store, TW_STORE_READ, tw_store_vms_each(store, "node-a", count_vm, &n, &err));
    cr_assert_eq(n, 1);
    cr_assert_eq(tw_store_begin(store, TW_STORE_READ, &err), TW_OK);
    cr_assert_eq(tw_store_end(store, tw_store_vm_get(store, "nobody", &got, &err), &err),
                 TW_NOT_FOUND);
    cr_assert_str_eq(err.where, "nobody");
    tw_store_close(store);
}

static struct tw_migration_record sample_migration(void)
{
    struct tw_migration_record m = {.vm = "web",
                                    .source = "node-a",
                                    .destination = "node-b",
                                    .state = TW_MIGRATION_RESOLVING,
                                    .limits = {1, 2},
                                    .limits_size = 2,
                                    .progress = {9, 8, 7},
                                    .progress_size = 3,
                                    .epoch = 5,
                                    .source_epoch = 4,
                                    .reclaim_epoch = 6,
                                    .source_known = TW_KNOWN_GIVEN_UP,
                                    .destination_known = TW_KNOWN_PREPARED,
                                    .decision = TW_DECIDED_RECLAIM,
                                    .fenced = TW_FENCED_DESTINATION,
                                    .owed = TW_OWED_DESTINATION_ABORT,
                                    .cancel_requested = true};
    tw_fail(&m.error, TW_UNAVAILABLE, "host node-b", "an answer", "none", "is silent");
    return m;
}

Test(store, keeps_migrations_whole)
{
    struct tw_store *store = reopen();
    struct tw_migration_record m = sample_migration(), got;
    DO(store, TW_STORE_DURABLE, tw_store_migration_add(store, &m, &err));
    cr_assert_str_eq(m.id, "m-1");
    tw_store_close(store);
    store = reopen();
    DO(store, TW_STORE_READ, tw_store_migration_get(store, "m-1", &got, &err));
    cr_assert_eq(memcmp(&m, &got, sizeof m), 0);
    unsigned running = 0, owed = 0, all = 0;
    got.state = TW_MIGRATION_FAILED;
    got.ended_unix_ms = 1;
    DO(store, TW_STORE_READ, tw_store_migrations_running(store, count_migration, &running, &err));
    cr_assert_eq(running, 1);
    DO(store, TW_STORE_DURABLE, tw_store_migration_put(store, &got, &err));
    running = 0;
    DO(store, TW_STORE_READ, tw_store_migrations_running(store, count_migration, &running, &err));
    DO(store, TW_STORE_READ, tw_store_migrations_owed(store, count_migration, &owed, &err));
    DO(store, TW_STORE_READ,
       tw_store_migrations_each(store, "web", 10, count_migration, &all, &err));
    DO(store, TW_STORE_READ, tw_store_migrations_each(store, "x", 10, count_migration, &all, &err));
    cr_assert(running == 0 && owed == 1 && all == 1, "%u %u %u", running, owed, all);
    DO(store, TW_STORE_DURABLE, tw_store_migration_skip(store, 100, &err));
    DO(store, TW_STORE_DURABLE, tw_store_migration_skip(store, 50, &err));
    DO(store, TW_STORE_DURABLE, tw_store_migration_add(store, &m, &err));
    cr_assert_str_eq(m.id, "m-101");
    tw_store_close(store);
}

Test(store, strange_ids_are_not_found)
{
    static const char *const ids[] = {
        "", "m-", "m-0", "m--1", "m-1x", "1", "m-99999999999999999999", "m-01", "m-1 "};
    struct tw_store *store = reopen();
    struct tw_migration_record m = sample_migration();
    DO(store, TW_STORE_DURABLE, tw_store_migration_add(store, &m, &err));
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        cr_assert_eq(tw_store_begin(store, TW_STORE_READ, &err), TW_OK);
        cr_assert_eq(tw_store_end(store, tw_store_migration_get(store, ids[i], &m, &err), &err),
                     TW_NOT_FOUND, "%s", ids[i]);
    }
    tw_store_close(store);
}

Test(store, failed_transaction_leaves_nothing)
{
    struct tw_store *store = reopen();
    struct tw_vm_record vm = sample_vm("web"), got;
    cr_assert_eq(tw_store_begin(store, TW_STORE_DURABLE, &err), TW_OK);
    cr_assert_eq(tw_store_vm_put(store, &vm, &err), TW_OK);
    cr_assert_eq(tw_store_event(store, "vm.new", "web", NULL, &err, "new"), TW_OK);
    cr_assert_eq(tw_store_end(store, TW_ABORTED, &err), TW_ABORTED);
    cr_assert_eq(tw_store_begin(store, TW_STORE_READ, &err), TW_OK);
    cr_assert_eq(tw_store_vm_get(store, "web", &got, &err), TW_NOT_FOUND);
    uint64_t oldest, newest;
    cr_assert_eq(tw_store_end(store, tw_store_events_bounds(store, &oldest, &newest, &err), &err),
                 TW_OK);
    cr_assert_eq(newest, 0);
    tw_store_close(store);
}

static void note_revision(void *ctx, uint64_t revision)
{
    *(uint64_t *)ctx = revision;
}

struct seen {
    unsigned count;
    uint64_t last;
    char kind[32], value[32];
};

static void see_event(void *ctx, uint64_t revision, const uint8_t *body, size_t size)
{
    struct seen *seen = ctx;
    Towline__V1__Event *e = towline__v1__event__unpack(NULL, size, body);
    cr_assert(e);
    cr_assert_gt(revision, seen->last, "in order");
    seen->last = revision;
    seen->count++;
    snprintf(seen->kind, sizeof seen->kind, "%s", e->kind);
    snprintf(seen->value, sizeof seen->value, "%s", e->n_attributes ? e->attributes[0]->value : "");
    towline__v1__event__free_unpacked(e, NULL);
}

Test(store, events_have_gapless_revisions_and_a_bound)
{
    struct tw_store *store;
    uint64_t told = 0, oldest, newest;
    const struct tw_store_config config = {
        .path = path, .events_kept = 10, .on_events = note_revision, .ctx = &told};
    const char *const pairs[] = {"state", "running", NULL};
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_OK);
    for (unsigned i = 1; i <= 25; i++) {
        DO(store, TW_STORE_RELAXED,
           tw_store_event(store, "vm.state", i % 2 ? "a" : "b", pairs, &err, "number %u", i));
        cr_assert_eq(told, i);
    }
    DO(store, TW_STORE_READ, tw_store_events_bounds(store, &oldest, &newest, &err));
    cr_assert(newest == 25 && oldest == 16, "%llu..%llu", (unsigned long long)oldest,
              (unsigned long long)newest);
    struct seen all = {0}, a = {0}, few = {0}, none = {0};
    DO(store, TW_STORE_READ, tw_store_events_read(store, 0, "", 100, see_event, &all, &err));
    DO(store, TW_STORE_READ, tw_store_events_read(store, 17, "a", 100, see_event, &a, &err));
    DO(store, TW_STORE_READ, tw_store_events_read(store, 20, "", 2, see_event, &few, &err));
    DO(store, TW_STORE_READ,
       tw_store_events_read(store, UINT64_MAX, "", 2, see_event, &none, &err));
    cr_assert(all.count == 10 && a.count == 4 && few.count == 2 && few.last == 22 && !none.count);
    cr_assert_str_eq(all.kind, "vm.state");
    cr_assert_str_eq(all.value, "running");
    tw_store_close(store);
}

Test(store, second_opener_is_refused)
{
    struct tw_store *store = reopen(), *other;
    const struct tw_store_config config = {.path = path};
    cr_assert_eq(tw_store_open(&config, &other, &err), TW_FAILED_PRECONDITION);
    cr_assert(strstr(err.what, "in use") && strstr(err.given, "process "), "%s %s", err.what,
              err.given);
    tw_store_close(store);
    store = reopen();
    tw_store_close(store);
}

Test(store, newer_schema_is_refused_untouched)
{
    struct tw_store *store = reopen();
    tw_store_close(store);
    struct tw_db db;
    cr_assert_eq(tw_db_open(&db, path, &err), TW_OK);
    cr_assert_eq(tw_db_exec(&db, "UPDATE meta SET value = 99 WHERE key = 'schema_version'", &err),
                 TW_OK);
    tw_db_close(&db);
    const struct tw_store_config config = {.path = path};
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_FAILED_PRECONDITION);
    char expected[32];
    snprintf(expected, sizeof expected, "at most %u", tw_schema_version);
    cr_assert_str_eq(err.expected, expected);
    cr_assert_str_eq(err.given, "99");
}

Test(store, a_file_that_is_no_store_is_refused)
{
    FILE *f = fopen(path, "w");
    for (unsigned i = 0; i < 4096; i++)
        fputs("not a database ", f);
    fclose(f);
    struct tw_store *store;
    const struct tw_store_config config = {.path = path};
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_DATA_LOSS);
    const struct tw_store_config nowhere = {.path = "/nowhere/at/all"};
    cr_assert_eq(tw_store_open(&nowhere, &store, &err), TW_NOT_FOUND);
}

Test(store, steps_are_applied_once_and_whole)
{
    static const char *const steps[] = {
        "CREATE TABLE a(x); INSERT INTO a VALUES(1)",
        "ALTER TABLE a ADD COLUMN y DEFAULT 7",
        "UPDATE a SET x = x + 1; CREATE TABLE a(x)" /* fails at its end */,
    };
    struct tw_db db;
    uint64_t x, y, version;
    cr_assert_eq(tw_db_open(&db, path, &err), TW_OK);
    cr_assert_eq(tw_schema_apply(&db, steps, 1, &err), TW_OK);
    cr_assert_eq(tw_schema_apply(&db, steps, 2, &err), TW_OK);
    cr_assert_eq(tw_schema_apply(&db, steps, 2, &err), TW_OK);
    cr_assert_neq(tw_schema_apply(&db, steps, 3, &err), TW_OK);
    cr_assert_eq(tw_db_number(&db, "SELECT x FROM a", 0, &x, &err), TW_OK);
    cr_assert_eq(tw_db_number(&db, "SELECT y FROM a", 0, &y, &err), TW_OK);
    cr_assert_eq(
        tw_db_number(&db, "SELECT value FROM meta WHERE key = 'schema_version'", 0, &version, &err),
        TW_OK);
    cr_assert(x == 1 && y == 7 && version == 2);
    tw_db_close(&db);
}

/* A bound on the file stands for a full disk: SQLite reports both alike. */
Test(store, full_disk_is_an_error_and_no_end)
{
    struct tw_store *store;
    const struct tw_store_config config = {.path = path, .bytes_max = 40 * 4096};
    struct tw_store_figures figures;
    struct tw_vm_record vm = sample_vm("vm"), got;
    enum tw_code code = TW_OK;
    unsigned n = 0, kept = 0;
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_OK, "%s", err.what);
    vm.spec_size = 4000;
    for (; n < 100 && code == TW_OK; n++) {
        snprintf(vm.name, sizeof vm.name, "vm-%u", n);
        cr_assert_eq(tw_store_begin(store, TW_STORE_DURABLE, &err), TW_OK);
        code = tw_store_end(store, tw_store_vm_put(store, &vm, &err), &err);
    }
    cr_assert_eq(code, TW_RESOURCE_EXHAUSTED, "%s", err.what);
    tw_store_figures(store, &figures);
    cr_assert(!figures.last_write_ok && figures.failed_count == 1);
    DO(store, TW_STORE_READ, tw_store_vms_each(store, "", count_vm, &kept, &err));
    cr_assert_eq(kept, n - 1, "what was written before is all there");
    DO(store, TW_STORE_READ, tw_store_vm_get(store, "vm-0", &got, &err));
    got.state = TW_VM_STOPPED;
    DO(store, TW_STORE_DURABLE, tw_store_vm_put(store, &got, &err));
    tw_store_figures(store, &figures);
    cr_assert(figures.last_write_ok && figures.durable_count == n);
    tw_store_close(store);
}

Test(store, tombstones_go_after_their_time)
{
    struct tw_store *store = reopen();
    struct tw_vm_record vm = sample_vm("web");
    unsigned n = 0;
    vm.wanted = TW_WANTED_GONE;
    vm.host[0] = 0;
    DO(store, TW_STORE_DURABLE, tw_store_vm_put(store, &vm, &err));
    DO(store, TW_STORE_DURABLE, tw_store_vms_prune(store, vm.changed_unix_ms + 1000, &err));
    DO(store, TW_STORE_READ, tw_store_vms_each(store, "", count_vm, &n, &err));
    cr_assert_eq(n, 1);
    DO(store, TW_STORE_DURABLE,
       tw_store_vms_prune(store, vm.changed_unix_ms + TW_STORE_TOMBSTONES_MS + 1, &err));
    n = 0;
    DO(store, TW_STORE_READ, tw_store_vms_each(store, "", count_vm, &n, &err));
    cr_assert_eq(n, 0);
    tw_store_close(store);
}

struct notes {
    unsigned count;
    char last[32];
};

static void note_seen(void *ctx, const uint8_t *body, size_t size)
{
    struct notes *n = ctx;
    Towline__V1__Event *e = towline__v1__event__unpack(NULL, size, body);
    cr_assert_not_null(e);
    n->count++;
    snprintf(n->last, sizeof n->last, "%s", e->text);
    towline__v1__event__free_unpacked(e, NULL);
}

Test(store, notes_are_kept_by_id_and_kind)
{
    struct tw_store *store = reopen();
    Towline__V1__Event e = TOWLINE__V1__EVENT__INIT;
    struct notes seen = {0};
    e.text = (char[]){"first"};
    DO(store, TW_STORE_RELAXED, tw_store_note_add(store, "m-1", "audit", &e.base, &err));
    e.text = (char[]){"second"};
    DO(store, TW_STORE_RELAXED, tw_store_note_add(store, "m-1", "audit", &e.base, &err));
    DO(store, TW_STORE_RELAXED, tw_store_note_add(store, "m-2", "audit", &e.base, &err));
    DO(store, TW_STORE_READ,
       tw_store_notes_each(store, "m-1", "audit", 10, note_seen, &seen, &err));
    cr_assert_eq(seen.count, 2);
    cr_assert_str_eq(seen.last, "second", "in order");
    seen.count = 0;
    DO(store, TW_STORE_READ, tw_store_notes_each(store, "m-1", "why", 10, note_seen, &seen, &err));
    cr_assert_eq(seen.count, 0);
    e.text = (char[]){"only"};
    DO(store, TW_STORE_DURABLE, tw_store_note_put(store, "m-1", "audit", &e.base, &err));
    tw_store_close(store);
    store = reopen();
    DO(store, TW_STORE_READ,
       tw_store_notes_each(store, "m-1", "audit", 10, note_seen, &seen, &err));
    cr_assert_eq(seen.count, 1, "put replaces, and it is there after a restart");
    cr_assert_str_eq(seen.last, "only");
    tw_store_close(store);
}
