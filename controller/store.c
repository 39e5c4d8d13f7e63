#include "controller/store.h"

#include "base/clock.h"
#include "base/log.h"
#include "controller/schema.h"

#include "towline/v1/event.pb-c.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define EVENT_BYTES_MAX 4096u
#define EVENT_PAIRS_MAX 8u
#define PAGE_BYTES      4096u
#define PRUNE_EVERY     1000u

const uint64_t tw_store_bucket_us[TW_STORE_BUCKETS] = {500,   1000,  2500,   5000,
                                                       10000, 50000, 250000, UINT64_MAX};

struct tw_store {
    struct tw_db db;
    pthread_mutex_t lock; /* held from begin to end */
    int lock_fd;
    uint32_t events_kept;
    void (*on_events)(void *ctx, uint64_t revision);
    void *ctx;
    uint64_t generation;
    /* Of the transaction under way. */
    enum tw_store_mode mode;
    uint64_t began_ns;
    uint64_t revision; /* of its last event; 0 = none */
    bool relaxed;      /* how the connection is set now */
    pthread_mutex_t figures_lock;
    struct tw_store_figures figures;
};

/* ---- Opening ------------------------------------------------------------------------------- */

/* A lock file beside the store keeps a second controller away and says who has it. */
static enum tw_code lock_take(struct tw_store *store, const char *path, struct tw_error *err)
{
    char name[4096], owner[32] = "another process";
    if (snprintf(name, sizeof name, "%s.lock", path) >= (int)sizeof name)
        return tw_fail(err, TW_INVALID_ARGUMENT, "store", NULL, NULL, "the path is too long");
    store->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return tw_fail_errno(err, errno, path, "cannot make the lock file");
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        char text[32];
        int n = snprintf(text, sizeof text, "process %d\n", (int)getpid());
        if (ftruncate(store->lock_fd, 0) != 0 || write(store->lock_fd, text, (size_t)n) != n)
            return tw_fail_errno(err, errno, path, "cannot write the lock file");
        return TW_OK;
    }
    if (errno != EWOULDBLOCK)
        return tw_fail_errno(err, errno, path, "cannot lock the store");
    ssize_t n = read(store->lock_fd, owner, sizeof owner - 1);
    if (n > 0)
        owner[strcspn(owner, "\n")] = 0;
    return tw_fail(err, TW_FAILED_PRECONDITION, path, "one controller a store", owner,
                   "the store is in use");
}

static enum tw_code configure(struct tw_store *store, const struct tw_store_config *config,
                              struct tw_error *err)
{
    char limit[64];
    uint64_t pages = config->bytes_max / PAGE_BYTES;
    enum tw_code code = tw_db_exec(&store->db,
                                   "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                   "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
                                   "PRAGMA journal_size_limit = 16777216",
                                   err);
    if (code == TW_OK && pages) {
        snprintf(limit, sizeof limit, "PRAGMA max_page_count = %llu", (unsigned long long)pages);
        code = tw_db_exec(&store->db, limit, err);
    }
    if (code == TW_OK)
        code = tw_schema_apply(&store->db, tw_schema_steps, tw_schema_version, err);
    return code;
}

static enum tw_code count_opening(struct tw_store *store, struct tw_error *err)
{
    enum tw_code code = tw_db_run(&store->db, err, NULL, NULL,
                                  "INSERT INTO meta(key, value) VALUES('generation', 1)"
                                  " ON CONFLICT(key) DO UPDATE SET value = value + 1",
                                  "");
    if (code == TW_OK)
        code = tw_db_number(&store->db, "SELECT value FROM meta WHERE key = 'generation'", 0,
                            &store->generation, err);
    return code;
}

