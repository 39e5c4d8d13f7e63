/* The kernel's rule for ptrace without CAP_SYS_PTRACE, asked on the caller's behalf: the agent may
 * look into programs that the caller may not. */
#include "agentd/local_access.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct owner {
    unsigned uid[3], gid[3]; /* real, effective, saved */
    unsigned long long capabilities;
    unsigned found; /* lines */
};

static void owner_line(const char *line, struct owner *o)
{
    if (sscanf(line, "Uid: %u %u %u", &o->uid[0], &o->uid[1], &o->uid[2]) == 3 ||
        sscanf(line, "Gid: %u %u %u", &o->gid[0], &o->gid[1], &o->gid[2]) == 3 ||
        sscanf(line, "CapPrm: %llx", &o->capabilities) == 1)
        o->found++;
}

static enum tw_code owner_read(uint64_t pid, const char *where, struct owner *o,
                               struct tw_error *err)
{
    char path[64], line[256];
    *o = (struct owner){0};
    snprintf(path, sizeof path, "/proc/%llu/status", (unsigned long long)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return tw_fail_errno(err, errno, where, "no such program");
    while (fgets(line, sizeof line, f))
        owner_line(line, o);
    fclose(f);
    return o->found == 3 ? TW_OK : tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such program");
}

enum tw_code tw_local_may_track(const struct tw_local_caller *caller, uint64_t pid,
                                struct tw_error *err)
{
    char where[32], path[64], given[32];
    struct owner o;
    struct stat st;
    snprintf(where, sizeof where, "pid %llu", (unsigned long long)pid);
    snprintf(path, sizeof path, "/proc/%llu", (unsigned long long)pid);
    enum tw_code code = owner_read(pid, where, &o, err);
    if (code || caller->uid == 0)
        return code;
    bool same = true;
    for (unsigned i = 0; i < 3; i++)
        same &= o.uid[i] == caller->uid && o.gid[i] == caller->gid;
    snprintf(given, sizeof given, "uid %u", caller->uid);
    if (!same)
        return tw_fail(err, TW_PERMISSION_DENIED, where, "its own user and group, or root", given,
                       "not a program of the caller");
    /* The folder of a program that may not be dumped belongs to root. */
    if (stat(path, &st) != 0)
        return tw_fail_errno(err, errno, where, "no such program");
    if (o.capabilities || st.st_uid != caller->uid)
        return tw_fail(err, TW_PERMISSION_DENIED, where, "root", given,
                       "a program with privileges or secrets of its own");
    return TW_OK;
}
