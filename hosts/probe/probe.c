#include "hosts/probe/inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* In the order in which an operator would look. */
static const struct {
    const char *name;
    tw_probe_fn run;
} probes[] = {
    {"memlock", tw_probe_memlock},
    {"memory", tw_probe_memory_free},
    {"hugepages", tw_probe_hugepages},
    {"shm", tw_probe_shm},
    {"run-dir", tw_probe_run_dir},
    {"state-dir", tw_probe_state_dir},
    {"seccomp", tw_probe_seccomp},
    {"ptrace", tw_probe_ptrace},
    {"userfaultfd", tw_probe_userfaultfd},
    {"userfaultfd-features", tw_probe_uffd_features},
    {"pagemap-scan", tw_probe_pagemap_scan},
    {"memfd", tw_probe_memfd},
    {"rdma", tw_probe_rdma},
    {"qemu", tw_probe_qemu},
    {"certificate", tw_probe_certificate},
};
#define COUNT (sizeof probes / sizeof *probes)
_Static_assert(COUNT <= TW_PROBES_MAX, "room for every result");

static void run(size_t i, const struct tw_probe_settings *settings,
                const struct tw_probe_system *system, struct tw_probe_result *result)
{
    const struct tw_probe probe = {settings, system, result};
    *result = (struct tw_probe_result){.verdict = TW_PROBE_FAIL};
    snprintf(result->name, sizeof result->name, "%s", probes[i].name);
    probes[i].run(&probe);
    if (result->verdict <= TW_PROBE_OK)
        result->mend[0] = 0;
}

size_t tw_probe_all(const struct tw_probe_settings *settings, const struct tw_probe_system *system,
                    struct tw_probe_result results[TW_PROBES_MAX])
{
    for (size_t i = 0; i < COUNT; i++)
        run(i, settings, system, &results[i]);
    return COUNT;
}

bool tw_probe_named(const char *name, const struct tw_probe_settings *settings,
                    const struct tw_probe_system *system, struct tw_probe_result *result)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(probes[i].name, name) != 0)
            continue;
        run(i, settings, system, result);
        return true;
    }
    return false;
}

enum tw_probe_verdict tw_probe_worst(const struct tw_probe_result *results, size_t count)
{
    enum tw_probe_verdict worst = TW_PROBE_SKIPPED;
    for (size_t i = 0; i < count; i++)
        if (results[i].verdict > worst)
            worst = results[i].verdict;
    return worst;
}

const char *tw_probe_verdict_name(enum tw_probe_verdict verdict)
{
    static const char *const names[] = {"skipped", "ok", "warn", "fail"};
    return (unsigned)verdict < sizeof names / sizeof *names ? names[verdict] : "unknown";
}

/* ---- How a probe speaks -----------------------------------------------------------------------
 */

void tw_probe_needs(const struct tw_probe *probe, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(probe->result->needed, sizeof probe->result->needed, format, args);
    va_end(args);
}

void tw_probe_mend(const struct tw_probe *probe, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(probe->result->mend, sizeof probe->result->mend, format, args);
    va_end(args);
}

void tw_probe_says(const struct tw_probe *probe, enum tw_probe_verdict verdict, const char *format,
                   ...)
{
    va_list args;
    probe->result->verdict = verdict;
    va_start(args, format);
    vsnprintf(probe->result->found, sizeof probe->result->found, format, args);
    va_end(args);
}

const char *tw_probe_outcome(int outcome, char *text, size_t size)
{
    if (outcome < 0)
        snprintf(text, size, "killed by signal %d", -outcome);
    else
        snprintf(text, size, "%s", outcome ? strerror(outcome) : "allowed");
    return text;
}

bool tw_probe_capable(const struct tw_probe *probe, unsigned capability)
{
    uint64_t effective;
    return tw_probe_number(probe->system, "/proc/self/status", "CapEff:", 16, &effective) &&
           (effective >> capability & 1);
}
