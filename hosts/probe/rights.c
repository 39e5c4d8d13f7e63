/* Rights: whether a seccomp filter refuses calls, and whether other processes may be looked into.
 */
#include "hosts/probe/inside.h"

#include <stdio.h>
#include <string.h>

static int attempt(const struct tw_probe *probe, enum tw_probe_call call)
{
    return probe->system->attempt(probe->system->ctx, call);
}

/* Each call is tried on this process itself, where no right is needed: only a filter refuses it. */
void tw_probe_seccomp(const struct tw_probe *probe)
{
    static const struct {
        enum tw_probe_call call;
        const char *name;
    } calls[] = {{TW_PROBE_UFFD_USER, "userfaultfd"},
                 {TW_PROBE_VM_READ, "process_vm_readv"},
                 {TW_PROBE_PIDFD_GETFD, "pidfd_getfd"}};
    uint64_t mode;
    char refused[128] = "", text[64];
    size_t used = 0;
    unsigned count = 0;
    tw_probe_needs(probe, "userfaultfd, process_vm_readv and pidfd_getfd allowed");
    tw_probe_mend(probe,
                  "container: --cap-add SYS_PTRACE, --device /dev/userfaultfd, or a profile "
                  "that allows them (--security-opt seccomp=FILE); systemd: SystemCallFilter=");
    if (!tw_probe_number(probe->system, "/proc/self/status", "Seccomp:", 10, &mode)) {
        tw_probe_says(probe, TW_PROBE_SKIPPED, "this kernel has no seccomp");
        return;
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls && mode; i++) {
        int outcome = attempt(probe, calls[i].call);
        if (outcome == 0 || used >= sizeof refused)
            continue;
        used += (size_t)snprintf(refused + used, sizeof refused - used, "%s%s (%s)",
                                 count++ ? ", " : "", calls[i].name,
                                 tw_probe_outcome(outcome, text, sizeof text));
    }
    /* Without the system call the device still serves. */
    bool only_uffd = count == 1 && strncmp(refused, "userfaultfd", 11) == 0;
    if (count == 0)
        tw_probe_says(probe, TW_PROBE_OK, "%s", mode ? "a filter, which allows them" : "no filter");
    else
        tw_probe_says(probe,
                      only_uffd && attempt(probe, TW_PROBE_UFFD_DEVICE) == 0 ? TW_PROBE_WARN
                                                                             : TW_PROBE_FAIL,
                      "a filter refuses %s", refused);
}

/* Tracking a program means asking it for descriptors and reading its memory. */
void tw_probe_ptrace(const struct tw_probe *probe)
{
    uint64_t scope = 0;
    char text[64], yama[32] = "none";
    bool capable = tw_probe_capable(probe, TW_CAP_SYS_PTRACE);
    if (tw_probe_number(probe->system, "/proc/sys/kernel/yama/ptrace_scope", "", 10, &scope))
        snprintf(yama, sizeof yama, "ptrace_scope %llu", (unsigned long long)scope);
    tw_probe_needs(probe, "the right to attach to programs: CAP_SYS_PTRACE, or the same user and "
                          "ptrace_scope 0");
    tw_probe_mend(probe, "setcap cap_sys_ptrace+ep towline-agent; systemd: "
                         "AmbientCapabilities=CAP_SYS_PTRACE; container: --cap-add SYS_PTRACE");
    int outcome = attempt(probe, TW_PROBE_PTRACE);
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    if (outcome || scope >= 3 || (scope == 2 && !capable))
        verdict = TW_PROBE_FAIL;
    else if (!capable && scope == 1)
        verdict = TW_PROBE_WARN; /* only what the agent has started itself */
    if (scope >= 3)
        tw_probe_mend(probe,
                      "ptrace_scope 3 lasts until a reboot: set kernel.yama.ptrace_scope=1 in "
                      "/etc/sysctl.d and reboot");
    tw_probe_says(probe, verdict, "attach to a child: %s; CAP_SYS_PTRACE: %s; yama: %s",
                  tw_probe_outcome(outcome, text, sizeof text), capable ? "yes" : "no", yama);
}
