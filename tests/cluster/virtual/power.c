/* What a power failure takes: of the agents' folders the renames and removals that no fsync of the
 * folder has made last, of the controller's store the writes that no sync has. How much of it was
 * on the disk all the same is chance; it is the oldest part, and the last write of it may be torn.
 */
#include "tests/cluster/virtual/power.h"

#include "tests/cluster/virtual/world.h"

#include <sqlite3.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHANGES_MAX 64u   /* of a node's folders, not yet lasting */
#define WRITES_MAX  4096u /* of the store's files, likewise */
#define FILES_MAX   4u    /* database, log, index of the log, journal */
#define SECTOR      512u

/* ---- Folders --------------------------------------------------------------------------------- */

struct change {
    char folder[200], name[80];
    uint8_t *before; /* what the file was; NULL = it was not there */
    size_t size;
};
static struct change changes[VT_NODES][CHANGES_MAX];
static unsigned change_count[VT_NODES];

static bool path_of(int fd, char path[200])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 199);
    path[n > 0 ? n : 0] = 0;
    return n > 0;
}

static uint8_t *file_read(int folder, const char *name, size_t *size)
{
    struct stat st;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = NULL;
    *size = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && (bytes = malloc((size_t)st.st_size + 1))) {
        ssize_t n = read(fd, bytes, (size_t)st.st_size);
        *size = n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

void vt_power_changes(struct vt_node *node, int folder, const char *name)
{
    if (!node || node->dead)
        return;
    unsigned i = vt_index(node);
    struct change *c = &changes[i][change_count[i]];
    if (change_count[i] == CHANGES_MAX || !path_of(folder, c->folder)) {
        vt_problem("%s makes no change of its folders last", node->name);
        return;
    }
    snprintf(c->name, sizeof c->name, "%s", name);
    c->before = file_read(folder, name, &c->size);
    change_count[i]++;
}

void vt_power_lasts(struct vt_node *node, int folder)
{
    char path[200];
    if (!node || node->dead || !path_of(folder, path))
        return;
    unsigned n = vt_index(node), left = 0;
    for (unsigned i = 0; i < change_count[n]; i++) {
        if (strcmp(changes[n][i].folder, path) == 0)
            free(changes[n][i].before);
        else
            changes[n][left++] = changes[n][i];
    }
    change_count[n] = left;
}

static void take_back(const struct change *c)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", c->folder, c->name);
    unlink(path);
    int fd = c->before ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    if (write(fd, c->before, c->size) != (ssize_t)c->size)
        abort(); /* the machine that plays this has no room */
    close(fd);
}

static void lose_changes(unsigned n)
{
    unsigned kept = change_count[n] ? (unsigned)vt_below(change_count[n] + 1) : 0;
    for (unsigned i = change_count[n]; i-- > 0;) {
        if (i >= kept)
            take_back(&changes[n][i]);
        free(changes[n][i].before);
    }
    if (change_count[n])
        vt_say("%u of %u changes are on the disk of %s", kept, change_count[n],
               vt_world.nodes[n].name);
    change_count[n] = 0;
}

/* ---- The store ------------------------------------------------------------------------------- */

/* SQLite's own way to its files, with what is not yet synced remembered. */
struct written {
    unsigned file;
    int64_t at, length_before; /* of the file */
    uint8_t *before;           /* NULL: it is another length only */
    int size;
};
struct store_file {
    sqlite3_file base;
    unsigned file;
    sqlite3_file real; /* continues behind this */
};
static sqlite3_vfs vfs;
static sqlite3_vfs *real_vfs;
static sqlite3_io_methods methods;
static char files[FILES_MAX][200];
static struct written writes[WRITES_MAX];
static unsigned write_count;

static sqlite3_file *real_of(sqlite3_file *file)
{
    return &((struct store_file *)file)->real;
}
#define REAL(file, method, ...) real_of(file)->pMethods->method(real_of(file), ##__VA_ARGS__)

static unsigned file_index(const char *name)
{
    unsigned i = 0;
    while (i < FILES_MAX && files[i][0] && strcmp(files[i], name) != 0)
        i++;
    if (i == FILES_MAX)
        abort();
    snprintf(files[i], sizeof files[i], "%s", name);
    return i;
}

static void remember(sqlite3_file *file, const void *bytes, int size, int64_t at)
{
    if (write_count == WRITES_MAX) {
        vt_problem("the controller's store is never synced");
        return;
    }
    struct written *w = &writes[write_count++];
    sqlite3_int64 length = 0;
    REAL(file, xFileSize, &length);
    *w = (struct written){((struct store_file *)file)->file, at, length, NULL, size};
    if (!bytes)
        return;
    w->before = calloc(1, (size_t)size);
    if (at < length)
        REAL(file, xRead, w->before, size, at); /* short behind its end: zeros */
}

