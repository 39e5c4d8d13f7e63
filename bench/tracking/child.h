/* Programs that a benchmark starts, and that end with it. */
#ifndef TOWLINE_BENCH_TRACKING_CHILD_H
#define TOWLINE_BENCH_TRACKING_CHILD_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct child {
    pid_t pid;    /* 0: none */
    int to, from; /* its standard input and output; -1: the null device */
};

/* Starts `path` (looked up in PATH) with `argv`; argv[0] is the name that it sees. `environment` is
 * NULL or one more "NAME=VALUE". `piped`: with to and from. */
enum tw_code child_start(struct child *child, const char *path, const char *const argv[],
                         const char *environment, bool piped, struct tw_error *err);

/* Kills and reaps it; a zeroed child is fine. */
void child_end(struct child *child);

/* A line without its end, at most `size` - 1 bytes. UNAVAILABLE: the program has ended. */
enum tw_code child_line(struct child *child, char *line, size_t size, uint64_t deadline_ns,
                        struct tw_error *err);

/* Waits for the end; *status as of waitpid. */
enum tw_code child_wait(struct child *child, uint64_t deadline_ns, int *status,
                        struct tw_error *err);

/* Stops it, and returns when it stands still; lets it go on. */
enum tw_code child_stop(const struct child *child, struct tw_error *err);
enum tw_code child_go_on(const struct child *child, struct tw_error *err);

/* "FOLDER/name", FOLDER being that of this program. */
enum tw_code child_beside(const char *name, char *path, size_t size, struct tw_error *err);

#endif
