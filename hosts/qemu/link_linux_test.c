/* A kernel that maps, unmaps, forks and schedules on two processors: where the plugin says that a
 * store went is compared with QEMU's own answer at every single store. */
#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "hosts/qemu/qemu_impl.h"

#define SECONDS_MAX 240u

/* The guest's load prints a line a second once its server answers. */
static bool serves(const struct test_vm *vm)
{
    char line[512];
    unsigned seen = 0;
    FILE *f = fopen(vm->qemu->serial_path, "re");
    while (f && fgets(line, sizeof line, f))
        seen += strncmp(line, "load ops=", 9) == 0;
    if (f)
        fclose(f);
    return seen >= 3;
}

Test(link_linux, each_store_of_a_linux_guest_agrees_with_the_api, .timeout = SECONDS_MAX + 60)
{
    struct test_vm vm;
    struct tw_qemu_link_stats s;
    test_vm_init(&vm, "linux");
    vm.config.kernel = TEST_LINUX_KERNEL;
    vm.config.initrd = TEST_LINUX_INITRD;
    vm.config.command_line = "console=ttyS0 quiet";
    vm.config.memory_bytes = 256u << 20;
    vm.config.vcpus = 2;
    vm.config.plugin_options = "recheck=1";
    test_vm_spawn(&vm);
    for (unsigned s_passed = 0; !serves(&vm); s_passed++) {
        cr_assert_lt(s_passed, SECONDS_MAX, "the guest does not serve");
        test_vm_run(&vm, TW_SEC);
        cr_assert_neq(tw_qemu_status_get(vm.qemu), TW_QEMU_EXITED, "%s",
                      tw_qemu_exit_reason(vm.qemu));
    }
    tw_qemu_link_stats_get(vm.qemu, &s);
    cr_assert_str_eq(s.address_mode, "host");
    cr_assert_eq(s.self_check_failures, 0);
    cr_assert_gt(s.stores, 20000000);
    cr_assert_geq(s.self_checks, s.stores - s.stores / 100);
    cr_assert_gt(vm.qemu->link.header->vcpu[1].stores, 1000000, "both processors work");
    test_vm_destroy(&vm);
}
