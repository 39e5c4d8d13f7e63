#include "base/fault.h"

#ifdef TOWLINE_FAULTS
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOLD_LIMIT_MS 30000
#define MAX_ENTRY     256

/* Finds the n-th action armed for `name`; false when there is none. */
static bool find_action(const char *name, unsigned n, char *action, size_t size)
{
    const char *p = getenv("TOWLINE_FAULT");
    size_t length = strlen(name);
    while (p && *p) {
        const char *end = strchrnul(p, ',');
        if ((size_t)(end - p) > length && strncmp(p, name, length) == 0 && p[length] == ':') {
            if (n-- == 0) {
                snprintf(action, size, "%.*s", (int)(end - p - (long)length - 1), p + length + 1);
                return true;
            }
        }
        p = *end ? end + 1 : end;
    }
    return false;
}

static void hold(const char *file)
{
    char path[MAX_ENTRY + 16];
    snprintf(path, sizeof path, "%s.reached", file);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* reached before: a point holds once */
    close(fd);
    snprintf(path, sizeof path, "%s.release", file);
    for (int ms = 0; ms < HOLD_LIMIT_MS && access(path, F_OK) != 0; ms++)
        usleep(1000);
}

void tw_fault_point(const char *name)
{
    char action[MAX_ENTRY];
    for (unsigned n = 0; find_action(name, n, action, sizeof action); n++) {
        if (strcmp(action, "kill") == 0)
            kill(getpid(), SIGKILL);
        else if (strncmp(action, "hold=", 5) == 0)
            hold(action + 5);
    }
}

bool tw_fault_fails(const char *name)
{
    static char failed[MAX_ENTRY]; /* the one that has failed already */
    char action[MAX_ENTRY];
    for (unsigned n = 0; find_action(name, n, action, sizeof action); n++) {
        if (strcmp(action, "fail") == 0 && strcmp(failed, name) != 0) {
            snprintf(failed, sizeof failed, "%s", name);
            return true;
        }
    }
    return false;
}
#endif
