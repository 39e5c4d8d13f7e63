/* Inside the probes: what each gets, and how it says what it found. */
#ifndef TOWLINE_HOSTS_PROBE_INSIDE_H
#define TOWLINE_HOSTS_PROBE_INSIDE_H

#include "hosts/probe/probe.h"

struct tw_probe {
    const struct tw_probe_settings *settings;
    const struct tw_probe_system *system;
    struct tw_probe_result *result;
};

typedef void (*tw_probe_fn)(const struct tw_probe *probe);

void tw_probe_needs(const struct tw_probe *probe, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void tw_probe_mend(const struct tw_probe *probe, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void tw_probe_says(const struct tw_probe *probe, enum tw_probe_verdict verdict, const char *format,
                   ...) __attribute__((format(printf, 3, 4)));

/* `text`, or `otherwise` when there is none. */
static inline const char *tw_probe_or(const char *text, const char *otherwise)
{
    return text && *text ? text : otherwise;
}

#define TW_CAP_IPC_LOCK   14u
#define TW_CAP_SYS_PTRACE 19u
/* The process has this capability in effect. */
bool tw_probe_capable(const struct tw_probe *probe, unsigned capability);
/* How many RDMA devices the kernel shows. */
unsigned tw_probe_rdma_count(const struct tw_probe_system *system);
/* For guests: settings->memory_bytes or half of the machine's; 0 = cannot be told. */
uint64_t tw_probe_memory(const struct tw_probe *probe);
/* "Operation not permitted", "killed by signal 31": what an attempt came to. */
const char *tw_probe_outcome(int outcome, char *text, size_t size);

void tw_probe_memlock(const struct tw_probe *probe);
void tw_probe_memory_free(const struct tw_probe *probe);
void tw_probe_hugepages(const struct tw_probe *probe);
void tw_probe_shm(const struct tw_probe *probe);
void tw_probe_run_dir(const struct tw_probe *probe);
void tw_probe_state_dir(const struct tw_probe *probe);
void tw_probe_seccomp(const struct tw_probe *probe);
void tw_probe_ptrace(const struct tw_probe *probe);
void tw_probe_userfaultfd(const struct tw_probe *probe);
void tw_probe_uffd_features(const struct tw_probe *probe);
void tw_probe_pagemap_scan(const struct tw_probe *probe);
void tw_probe_memfd(const struct tw_probe *probe);
void tw_probe_rdma(const struct tw_probe *probe);
void tw_probe_qemu(const struct tw_probe *probe);
void tw_probe_certificate(const struct tw_probe *probe);

#endif