enum tw_code tw_store_open(const struct tw_store_config *config, struct tw_store **out,
                           struct tw_error *err)
{
    struct tw_store *store = calloc(1, sizeof *store);
    *out = NULL;
    if (!store)
        return tw_fail_errno(err, ENOMEM, config->path, "cannot open the store");
    store->events_kept = config->events_kept ? config->events_kept : TW_STORE_EVENTS_KEPT;
    store->on_events = config->on_events;
    store->ctx = config->ctx;
    store->figures.last_write_ok = true;
    store->lock_fd = -1;
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->figures_lock, NULL);
    enum tw_code code = lock_take(store, config->path, err);
    if (code == TW_OK)
        code = tw_db_open(&store->db, config->path, err);
    if (code == TW_OK)
        code = configure(store, config, err);
    if (code == TW_OK)
        code = count_opening(store, err);
    if (code != TW_OK) {
        tw_store_close(store);
        return code;
    }
    *out = store;
    return TW_OK;
}

void tw_store_close(struct tw_store *store)
{
    if (!store)
        return;
    if (store->db.handle)
        tw_db_close(&store->db);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->figures_lock);
    free(store);
}

struct tw_db *tw_store_db(struct tw_store *store)
{
    return &store->db;
}

uint64_t tw_store_generation(const struct tw_store *store)
{
    return store->generation;
}

/* ---- Transactions -------------------------------------------------------------------------- */

