#include "bench/fabric/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void bench_fail(const char *what, const char *why)
{
    fprintf(stderr, "towline-bench-fabric: %s: %s\n", what, why);
    exit(1);
}

void pair_open(struct pair *pair, void (*serve)(struct shared *shared, void *ctx), void *ctx)
{
    const pid_t parent = getpid();
    pair->shared =
        mmap(NULL, sizeof *pair->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pair->shared == MAP_FAILED)
        bench_fail("mmap", strerror(errno));
    fflush(NULL);
    pair->child = fork();
    if (pair->child < 0)
        bench_fail("fork", strerror(errno));
    alarm((unsigned)(PAIR_LIMIT / TW_SEC)); /* both ends; nothing here waits for ever */
    if (pair->child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            serve(pair->shared, ctx);
        _exit(0);
    }
    while (!pair->shared->ready) {
        if (waitpid(pair->child, NULL, WNOHANG) != 0)
            bench_fail("peer", "ended before it was ready");
        usleep(200);
    }
}

void pair_close(struct pair *pair)
{
    int status = 0;
    pair->shared->stop = true;
    if (waitpid(pair->child, &status, 0) < 0 || status != 0)
        bench_fail("peer", "did not end well");
    alarm(0);
    munmap(pair->shared, sizeof *pair->shared);
}
