/* The server of the benchmark: it takes writes, plain and with its stores caught by SIGSEGV, and a
 * benchmark that is killed leaves neither it nor its folder behind. Exit status 0 = passed. */
#include "bench/tracking/redis_server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, err.what); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static struct tw_error err;

static bool is_there(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void takes_writes(const char *preload)
{
    struct redis_server s;
    CHECK(redis_start(&s, preload, &err) == TW_OK);
    CHECK(redis_set(&s, 0, 1000, 0, 1, &err) == TW_OK);
    if (preload)
        CHECK(kill(s.child.pid, SIGUSR1) == 0); /* it protects its memory from now on */
    for (unsigned i = 0; i < 20; i++)
        CHECK(redis_set(&s, 0, 1000, 1000, i, &err) == TW_OK);
    const pid_t pid = s.child.pid;
    redis_end(&s);
    CHECK(kill(pid, 0) != 0 && errno == ESRCH);
}

static void killed_leaves_nothing(void)
{
    struct redis_server s;
    int ends[2];
    CHECK(pipe(ends) == 0);
    const pid_t bench = fork();
    if (bench == 0) {
        CHECK(redis_start(&s, NULL, &err) == TW_OK);
        CHECK(write(ends[1], &s, sizeof s) == (ssize_t)sizeof s);
        pause();
    }
    close(ends[1]);
    CHECK(read(ends[0], &s, sizeof s) == (ssize_t)sizeof s);
    kill(bench, SIGKILL);
    CHECK(waitpid(bench, NULL, 0) == bench);
    CHECK(!is_there(s.folder));
    /* Nobody's child any more; whoever reaps it may take a moment. */
    for (unsigned i = 0; kill(s.child.pid, 0) == 0; i++) {
        char path[48], state[256] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", (int)s.child.pid);
        FILE *f = fopen(path, "re");
        const char *end = f && fgets(state, sizeof state, f) ? strrchr(state, ')') : NULL;
        if (f)
            fclose(f);
        if (end && end[1] && end[2] == 'Z')
            break;
        CHECK(i < 6000);
        usleep(10000);
    }
}

int main(void)
{
    takes_writes(NULL);
    takes_writes(SIGSEGV_LIBRARY);
    killed_leaves_nothing();
    return 0;
}