static enum tw_code set_durability(struct tw_store *store, bool relaxed, struct tw_error *err)
{
    if (store->relaxed == relaxed)
        return TW_OK;
    store->relaxed = relaxed;
    return tw_db_exec(&store->db,
                      relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", err);
}

enum tw_code tw_store_begin(struct tw_store *store, enum tw_store_mode mode, struct tw_error *err)
{
    pthread_mutex_lock(&store->lock);
    store->mode = mode;
    store->revision = 0;
    store->began_ns = tw_now(&tw_monotonic);
    enum tw_code code =
        mode == TW_STORE_READ ? TW_OK : set_durability(store, mode == TW_STORE_RELAXED, err);
    if (code == TW_OK)
        code = tw_db_exec(&store->db, mode == TW_STORE_READ ? "BEGIN" : "BEGIN IMMEDIATE", err);
    if (code != TW_OK)
        pthread_mutex_unlock(&store->lock);
    return code;
}

static void figures_note(struct tw_store *store, bool ok)
{
    uint64_t us = (tw_now(&tw_monotonic) - store->began_ns) / TW_US;
    struct tw_store_figures *f = &store->figures;
    pthread_mutex_lock(&store->figures_lock);
    f->last_write_ok = ok;
    f->failed_count += !ok;
    if (ok && store->mode == TW_STORE_RELAXED)
        f->relaxed_count++;
    if (ok && store->mode == TW_STORE_DURABLE) {
        unsigned b = 0;
        while (us > tw_store_bucket_us[b])
            b++;
        f->durable[b]++;
        f->durable_count++;
        f->durable_us += us;
    }
    pthread_mutex_unlock(&store->figures_lock);
}

static bool disk_failed(const struct tw_store *store)
{
    int result = sqlite3_errcode(store->db.handle) & 0xff;
    return result == SQLITE_FULL || result == SQLITE_IOERR || result == SQLITE_CORRUPT;
}

enum tw_code tw_store_end(struct tw_store *store, enum tw_code code, struct tw_error *err)
{
    bool failed = code != TW_OK && disk_failed(store);
    if (code == TW_OK) {
        code = tw_db_exec(&store->db, "COMMIT", err);
        failed = code != TW_OK;
    }
    /* SQLite has rolled back by itself when the disk was full: then there is nothing to undo. */
    if (code != TW_OK && !sqlite3_get_autocommit(store->db.handle))
        tw_db_exec(&store->db, "ROLLBACK", NULL);
    if (store->mode != TW_STORE_READ && (code == TW_OK || failed))
        figures_note(store, !failed);
    uint64_t revision = code == TW_OK ? store->revision : 0;
    pthread_mutex_unlock(&store->lock);
    if (revision && store->on_events)
        store->on_events(store->ctx, revision);
    return code;
}

void tw_store_figures(struct tw_store *store, struct tw_store_figures *out)
{
    pthread_mutex_lock(&store->figures_lock);
    *out = store->figures;
    pthread_mutex_unlock(&store->figures_lock);
}

/* ---- Events -------------------------------------------------------------------------------- */

static enum tw_code event_insert(struct tw_store *store, const char *subject, const uint8_t *body,
                                 size_t size, struct tw_error *err)
{
    enum tw_code code =
        tw_db_run(&store->db, err, NULL, NULL, "INSERT INTO events(subject, body) VALUES(?, ?)",
                  "tb", subject, (const void *)body, size);
    if (code != TW_OK)
        return code;
    store->revision = (uint64_t)sqlite3_last_insert_rowid(store->db.handle);
    uint32_t step = store->events_kept < PRUNE_EVERY ? 1 : PRUNE_EVERY;
    if (store->revision % step != 0 || store->revision <= store->events_kept)
        return TW_OK;
    return tw_db_run(&store->db, err, NULL, NULL, "DELETE FROM events WHERE revision <= ?", "u",
                     store->revision - store->events_kept);
}

enum tw_code tw_store_event(struct tw_store *store, const char *kind, const char *subject,
                            const char *const *pairs, struct tw_error *err, const char *text, ...)
{
    Towline__V1__Attribute attributes[EVENT_PAIRS_MAX], *list[EVENT_PAIRS_MAX];
    Towline__V1__Event event = TOWLINE__V1__EVENT__INIT;
    char words[512];
    uint8_t body[EVENT_BYTES_MAX];
    va_list args;
    va_start(args, text);
    vsnprintf(words, sizeof words, text, args);
    va_end(args);
    event.unix_ms = tw_wall_ms();
    event.kind = (char *)(uintptr_t)kind;
    event.subject = (char *)(uintptr_t)subject;
    event.text = words;
    event.attributes = list;
    for (; pairs && pairs[0] && event.n_attributes < EVENT_PAIRS_MAX; pairs += 2) {
        Towline__V1__Attribute *a = &attributes[event.n_attributes];
        towline__v1__attribute__init(a);
        a->key = (char *)(uintptr_t)pairs[0];
        a->value = (char *)(uintptr_t)pairs[1];
        list[event.n_attributes++] = a;
    }
    if (towline__v1__event__get_packed_size(&event) > sizeof body)
        return tw_fail(err, TW_INTERNAL, subject, NULL, NULL, "event %s is too large", kind);
    size_t size = towline__v1__event__pack(&event, body);
    tw_log(TW_LOG_INFO, "event", kind, "subject=%s text=\"%s\"", subject, words);
    return event_insert(store, subject, body, size, err);
}

struct event_reader {
    tw_event_fn fn;
    void *ctx;
};

static void event_row(void *ctx, tw_row *row)
{
    struct event_reader *reader = ctx;
    uint8_t body[EVENT_BYTES_MAX];
    size_t size = tw_row_blob(row, 1, body, sizeof body);
    reader->fn(reader->ctx, tw_row_u64(row, 0), body, size);
}

enum tw_code tw_store_events_read(struct tw_store *store, uint64_t after, const char *subject,
                                  uint32_t max, tw_event_fn fn, void *ctx, struct tw_error *err)
{
    struct event_reader reader = {fn, ctx};
    if (after > INT64_MAX)
        after = INT64_MAX;
    if (!subject[0])
        return tw_db_run(&store->db, err, event_row, &reader,
                         "SELECT revision, body FROM events WHERE revision > ?"
                         " ORDER BY revision LIMIT ?",
                         "uu", after, (uint64_t)max);
    return tw_db_run(&store->db, err, event_row, &reader,
                     "SELECT revision, body FROM events WHERE subject = ? AND revision > ?"
                     " ORDER BY revision LIMIT ?",
                     "tuu", subject, after, (uint64_t)max);
}

enum tw_code tw_store_events_bounds(struct tw_store *store, uint64_t *oldest, uint64_t *newest,
                                    struct tw_error *err)
{
    enum tw_code code =
        tw_db_number(&store->db, "SELECT MIN(revision) FROM events", 0, oldest, err);
    if (code == TW_OK)
        code = tw_db_number(&store->db, "SELECT MAX(revision) FROM events", 0, newest, err);
    return code;
}
