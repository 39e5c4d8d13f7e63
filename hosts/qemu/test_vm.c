#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hosts/qemu/qemu_impl.h"

/* ---- The guard ------------------------------------------------------------------------------- */

#define GUARDED_MAX 128u /* two for each machine of a test */

struct guarded {
    pid_t pid;
    uint64_t start_ticks;
    char dir[64];
};

/* Reads what to guard until the test's end of the pipe is closed, however the test ended. */
static void guard(int from)
{
    struct guarded list[GUARDED_MAX];
    unsigned n = 0;
    while (n < GUARDED_MAX && read(from, &list[n], sizeof list[n]) == (ssize_t)sizeof list[n])
        n++;
    for (unsigned i = 0; i < n; i++) {
        char command[128];
        if (list[i].pid > 0 && tw_process_start_ticks(list[i].pid) == list[i].start_ticks)
            kill(list[i].pid, SIGKILL);
        snprintf(command, sizeof command, "rm -rf '%s'", list[i].dir);
        if (access(list[i].dir, F_OK) == 0 && system(command) != 0)
            _exit(1);
    }
    _exit(0);
}

void test_guard(pid_t pid, uint64_t start_ticks, const char *dir)
{
    static int to = -1;
    struct guarded g = {.pid = pid, .start_ticks = start_ticks};
    if (to < 0) {
        int ends[2];
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
        if (fork() == 0) {
            setsid();
            dup2(ends[0], 0);
            close_range(3, ~0u, 0); /* the test runner waits for its pipes to close */
            const int null = open("/dev/null", O_WRONLY);
            dup2(null, 1);
            dup2(null, 2);
            guard(0);
        }
        close(ends[0]);
        to = ends[1];
    }
    snprintf(g.dir, sizeof g.dir, "%s", dir);
    cr_assert_eq(write(to, &g, sizeof g), (ssize_t)sizeof g);
}

/* ---- Machines -------------------------------------------------------------------------------- */

void test_vm_init(struct test_vm *vm, const char *name)
{
    *vm = (struct test_vm){0};
    snprintf(vm->dir, sizeof vm->dir, "%s/towline-vm-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert_neq(mkdtemp(vm->dir), NULL);
    test_guard(-1, 0, vm->dir);
    vm->config = (struct tw_qemu_config){
        .name = name,
        .run_dir = vm->dir,
        .qemu_binary = "qemu-system-x86_64",
        .plugin = TEST_PLUGIN,
        .kernel = TEST_GUEST,
        .command_line = "mode=sparse pages=1000",
        .memory_bytes = 16u << 20,
        .vcpus = 1,
        .clock = &tw_monotonic,
    };
}

void test_vm_spawn(struct test_vm *vm)
{
    struct tw_error err = {0};
    char text[512];
    cr_assert_eq(tw_qemu_spawn(&vm->config, &vm->qemu, &err), TW_OK, "%s",
                 tw_error_text(&err, text, sizeof text));
    test_guard(tw_qemu_pid(vm->qemu), tw_qemu_start_ticks(vm->qemu), vm->dir);
    vm->host = tw_qemu_host(vm->qemu);
    vm->control = (const volatile void *)(vm->host->memory + TW_SPARSE_CONTROL);
}

static void wait_a_little(struct test_vm *vm)
{
    struct pollfd p = {.fd = tw_qemu_fd(vm->qemu), .events = POLLIN};
    poll(&p, 1, 10);
    tw_qemu_step(vm->qemu);
}

void test_vm_run(struct test_vm *vm, uint64_t duration_ns)
{
    const uint64_t end = tw_after(tw_now(&tw_monotonic), duration_ns);
    while (tw_now(&tw_monotonic) < end)
        wait_a_little(vm);
}

void test_vm_while(struct test_vm *vm, enum tw_qemu_status status)
{
    const uint64_t end = tw_after(tw_now(&tw_monotonic), 20 * TW_SEC);
    while (tw_qemu_status_get(vm->qemu) == status) {
        cr_assert_lt(tw_now(&tw_monotonic), end, "status stays %d", (int)status);
        wait_a_little(vm);
    }
}

void test_vm_await_ready(struct test_vm *vm)
{
    const uint64_t end = tw_after(tw_now(&tw_monotonic), 20 * TW_SEC);
    test_vm_while(vm, TW_QEMU_STARTING);
    while (vm->control->magic != TW_SPARSE_MAGIC) {
        cr_assert_eq(tw_qemu_status_get(vm->qemu), TW_QEMU_RUNNING, "%s",
                     tw_qemu_exit_reason(vm->qemu));
        cr_assert_lt(tw_now(&tw_monotonic), end, "the guest does not come up");
        wait_a_little(vm);
    }
}

void test_vm_destroy(struct test_vm *vm)
{
    tw_qemu_destroy(vm->qemu);
    vm->qemu = NULL;
    rmdir(vm->dir); /* of a machine that never started */
}

enum tw_code test_vm_operate(struct test_vm *vm, enum tw_host_operation op,
                             struct tw_host_state *state, struct tw_error *err)
{
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), 10 * TW_SEC);
    const struct tw_host_ops *ops = vm->host->ops;
    struct tw_host_state out = {0};
    enum tw_code code = ops->begin(vm->host->ctx, op, state, deadline, err);
    if (code)
        return code;
    while (!ops->poll(vm->host->ctx, &out, &code, err)) {
        struct pollfd p = {.fd = tw_qemu_fd(vm->qemu), .events = POLLIN};
        poll(&p, 1, 10);
    }
    if (op == TW_HOST_SAVE_STATE && code == TW_OK)
        *state = out;
    return code;
}

void test_vm_must(struct test_vm *vm, enum tw_host_operation op, struct tw_host_state *state)
{
    struct tw_error err = {0};
    char text[512];
    const enum tw_code code = test_vm_operate(vm, op, state, &err);
    cr_assert_eq(code, TW_OK, "operation %d of %s: %s", (int)op, vm->config.name,
                 tw_error_text(&err, text, sizeof text));
}

void test_vm_copy_memory(struct test_vm *from, struct test_vm *to)
{
    const struct tw_host *a = from->host, *b = to->host;
    struct tw_error err;
    uint64_t at = 0;
    for (;;) {
        const struct tw_range r = a->ops->next_data(a->ctx, at);
        if (r.length == 0)
            return;
        cr_assert_eq(b->ops->reserve(b->ctx, r, &err), TW_OK);
        memcpy(b->memory + r.start, a->memory + r.start, r.length);
        at = r.start + r.length;
    }
}
