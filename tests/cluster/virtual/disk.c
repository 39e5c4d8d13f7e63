/* Disks: what agents and controller write durably goes through here, and can fail, be slow, or be
 * the last thing that its process does. Files are real ones; those of a dead process stay as they
 * were when it died. */
#include "tests/cluster/virtual/fiber.h"
#include "tests/cluster/virtual/power.h"
#include "tests/cluster/virtual/world.h"

#include "controller/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>

/* Of the linker. */
int __wrap_openat(int folder, const char *path, int flags, ...);
int __wrap_fdatasync(int fd);
int __wrap_renameat(int from, const char *old, int to, const char *new);
int __wrap_unlinkat(int folder, const char *path, int flags);
enum tw_code __wrap_tw_db_exec(struct tw_db *db, const char *sql, struct tw_error *err);
int __real_openat(int folder, const char *path, int flags, ...);
int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_renameat(int from, const char *old, int to, const char *new);
int __real_unlinkat(int folder, const char *path, int flags);
enum tw_code __real_tw_db_exec(struct tw_db *db, const char *sql, struct tw_error *err);

/* Before a durable write: true when it may be done. */
static bool may_write(struct vt_node *node)
{
    if (!node)
        return true;
    struct vt_disk *disk = &node->disk;
    disk->writes++;
    if (disk->slow_ns && !node->dead)
        vt_sleep(vt_below(disk->slow_ns));
    if (disk->writes == disk->kill_at && !disk->kill_after)
        vt_kill(node);
    return !node->dead && !disk->full;
}

static void written(struct vt_node *node)
{
    if (node && node->disk.writes == node->disk.kill_at && node->disk.kill_after)
        vt_kill(node);
}

/* ---- The agents' records --------------------------------------------------------------------- */

int __wrap_openat(int folder, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        if (vt_dead() || (vt_here() && vt_here()->disk.full && flags & O_TRUNC)) {
            errno = vt_dead() ? EIO : ENOSPC;
            return -1;
        }
    }
    return __real_openat(folder, path, flags, mode);
}

int __wrap_fdatasync(int fd)
{
    struct vt_node *node = vt_here();
    if (!may_write(node)) {
        errno = ENOSPC;
        return -1;
    }
    int result = __real_fdatasync(fd);
    written(node);
    return result;
}

int __wrap_renameat(int from, const char *old, int to, const char *new)
{
    struct vt_node *node = vt_here();
    /* A rename takes no room, so a full disk does not refuse it. */
    if (!may_write(node) && node->dead) {
        errno = EIO;
        return -1;
    }
    vt_power_changes(node, to, new);
    int result = __real_renameat(from, old, to, new);
    if (strncmp(new, "vm-", 3) == 0)
        vt_check_owners(new);
    written(node);
    return result;
}

int __wrap_unlinkat(int folder, const char *path, int flags)
{
    if (vt_dead()) {
        errno = EIO;
        return -1;
    }
    vt_power_changes(vt_here(), folder, path);
    return __real_unlinkat(folder, path, flags);
}

/* Of a folder; its price is in that of what was renamed. */
int __wrap_fsync(int fd)
{
    if (vt_dead()) {
        errno = EIO;
        return -1;
    }
    if (!vt_mutated("forget_fsync"))
        vt_power_lasts(vt_here(), fd);
    return __real_fsync(fd);
}

/* ---- The controller's store ------------------------------------------------------------------ */

enum tw_code __wrap_tw_db_exec(struct tw_db *db, const char *sql, struct tw_error *err)
{
    struct vt_node *node = vt_here();
    if (strcmp(sql, "COMMIT") != 0)
        return __real_tw_db_exec(db, sql, err);
    if (!may_write(node))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, db->where, NULL, NULL, "the disk is full");
    enum tw_code code = __real_tw_db_exec(db, sql, err);
    written(node);
    return code;
}