static int x_close(sqlite3_file *f)
{
    return REAL(f, xClose);
}
static int x_read(sqlite3_file *f, void *to, int size, sqlite3_int64 at)
{
    return REAL(f, xRead, to, size, at);
}
static int x_write(sqlite3_file *f, const void *bytes, int size, sqlite3_int64 at)
{
    if (vt_dead())
        return SQLITE_IOERR_WRITE;
    remember(f, bytes, size, at);
    return REAL(f, xWrite, bytes, size, at);
}
static int x_truncate(sqlite3_file *f, sqlite3_int64 length)
{
    sqlite3_int64 now = 0;
    if (vt_dead())
        return SQLITE_IOERR_TRUNCATE;
    REAL(f, xFileSize, &now);
    if (length < now) { /* taken back, it has what stood there */
        uint8_t *tail = malloc((size_t)(now - length));
        REAL(f, xRead, tail, (int)(now - length), length);
        remember(f, tail, (int)(now - length), length);
        free(tail);
    }
    remember(f, NULL, 0, length);
    return REAL(f, xTruncate, length);
}
static int x_sync(sqlite3_file *f, int flags)
{
    unsigned left = 0, file = ((struct store_file *)f)->file;
    (void)flags; /* it is memory: nothing has to be waited for */
    if (vt_dead())
        return SQLITE_IOERR_FSYNC;
    for (unsigned i = 0; i < write_count; i++) {
        if (writes[i].file != file || vt_mutated("forget_sync")) {
            writes[left++] = writes[i];
            continue;
        }
        free(writes[i].before);
    }
    write_count = left;
    return SQLITE_OK;
}
static int x_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return REAL(f, xFileSize, size);
}
static int x_lock(sqlite3_file *f, int how)
{
    return REAL(f, xLock, how);
}
static int x_unlock(sqlite3_file *f, int how)
{
    return REAL(f, xUnlock, how);
}
static int x_reserved(sqlite3_file *f, int *is)
{
    return REAL(f, xCheckReservedLock, is);
}
static int x_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f, xFileControl, op, arg);
}
static int x_sector(sqlite3_file *f)
{
    return REAL(f, xSectorSize);
}
static int x_device(sqlite3_file *f)
{
    return REAL(f, xDeviceCharacteristics);
}
static int x_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **at)
{
    return REAL(f, xShmMap, page, size, extend, at);
}
static int x_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return REAL(f, xShmLock, offset, n, flags);
}
static void x_shm_barrier(sqlite3_file *f)
{
    REAL(f, xShmBarrier);
}
static int x_shm_unmap(sqlite3_file *f, int remove)
{
    return REAL(f, xShmUnmap, remove);
}

static int x_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct store_file *f = (struct store_file *)file;
    (void)v;
    memset(f, 0, sizeof *f);
    int code = real_vfs->xOpen(real_vfs, name, &f->real, flags, out);
    if (code != SQLITE_OK)
        return code;
    f->file = file_index(name ? name : "temporary");
    f->base.pMethods = &methods;
    return SQLITE_OK;
}

static int x_delete(sqlite3_vfs *v, const char *name, int sync)
{
    (void)v;
    return vt_dead() ? SQLITE_IOERR_DELETE : real_vfs->xDelete(real_vfs, name, sync);
}

static void store_begin(void)
{
    if (real_vfs)
        return;
    real_vfs = sqlite3_vfs_find(NULL);
    methods = (sqlite3_io_methods){
        2,          x_close,       x_read,      x_write,   x_truncate, x_sync,   x_size,
        x_lock,     x_unlock,      x_reserved,  x_control, x_sector,   x_device, x_shm_map,
        x_shm_lock, x_shm_barrier, x_shm_unmap, NULL,      NULL};
    vfs = *real_vfs;
    vfs.zName = "simulated";
    vfs.pNext = NULL;
    vfs.szOsFile = (int)sizeof(struct store_file) + real_vfs->szOsFile;
    vfs.xOpen = x_open;
    vfs.xDelete = x_delete;
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
        abort();
}

static void undo(const struct written *w, size_t from)
{
    int fd = open(files[w->file], O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return; /* removed in the meantime */
    size_t size = (size_t)w->size;
    if (w->before && from < size &&
        pwrite(fd, w->before + from, size - from, w->at + (off_t)from) != (ssize_t)(size - from))
        abort();
    if (from == 0 && ftruncate(fd, w->length_before) != 0)
        abort();
    close(fd);
}

static void lose_writes(void)
{
    char shared[220];
    unsigned kept = write_count ? (unsigned)vt_below(write_count + 1) : 0;
    for (unsigned i = write_count; i-- > 0;) {
        if (i >= kept)
            undo(&writes[i], 0);
        else if (i + 1 == kept && writes[i].before) /* torn */
            undo(&writes[i], (size_t)vt_below((uint64_t)writes[i].size / SECTOR + 1) * SECTOR);
        free(writes[i].before);
    }
    if (write_count)
        vt_say("%u of %u writes of the store are on the disk", kept, write_count);
    write_count = 0;
    snprintf(shared, sizeof shared, "%s/store-shm", vt_world.dir);
    unlink(shared); /* was memory */
}

/* ---- For the world --------------------------------------------------------------------------- */

void vt_power_begin(void)
{
    store_begin();
    memset(files, 0, sizeof files);
}

void vt_power_fails(struct vt_node *node)
{
    unsigned n = vt_index(node);
    if (n == VT_CONTROLLER)
        lose_writes();
    else
        lose_changes(n);
}

void vt_power_end(void)
{
    for (unsigned n = 0; n < VT_NODES; n++) {
        for (unsigned i = 0; i < change_count[n]; i++)
            free(changes[n][i].before);
        change_count[n] = 0;
    }
    for (unsigned i = 0; i < write_count; i++) {
        free(writes[i].before);
    }
    write_count = 0;
}
