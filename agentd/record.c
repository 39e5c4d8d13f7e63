#include "agentd/record.h"

#include "base/crc32c.h"
#include "base/fault.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAGIC    UINT32_C(0x31525754) /* "TWR1" */
#define RECORD_MAX      (64u << 10)          /* bytes of one packed record */
#define MIGRATIONS_KEPT 1000u                /* outcomes; older ones are removed at open */

struct record_header {
    uint32_t magic;
    uint32_t length;
    uint32_t crc32c; /* of the payload */
    uint32_t reserved;
};

/* A file that is on disk and not yet a record. */
struct staged {
    uint8_t *bytes; /* NULL = none */
    size_t size;
    char name[80]; /* that it is to get */
};

struct tw_record_store {
    int vms;        /* folder */
    int migrations; /* folder */
    int lock;
    struct staged staged[TW_RECORDS_STAGED];
    unsigned stage_next;
};

bool tw_record_name_ok(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n &&
           name[0] != '-';
}

static int open_folder(int parent, const char *name)
{
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return -1;
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static enum tw_code open_parts(struct tw_record_store *s, const char *dir, struct tw_error *err)
{
    int top = open_folder(AT_FDCWD, dir);
    if (top < 0)
        return tw_fail_errno(err, errno, dir, "cannot open the state folder");
    s->vms = open_folder(top, "vms");
    s->migrations = open_folder(top, "migrations");
    s->lock = openat(top, "lock", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    int number = errno;
    close(top);
    if (s->vms < 0 || s->migrations < 0 || s->lock < 0)
        return tw_fail_errno(err, number, dir, "cannot make the state folder's parts");
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, dir, "one agent", "another agent holds it",
                       "the state folder is locked");
    return TW_OK;
}

struct aged {
    char name[256];
    time_t written;
};

static int older_first(const void *a, const void *b)
{
    time_t x = ((const struct aged *)a)->written, y = ((const struct aged *)b)->written;
    return (x > y) - (x < y);
}

/* Outcomes are needed until the controller has read them; the newest thousand are plenty. */
static void prune_migrations(struct tw_record_store *s)
{
    DIR *d = fdopendir(dup(s->migrations));
    struct aged *all = calloc(4 * MIGRATIONS_KEPT, sizeof *all);
    size_t n = 0;
    if (d && all) {
        rewinddir(d);
        for (struct dirent *e; n < 4 * MIGRATIONS_KEPT && (e = readdir(d));) {
            struct stat st;
            if (e->d_name[0] == '.' || fstatat(s->migrations, e->d_name, &st, 0) != 0)
                continue;
            snprintf(all[n].name, sizeof all[n].name, "%s", e->d_name);
            all[n++].written = st.st_mtime;
        }
        qsort(all, n, sizeof *all, older_first);
        for (size_t i = 0; i + MIGRATIONS_KEPT < n; i++)
            unlinkat(s->migrations, all[i].name, 0);
    }
    free(all);
    if (d)
        closedir(d);
}

static const char *staged_name(char out[80], unsigned i)
{
    snprintf(out, 80, ".staged-%u", i);
    return out;
}

static void unstage(struct tw_record_store *s, unsigned i)
{
    char name[80];
    unlinkat(s->vms, staged_name(name, i), 0);
    free(s->staged[i].bytes);
    s->staged[i].bytes = NULL;
}

/* TW_RECORDS_STAGED: none is the same to the last byte. */
static unsigned find_staged(const struct tw_record_store *s, const char *name, const uint8_t *data,
                            size_t size)
{
    unsigned i = 0;
    for (; i < TW_RECORDS_STAGED; i++) {
        const struct staged *t = &s->staged[i];
        if (t->bytes && t->size == size && strcmp(t->name, name) == 0 &&
            memcmp(t->bytes, data, size) == 0)
            break;
    }
    return i;
}

enum tw_code tw_record_store_open(const char *state_dir, struct tw_record_store **store,
                                  struct tw_error *err)
{
    struct tw_record_store *s = malloc(sizeof *s);
    if (!s)
        return tw_fail_errno(err, ENOMEM, state_dir, "cannot open the store");
    *s = (struct tw_record_store){.vms = -1, .migrations = -1, .lock = -1};
    enum tw_code code = open_parts(s, state_dir, err);
    if (code) {
        tw_record_store_close(s);
        return code;
    }
    for (unsigned i = 0; i < TW_RECORDS_STAGED; i++)
        unstage(s, i); /* what an earlier process has left */
    prune_migrations(s);
    *store = s;
    return TW_OK;
}

void tw_record_store_close(struct tw_record_store *store)
{
    if (!store)
        return;
    for (unsigned i = 0; i < TW_RECORDS_STAGED; i++)
        if (store->staged[i].bytes)
            unstage(store, i);
    int fds[] = {store->vms, store->migrations, store->lock};
    for (unsigned i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(store);
}

static bool write_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* Its content is on disk when it returns true. */
static bool write_file(int folder, const char *temporary, const uint8_t *data, size_t size)
{
    int fd = openat(folder, temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, data, size) && fdatasync(fd) == 0;
    int number = errno;
    close(fd);
    if (!ok) {
        unlinkat(folder, temporary, 0);
        errno = number;
    }
    return ok;
}

static bool replace_file(struct tw_record_store *s, int folder, const char *name,
                         const uint8_t *data, size_t size)
{
    char temporary[80];
    unsigned i = folder == s->vms ? find_staged(s, name, data, size) : TW_RECORDS_STAGED;
    staged_name(temporary, i);
    if (i == TW_RECORDS_STAGED) {
        snprintf(temporary, sizeof temporary, ".%s", name);
        if (!write_file(folder, temporary, data, size))
            return false;
    }
    bool ok = renameat(folder, temporary, folder, name) == 0 && fsync(folder) == 0;
    int number = errno;
    if (i < TW_RECORDS_STAGED)
        unstage(s, i); /* used, or no good */
    errno = number;
    return ok;
}

/* The whole file, malloc'ed; NULL where there is no memory. */
static uint8_t *pack(const ProtobufCMessage *message, size_t *size)
{
    size_t length = protobuf_c_message_get_packed_size(message);
    struct record_header header = {.magic = RECORD_MAGIC, .length = (uint32_t)length};
    uint8_t *file = malloc(sizeof header + length);
    if (!file)
        return NULL;
    protobuf_c_message_pack(message, file + sizeof header);
    header.crc32c = tw_crc32c(0, file + sizeof header, length);
    memcpy(file, &header, sizeof header);
    *size = sizeof header + length;
    return file;
}

static enum tw_code save(struct tw_record_store *s, int folder, const char *name,
                         const ProtobufCMessage *message, struct tw_error *err)
{
    size_t length = protobuf_c_message_get_packed_size(message), size;
    if (!tw_record_name_ok(name) || length > RECORD_MAX)
        return tw_fail(err, TW_INTERNAL, name, "a valid name and at most 64 KiB", NULL,
                       "cannot make a record of it");
    if (tw_fault_fails("record.write"))
        return tw_fail_errno(err, ENOSPC, name, "cannot write the record");
    uint8_t *file = pack(message, &size);
    if (!file)
        return tw_fail_errno(err, ENOMEM, name, "cannot write the record");
    bool ok = replace_file(s, folder, name, file, size);
    int number = errno;
    free(file);
    return ok ? TW_OK : tw_fail_errno(err, number, name, "cannot write the record");
}

/* The checked payload (malloc'ed) or NULL. */
static uint8_t *load(int folder, const char *name, size_t *length)
{
    struct record_header header;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    uint8_t *payload = NULL;
    if (read(fd, &header, sizeof header) == sizeof header && header.magic == RECORD_MAGIC &&
        header.length <= RECORD_MAX && (payload = malloc(header.length + 1u))) {
        *length = header.length;
        if (read(fd, payload, header.length + 1u) != (ssize_t)header.length ||
            tw_crc32c(0, payload, header.length) != header.crc32c) {
            free(payload);
            payload = NULL;
        }
    }
    close(fd);
    if (!payload)
        tw_log(TW_LOG_ERROR, "record", "record does not check, left alone", "file=%s", name);
    return payload;
}

enum tw_code tw_record_vm_save(struct tw_record_store *store, const Towline__V1__VmRecord *record,
                               struct tw_error *err)
{
    return save(store, store->vms, record->spec->name, &record->base, err);
}

void tw_record_vm_stage(struct tw_record_store *store, const Towline__V1__VmRecord *record)
{
    const char *name = record->spec->name;
    unsigned i = store->stage_next++ % TW_RECORDS_STAGED;
    struct staged *staged = &store->staged[i];
    char temporary[80];
    unstage(store, i);
    if (!tw_record_name_ok(name) || protobuf_c_message_get_packed_size(&record->base) > RECORD_MAX)
        return; /* its save will say so */
    uint8_t *file = pack(&record->base, &staged->size);
    if (!file || !write_file(store->vms, staged_name(temporary, i), file, staged->size)) {
        free(file);
        return;
    }
    staged->bytes = file;
    snprintf(staged->name, sizeof staged->name, "%s", name);
}

enum tw_code tw_record_vm_remove(struct tw_record_store *store, const char *name,
                                 struct tw_error *err)
{
    if (unlinkat(store->vms, name, 0) != 0 && errno != ENOENT)
        return tw_fail_errno(err, errno, name, "cannot remove the record");
    if (fsync(store->vms) != 0)
        return tw_fail_errno(err, errno, name, "cannot make the record's removal durable");
    return TW_OK;
}

enum tw_code tw_record_migration_save(struct tw_record_store *store,
                                      const Towline__V1__MigrationRecord *record,
                                      struct tw_error *err)
{
    return save(store, store->migrations, record->migration, &record->base, err);
}

Towline__V1__MigrationRecord *tw_record_migration_load(struct tw_record_store *store,
                                                       const char *id)
{
    size_t length;
    if (!tw_record_name_ok(id) || faccessat(store->migrations, id, F_OK, 0) != 0)
        return NULL;
    uint8_t *payload = load(store->migrations, id, &length);
    if (!payload)
        return NULL;
    Towline__V1__MigrationRecord *r = towline__v1__migration_record__unpack(NULL, length, payload);
    free(payload);
    return r;
}

bool tw_record_vm_each(struct tw_record_store *store,
                       void (*visit)(void *ctx, const Towline__V1__VmRecord *record), void *ctx)
{
    bool all_read = true;
    DIR *d = fdopendir(dup(store->vms));
    if (!d)
        return false;
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t length;
        if (!tw_record_name_ok(e->d_name))
            continue;
        uint8_t *payload = load(store->vms, e->d_name, &length);
        Towline__V1__VmRecord *r =
            payload ? towline__v1__vm_record__unpack(NULL, length, payload) : NULL;
        free(payload);
        bool good = r && r->spec && strcmp(r->spec->name, e->d_name) == 0;
        if (good)
            visit(ctx, r);
        all_read = all_read && good;
        if (r)
            towline__v1__vm_record__free_unpacked(r, NULL);
    }
    closedir(d);
    return all_read;
}
