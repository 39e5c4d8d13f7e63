#include "hosts/qemu/ram_base.h"

#include <inttypes.h>
#include <string.h>

struct mapping {
    uint64_t start, end, offset, inode;
    const char *path; /* "" when there is none */
};

/* "55d0c8a00000-55d0c8c00000 rw-s 00000000 00:1f 123   /dev/shm/ram" */
static bool parse_line(char *line, struct mapping *m)
{
    int path_at = -1;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*4s %" SCNx64 " %*x:%*x %" SCNu64 " %n", &m->start,
               &m->end, &m->offset, &m->inode, &path_at) != 4 ||
        path_at < 0)
        return false;
    line[strcspn(line, "\n")] = 0;
    m->path = line + path_at;
    return m->start < m->end && m->end - m->start <= UINT64_MAX - m->offset;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* By its path; or, where the kernel names the file from another root (a container's mount), by
 * its inode and last name. The inode alone is not enough: other file systems reuse numbers. */
static bool is_of_file(const struct mapping *m, const char *path, uint64_t inode)
{
    return strcmp(m->path, path) == 0 ||
           (m->inode == inode && inode && strcmp(last_part(m->path), last_part(path)) == 0);
}

bool tw_ram_base_find(FILE *maps, const char *path, uint64_t inode, uint64_t size, uint64_t *base)
{
    char line[4352]; /* a path of 4096 and the numbers before it */
    uint64_t covered = 0, found = 0;
    while (fgets(line, sizeof line, maps)) {
        struct mapping m;
        if (!parse_line(line, &m) || !is_of_file(&m, path, inode))
            continue;
        if (m.offset != covered)
            return false; /* a gap, or mapped a second time */
        if (covered == 0)
            found = m.start;
        else if (m.start != found + covered)
            return false; /* not contiguous */
        covered += m.end - m.start;
    }
    *base = found;
    return size > 0 && covered >= size;
}
