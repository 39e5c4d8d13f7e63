/* Kernel features, each found by asking for it. */
#include "hosts/probe/inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int attempt(const struct tw_probe *probe, enum tw_probe_call call)
{
    return probe->system->attempt(probe->system->ctx, call);
}

/* A fault taken inside the kernel (a read(2) into a guest's memory) must be seen, too: that needs
 * the device, CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1. */
void tw_probe_userfaultfd(const struct tw_probe *probe)
{
    char by_device[64], by_call[64];
    int device = attempt(probe, TW_PROBE_UFFD_DEVICE);
    int call = attempt(probe, TW_PROBE_UFFD_CALL);
    tw_probe_needs(probe,
                   "/dev/userfaultfd or the system call, for post-copy and tracked programs");
    tw_probe_mend(probe,
                  "chown root:towline /dev/userfaultfd; chmod 0660 /dev/userfaultfd; container: "
                  "--device /dev/userfaultfd; otherwise sysctl vm.unprivileged_userfaultfd=1");
    /* The call alone works until the agent loses the right that it rests on. */
    enum tw_probe_verdict verdict = device == 0 ? TW_PROBE_OK
                                    : call == 0 ? TW_PROBE_WARN
                                                : TW_PROBE_FAIL;
    tw_probe_says(probe, verdict, "device: %s; system call: %s",
                  tw_probe_outcome(device, by_device, sizeof by_device),
                  tw_probe_outcome(call, by_call, sizeof by_call));
}

struct wanted {
    uint64_t bit;
    const char *name;
    bool mode;     /* of UFFDIO_REGISTER, not a feature */
    bool optional; /* something slower stands in for it */
};

static const struct wanted wanted[] = {
    {TW_UFFD_MISSING_SHMEM, "MISSING_SHMEM", false, false},
    {TW_UFFD_MINOR_SHMEM, "MINOR_SHMEM", false, false},
    {TW_UFFD_WP_SHMEM, "WP_HUGETLBFS_SHMEM", false, false},
    {TW_UFFD_WP_ASYNC, "WP_ASYNC", false, false},
    {TW_UFFD_POISON, "POISON", false, true},
    {TW_UFFD_MOVE, "MOVE", false, true},
    {TW_UFFD_MODE_MISSING, "register MISSING", true, false},
    {TW_UFFD_MODE_MINOR, "register MINOR", true, false},
    {TW_UFFD_MODE_WP, "register WP", true, false},
};

void tw_probe_uffd_features(const struct tw_probe *probe)
{
    struct tw_probe_uffd uffd;
    char missing[128] = "";
    size_t used = 0;
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    int failed = probe->system->uffd(probe->system->ctx, &uffd);
    tw_probe_needs(probe, "MISSING, MINOR and WP on shared memory, WP_ASYNC; POISON and MOVE where "
                          "there are");
    tw_probe_mend(probe, "boot a kernel with them (Debian: apt-get install -t bookworm-backports "
                         "linux-image-amd64)");
    if (failed) {
        tw_probe_mend(probe, "see userfaultfd above");
        tw_probe_says(probe, TW_PROBE_FAIL, "cannot ask: %s", strerror(failed));
        return;
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && used < sizeof missing; i++) {
        if ((wanted[i].mode ? uffd.modes : uffd.accepted) & wanted[i].bit)
            continue;
        bool offered = !wanted[i].mode && (uffd.offered & wanted[i].bit);
        used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%s%s", used ? ", " : "",
                                 wanted[i].name, offered ? " (listed, not granted)" : "");
        if (!wanted[i].optional)
            verdict = TW_PROBE_FAIL;
        else if (verdict == TW_PROBE_OK)
            verdict = TW_PROBE_WARN;
    }
    if (used)
        tw_probe_says(probe, verdict, "missing: %s", missing);
    else
        tw_probe_says(probe, verdict, "all granted (features 0x%llx)",
                      (unsigned long long)uffd.offered);
}

static void asked(const struct tw_probe *probe, enum tw_probe_call call)
{
    char text[64];
    int outcome = attempt(probe, call);
    tw_probe_says(probe, outcome ? TW_PROBE_FAIL : TW_PROBE_OK, "%s",
                  outcome ? tw_probe_outcome(outcome, text, sizeof text) : "works");
}

void tw_probe_pagemap_scan(const struct tw_probe *probe)
{
    tw_probe_needs(probe,
                   "ioctl PAGEMAP_SCAN of /proc/self/pagemap, to find the pages that a program "
                   "has written");
    tw_probe_mend(probe, "boot a kernel that has it (Debian: apt-get install -t bookworm-backports "
                         "linux-image-amd64)");
    asked(probe, TW_PROBE_PAGEMAP_SCAN);
}

void tw_probe_memfd(const struct tw_probe *probe)
{
    tw_probe_needs(probe, "memfd_create, and its memory mapped shared");
    tw_probe_mend(probe, "allow it: sysctl vm.memfd_noexec=0; container: a seccomp profile with "
                         "memfd_create");
    asked(probe, TW_PROBE_MEMFD);
}
