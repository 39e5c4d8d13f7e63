/* The probes on the machine that runs the tests, and behind a real seccomp filter. What a machine
 * has differs; what has to be the same everywhere is checked. */
#include "hosts/probe/probe.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define M (&tw_probe_machine)

static const struct tw_probe_settings settings = {.run_dir = "/dev/shm/towline/none/yet",
                                                  .state_dir = "/nonexistent/towline",
                                                  .plugin = TEST_PLUGIN};

TestSuite(machine, .timeout = 90);

Test(machine, every_probe_says_something)
{
    struct tw_probe_result results[TW_PROBES_MAX];
    size_t count = tw_probe_all(&settings, M, results);
    for (size_t i = 0; i < count; i++) {
        const struct tw_probe_result *r = &results[i];
        cr_expect(r->found[0], "%s", r->name);
        cr_expect(r->verdict < TW_PROBE_WARN || r->mend[0], "%s", r->name);
    }
}

Test(machine, qemu_loads_our_plugin)
{
    struct tw_probe_result r;
    cr_assert(tw_probe_named("qemu", &settings, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_OK, "%s", r.found);
    cr_expect(strstr(r.found, "loads Towline's plugin"), "%s", r.found);
    struct tw_probe_settings other = settings;
    other.plugin = NULL;
    cr_assert(tw_probe_named("qemu", &other, M, &r));
    cr_expect(strstr(r.found, "takes plugins"), "%s", r.found);
    other.plugin = "/dev/null";
    cr_assert(tw_probe_named("qemu", &other, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_FAIL, "%s", r.found);
    other.qemu = "/bin/true";
    cr_assert(tw_probe_named("qemu", &other, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_FAIL, "%s", r.found);
}

Test(machine, programs_have_a_deadline)
{
    char *const sleeper[] = {(char[]){"sleep"}, (char[]){"60"}, NULL};
    char *const talker[] = {(char[]){"yes"}, NULL};
    char *const closer[] = {(char[]){"sh"}, (char[]){"-c"},
                            (char[]){"exec >&- 2>&-; exec sleep 60"}, NULL};
    char *const failing[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo so; exit 7"}, NULL};
    char *const missing[] = {(char[]){"towline-no-such-program"}, NULL};
    char output[64];
    int status;
    cr_expect_eq(M->run(NULL, sleeper, 100, output, sizeof output, &status), ETIMEDOUT);
    cr_expect_eq(M->run(NULL, talker, 100, output, sizeof output, &status), ETIMEDOUT);
    cr_expect_eq(strlen(output), sizeof output - 1);
    cr_expect_eq(M->run(NULL, closer, 100, output, sizeof output, &status), ETIMEDOUT);
    cr_expect_eq(M->run(NULL, failing, 10000, output, sizeof output, &status), 0);
    cr_expect_eq(status, 7);
    cr_expect_str_eq(output, "so\n");
    cr_expect_eq(M->run(NULL, missing, 100, output, sizeof output, &status), ENOENT);
}

Test(machine, folders_that_do_not_exist_yet)
{
    struct tw_probe_space shm, below, root;
    cr_assert_eq(M->space(NULL, "/dev/shm", &shm), 0);
    cr_assert_eq(M->space(NULL, "/dev/shm/no/such/folder", &below), 0);
    cr_expect_eq(below.kind, TW_PROBE_FS_TMPFS);
    cr_expect_eq(below.total_bytes, shm.total_bytes);
    cr_assert_eq(M->space(NULL, "/no-such-folder-here", &root), 0);
    cr_expect_eq(M->space(NULL, "/proc/self/status/x", &root), ENOTDIR);
}

Test(machine, the_real_limit)
{
    struct rlimit small = {4096, 8192};
    struct tw_probe_result r;
    struct tw_probe_settings rdma = settings;
    rdma.rdma_required = true;
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &small), 0);
    cr_assert(tw_probe_named("memlock", &rdma, M, &r));
    cr_expect_geq(r.verdict, TW_PROBE_WARN);
    cr_expect(strstr(r.found, "4.0 KiB (at most 8.0 KiB)"), "%s", r.found);
}

/* One system call gets `action` from now on. */
static void forbid(uint32_t number, uint32_t action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

Test(machine, a_filter_that_refuses)
{
    struct tw_probe_result r;
    forbid(SYS_process_vm_readv, SECCOMP_RET_ERRNO | EPERM);
    cr_assert(tw_probe_named("seccomp", &settings, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_FAIL, "%s", r.found);
    cr_expect(strstr(r.found, "process_vm_readv (Operation not permitted)"), "%s", r.found);
    cr_assert(tw_probe_named("memfd", &settings, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_OK, "another call is not touched: %s", r.found);
}

/* The one who asks survives it. */
Test(machine, a_filter_that_kills)
{
    struct tw_probe_result r;
    forbid(SYS_pidfd_getfd, SECCOMP_RET_KILL_PROCESS);
    cr_assert(tw_probe_named("seccomp", &settings, M, &r));
    cr_expect_eq(r.verdict, TW_PROBE_FAIL, "%s", r.found);
    cr_expect(strstr(r.found, "pidfd_getfd (killed by signal 31)"), "%s", r.found);
}
