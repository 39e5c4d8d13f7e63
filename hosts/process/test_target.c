#include "hosts/process/test_target.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE (60 * TW_SEC)

static void fail(const char *what)
{
    fprintf(stderr, "test target: %s: %s\n", what, strerror(errno));
    abort();
}

void target_prepare(struct target *t, char *argv[3])
{
    static char number[16];
    t->pid = 0;
    t->memory_fd = memfd_create("control", 0); /* inherited */
    if (t->memory_fd < 0 || ftruncate(t->memory_fd, sizeof *t->control))
        fail("shared memory");
    t->control =
        mmap(NULL, sizeof *t->control, PROT_READ | PROT_WRITE, MAP_SHARED, t->memory_fd, 0);
    if (t->control == MAP_FAILED)
        fail("shared memory");
    snprintf(number, sizeof number, "%d", t->memory_fd);
    argv[0] = (char *)TEST_TARGET;
    argv[1] = number;
    argv[2] = NULL;
}

void target_start(struct target *t)
{
    char *argv[3];
    target_prepare(t, argv);
    t->pid = fork();
    if (t->pid == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    if (t->pid < 0)
        fail("fork");
    target_do(t, TARGET_NONE, 0, 0, 0); /* it runs */
}

void target_end(struct target *t)
{
    if (t->pid > 0) {
        kill(t->pid, SIGKILL);
        while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    munmap(t->control, sizeof *t->control);
    close(t->memory_fd);
}

void target_begin(struct target *t, enum target_command command, uint64_t address, uint64_t length,
                  uint64_t value)
{
    t->control->command = command;
    t->control->address = address;
    t->control->length = length;
    t->control->value = value;
    atomic_fetch_add(&t->control->asked, 1);
}

void target_wait(struct target *t)
{
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), PATIENCE);
    while (atomic_load(&t->control->asked) != atomic_load(&t->control->done)) {
        if (tw_now(&tw_monotonic) > deadline)
            fail("does not answer");
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

uint64_t target_do(struct target *t, enum target_command command, uint64_t address, uint64_t length,
                   uint64_t value)
{
    target_begin(t, command, address, length, value);
    target_wait(t);
    return t->control->result;
}

uint64_t target_map(struct target *t, enum target_kind kind, uint64_t length)
{
    t->control->kind = kind;
    return target_do(t, TARGET_MAP, 0, length, 0);
}

void target_store(struct target *t, uint64_t address, uint64_t value)
{
    target_do(t, TARGET_STORE, address, 0, value);
}

void target_read_memory(const struct target *t, uint64_t address, void *out, size_t length)
{
    struct iovec local = {out, length}, remote = {(void *)(uintptr_t)address, length};
    if (process_vm_readv(t->pid, &local, 1, &remote, 1, 0) != (ssize_t)length)
        fail("memory cannot be read");
}
