/* Every probe says ok, warn and fail for what deserves it. */
#include "hosts/probe/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct fixture f;

static void setup(void)
{
    fixture_open(&f);
}

static void teardown(void)
{
    fixture_close(&f);
}

TestSuite(probe, .init = setup, .fini = teardown, .timeout = 30);

#define IS(name, expected)                                                                         \
    cr_expect_eq(fixture_run(&f, name), TW_PROBE_##expected, "%s: %s, found %s", name,             \
                 tw_probe_verdict_name(f.result.verdict), f.result.found)
#define FOUND(text) cr_expect(strstr(f.result.found, text), "%s", f.result.found)
#define MEND(text)  cr_expect(strstr(f.result.mend, text), "%s", f.result.mend)

Test(probe, a_good_host_has_nothing_to_mend)
{
    struct tw_probe_result results[TW_PROBES_MAX];
    size_t count = tw_probe_all(&f.settings, &f.system, results);
    cr_assert_gt(count, 10);
    for (size_t i = 0; i < count; i++)
        cr_expect_eq(results[i].verdict, TW_PROBE_OK, "%s: %s", results[i].name, results[i].found);
    cr_expect_eq(tw_probe_worst(results, count), TW_PROBE_OK);
    results[3].verdict = TW_PROBE_WARN;
    cr_expect_eq(tw_probe_worst(results, count), TW_PROBE_WARN);
    results[1].verdict = TW_PROBE_FAIL;
    cr_expect_eq(tw_probe_worst(results, count), TW_PROBE_FAIL);
    cr_expect_eq(tw_probe_worst(results, 0), TW_PROBE_SKIPPED);
    cr_expect_not(tw_probe_named("no-such", &f.settings, &f.system, &f.result));
}

Test(probe, memlock)
{
    f.soft = f.hard = 8 * MIB;
    IS("memlock", WARN);
    FOUND("8.0 MiB");
    MEND("ulimit -l unlimited");
    f.settings.rdma_required = true;
    IS("memlock", FAIL);
    fixture_file(&f, "/proc/self/status", "CapEff:\t0000000000004000\n");
    IS("memlock", WARN);
    FOUND("CAP_IPC_LOCK");
    f.soft = 8 * GIB;
    IS("memlock", OK);
    f.memlock_error = EPERM;
    IS("memlock", FAIL);
}

Test(probe, memlock_without_a_device_is_nobodys_business)
{
    f.soft = 8 * MIB;
    f.settings.memory_bytes = 0; /* half of the machine's */
    cr_assert_eq(fixture_run(&f, "memlock"), TW_PROBE_WARN);
    cr_expect(strstr(f.result.needed, "8.0 GiB"), "%s", f.result.needed);
    f.system.root = "/nonexistent";
    f.settings.memory_bytes = GIB;
    IS("memlock", SKIPPED);
}

Test(probe, memory)
{
    f.settings.memory_bytes = 13 * GIB; /* 12 are free */
    IS("memory", WARN);
    f.settings.memory_taken_bytes = 4 * GIB;
    IS("memory", OK);
    f.settings.memory_bytes = 16 * GIB;
    IS("memory", FAIL);
    f.settings.memory_bytes = 8 * GIB;
    fixture_file(&f, "/sys/fs/cgroup/memory.max", "max\n");
    IS("memory", OK);
    fixture_file(&f, "/sys/fs/cgroup/memory.max", "4294967296\n");
    IS("memory", FAIL);
    FOUND("control group");
    fixture_file(&f, "/proc/meminfo", NULL);
    IS("memory", FAIL);
}

