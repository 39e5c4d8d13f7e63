/* What the attachment's tests share: machines that run the small guest, and a guard that ends them
 * when a test dies. */
#ifndef TOWLINE_HOSTS_QEMU_TEST_VM_H
#define TOWLINE_HOSTS_QEMU_TEST_VM_H

#include "guests/sparse.h"
#include "hosts/qemu/qemu.h"

struct test_vm {
    char dir[64];
    struct tw_qemu_config config;
    struct tw_qemu *qemu;
    struct tw_host *host;
    const volatile struct tw_sparse_control *control; /* in the guest's memory */
};

/* A config for the small guest in a new run directory; change it, then test_vm_spawn. */
void test_vm_init(struct test_vm *vm, const char *name);
void test_vm_spawn(struct test_vm *vm);       /* asserts that it starts */
void test_vm_await_ready(struct test_vm *vm); /* until the guest says that it writes */
void test_vm_destroy(struct test_vm *vm);

/* Steps the machine for a time, or while its status is `status` (at most 10 s). */
void test_vm_run(struct test_vm *vm, uint64_t duration_ns);
void test_vm_while(struct test_vm *vm, enum tw_qemu_status status);

/* One host operation to its end; asserts nothing. */
enum tw_code test_vm_operate(struct test_vm *vm, enum tw_host_operation op,
                             struct tw_host_state *state, struct tw_error *err);
/* The same, and it must succeed. */
void test_vm_must(struct test_vm *vm, enum tw_host_operation op, struct tw_host_state *state);

/* Every page of data of one machine into another that receives. */
void test_vm_copy_memory(struct test_vm *from, struct test_vm *to);

/* Ends `pid` and removes the folder `dir` when this process is gone. */
void test_guard(pid_t pid, uint64_t start_ticks, const char *dir);

#endif