static void huge(const char *reserved, const char *unused)
{
    fixture_file(&f, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", reserved);
    fixture_file(&f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", unused);
}

Test(probe, hugepages)
{
    huge("512\n", "512\n"); /* 1 GiB of 16 */
    IS("hugepages", OK);
    FOUND("advise");
    huge("1024\n", "1000\n");
    IS("hugepages", WARN);
    huge("1024\n", "0\n");
    IS("hugepages", OK);
    huge("4608\n", "0\n"); /* 9 of 16: 7 are left for 8 */
    IS("hugepages", FAIL);
    MEND("vm.nr_hugepages=0");
    fixture_file(&f, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", NULL);
    IS("hugepages", SKIPPED);
}

Test(probe, shm)
{
    f.run_space.free_bytes = 4 * GIB;
    IS("shm", WARN);
    f.settings.memory_taken_bytes = 5 * GIB;
    IS("shm", OK);
    f.run_space.total_bytes = 64 * MIB;
    IS("shm", FAIL);
    MEND("--shm-size=8704m");
    f.run_space.total_bytes = f.run_space.free_bytes = TW_PROBE_NO_LIMIT;
    IS("shm", OK);
    f.space_error = EACCES;
    IS("shm", FAIL);
}

Test(probe, run_dir)
{
    f.run_space.kind = TW_PROBE_FS_OTHER;
    IS("run-dir", WARN);
    MEND("/dev/shm");
    f.run_space.kind = TW_PROBE_FS_HUGE;
    IS("run-dir", FAIL);
    f.run_space.kind = TW_PROBE_FS_TMPFS;
    f.run_space.writable = false;
    IS("run-dir", FAIL);
    f.space_error = ENOTDIR;
    IS("run-dir", FAIL);
    FOUND("Not a directory");
}

Test(probe, state_dir)
{
    f.state_space.free_bytes = 100 * MIB;
    IS("state-dir", WARN);
    f.state_space.free_bytes = MIB;
    IS("state-dir", FAIL);
    f.state_space.free_bytes = GIB;
    f.state_space.kind = TW_PROBE_FS_TMPFS;
    IS("state-dir", WARN);
    f.state_space.writable = false;
    IS("state-dir", FAIL);
    f.settings.state_dir = NULL;
    IS("state-dir", SKIPPED);
}

Test(probe, seccomp)
{
    f.outcomes[TW_PROBE_VM_READ] = EPERM;
    IS("seccomp", OK); /* no filter: then it is something else that refuses */
    fixture_file(&f, "/proc/self/status", "CapEff:\t0\nSeccomp:\t2\n");
    IS("seccomp", FAIL);
    FOUND("process_vm_readv (Operation not permitted)");
    MEND("SYS_PTRACE");
    f.outcomes[TW_PROBE_VM_READ] = 0;
    IS("seccomp", OK);
    f.outcomes[TW_PROBE_PIDFD_GETFD] = -31;
    IS("seccomp", FAIL);
    FOUND("pidfd_getfd (killed by signal 31)");
    f.outcomes[TW_PROBE_PIDFD_GETFD] = 0;
    f.outcomes[TW_PROBE_UFFD_USER] = EPERM;
    IS("seccomp", WARN); /* the device serves */
    f.outcomes[TW_PROBE_UFFD_DEVICE] = ENOENT;
    IS("seccomp", FAIL);
    fixture_file(&f, "/proc/self/status", NULL);
    IS("seccomp", SKIPPED);
}

Test(probe, ptrace)
{
    fixture_file(&f, "/proc/sys/kernel/yama/ptrace_scope", "2\n");
    IS("ptrace", OK); /* the capability stands above it */
    fixture_file(&f, "/proc/self/status", "CapEff:\t0\n");
    IS("ptrace", FAIL);
    fixture_file(&f, "/proc/sys/kernel/yama/ptrace_scope", "1\n");
    IS("ptrace", WARN);
    MEND("cap_sys_ptrace");
    fixture_file(&f, "/proc/sys/kernel/yama/ptrace_scope", "0\n");
    IS("ptrace", OK);
    f.outcomes[TW_PROBE_PTRACE] = EPERM;
    IS("ptrace", FAIL);
    f.outcomes[TW_PROBE_PTRACE] = 0;
    fixture_file(&f, "/proc/sys/kernel/yama/ptrace_scope", "3\n");
    IS("ptrace", FAIL);
    MEND("reboot");
}

Test(probe, userfaultfd)
{
    f.outcomes[TW_PROBE_UFFD_CALL] = EPERM;
    IS("userfaultfd", OK);
    f.outcomes[TW_PROBE_UFFD_DEVICE] = EACCES;
    IS("userfaultfd", FAIL);
    FOUND("device: Permission denied; system call: Operation not permitted");
    MEND("/dev/userfaultfd");
    f.outcomes[TW_PROBE_UFFD_CALL] = 0;
    IS("userfaultfd", WARN);
}

Test(probe, userfaultfd_features)
{
    f.uffd.accepted &= ~TW_UFFD_POISON;
    IS("userfaultfd-features", WARN);
    FOUND("POISON (listed, not granted)");
    f.uffd.accepted &= ~TW_UFFD_WP_ASYNC;
    f.uffd.offered = f.uffd.accepted;
    IS("userfaultfd-features", FAIL);
    FOUND("WP_ASYNC, POISON");
    f.uffd.offered = f.uffd.accepted = 0x1ffff;
    f.uffd.modes = TW_UFFD_MODE_MISSING | TW_UFFD_MODE_WP;
    IS("userfaultfd-features", FAIL);
    FOUND("register MINOR");
    f.uffd_error = EPERM;
    IS("userfaultfd-features", FAIL);
    FOUND("cannot ask");
}

Test(probe, features_that_are_there_or_not)
{
    f.outcomes[TW_PROBE_PAGEMAP_SCAN] = ENOTTY;
    IS("pagemap-scan", FAIL);
    IS("memfd", OK);
    f.outcomes[TW_PROBE_MEMFD] = EACCES;
    IS("memfd", FAIL);
    MEND("vm.memfd_noexec");
}

Test(probe, rdma)
{
    IS("rdma", OK);
    FOUND("rxe0: active");
    f.verbs_why = "no driver for it";
    IS("rdma", WARN);
    FOUND("libibverbs: no driver for it");
    f.verbs_why = NULL;
    fixture_rdma(&f, "1: DOWN\n", "fe80::1\n");
    IS("rdma", WARN);
    FOUND("port 1 is not active");
    f.settings.rdma_required = true;
    IS("rdma", FAIL);
    fixture_rdma(&f, "4: ACTIVE\n", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    IS("rdma", FAIL);
    FOUND("no GID");
    fixture_rdma(&f, "4: ACTIVE\n", "fe80::1\n");
    IS("rdma", OK);
    fixture_file(&f, "/dev/infiniband/rdma_cm", NULL);
    IS("rdma", FAIL);
    FOUND("rdma_cm: No such file");
    fixture_rdma(&f, "4: ACTIVE\n", "fe80::1\n");
    fixture_file(&f, "/dev/infiniband/uverbs3", NULL);
    IS("rdma", FAIL);
    f.system.root = "/nonexistent";
    IS("rdma", FAIL);
    f.settings.rdma_required = false;
    IS("rdma", SKIPPED);
}

Test(probe, qemu)
{
    IS("qemu", OK);
    FOUND("version 9.9.9, loads");
    f.said = "qemu: -plugin x: plugin interface not enabled in this build\n";
    IS("qemu", FAIL);
    MEND("--enable-plugins");
    f.said = "Could not load plugin x: plugin requires API version 1, but this QEMU supports only "
             "a minimum version of 2\n";
    IS("qemu", FAIL);
    MEND("TOWLINE_PLUGIN_API");
    f.said = "Could not load plugin /usr/lib/towline-plugin.so: cannot open shared object file\n";
    IS("qemu", FAIL);
    f.said = "Segmentation fault\n";
    IS("qemu", FAIL);
    FOUND("Segmentation fault");
    f.settings.plugin = NULL;
    f.said = "Could not load plugin /nonexistent/towline-probe.so: cannot open\n";
    IS("qemu", OK);
    f.run_error = ETIMEDOUT;
    IS("qemu", FAIL);
    FOUND("did not end");
    f.run_error = ENOENT;
    IS("qemu", FAIL);
    MEND("apt-get install");
}

Test(probe, certificate)
{
    IS("certificate", OK);
    FOUND("90 days");
    f.certificate_revoked = true;
    IS("certificate", OK); /* nobody has a list */
    f.settings.revoked = "/etc/towline/ca.crl";
    IS("certificate", FAIL);
    FOUND("has been revoked: it is on /etc/towline/ca.crl");
    MEND("put a fresh one in its place");
    f.certificate_revoked = false;
    IS("certificate", OK);
    f.list_unusable = true;
    IS("certificate", FAIL);
    FOUND("expected a list");
    MEND("ca.crl");
    f.list_unusable = false;
    f.certificate_end_s -= 80 * 86400;
    IS("certificate", WARN);
    f.certificate_end_s -= 15 * 86400;
    IS("certificate", FAIL);
    FOUND("expired 5 days ago");
    f.certificate_end_s = 0;
    IS("certificate", FAIL);
    FOUND("expected PEM");
    f.settings.certificate = "";
    IS("certificate", SKIPPED);
}

static enum tw_probe_verdict clock_says(uint64_t asked, uint64_t received, uint64_t answered,
                                        uint64_t returned)
{
    const struct tw_probe_exchange x = {asked, returned, received, answered};
    tw_probe_clock("clock", "a against b", &x, &f.result);
    return f.result.verdict;
}

Test(probe, clock)
{
    const uint64_t s = 1000000, now = UINT64_C(1790000000) * s;
    cr_expect_eq(clock_says(now, now + 100, now + 200, now + 300), TW_PROBE_OK);
    FOUND("a against b: 0 ns ahead, give or take 100 us");
    /* The time that the answer took does not count. */
    cr_expect_eq(clock_says(now, now + 100, now + 100 + 8 * s, now + 200 + 8 * s), TW_PROBE_OK);
    FOUND("give or take 100 us");
    cr_expect_eq(clock_says(now, now + 3 * s, now + 3 * s, now), TW_PROBE_WARN);
    FOUND("3.00 s ahead");
    cr_expect_eq(clock_says(now, now - 90 * s, now - 90 * s, now), TW_PROBE_FAIL);
    FOUND("1.5 min behind");
    MEND("set-ntp");
    /* 2 s, but the way took 6: nothing is known. */
    cr_expect_eq(clock_says(now, now + 5 * s, now + 5 * s, now + 6 * s), TW_PROBE_SKIPPED);
    cr_expect_eq(clock_says(now, now, now, now - 1), TW_PROBE_WARN, "set while it was asked");
    cr_expect_eq(clock_says(0, UINT64_MAX, UINT64_MAX, 1), TW_PROBE_WARN);
}
