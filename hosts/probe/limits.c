/* Memory: how much may be locked, how much is free, how much huge pages have taken. */
#include "hosts/probe/inside.h"

#include "base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB          UINT64_C(1024)
#define HUGE_FOLDER  "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define HUGE_BYTES   (UINT64_C(2) << 20)
#define UNUSED_SHARE 10u /* reserved huge pages beyond this part of the machine deserve a word */

static const char *limit_text(uint64_t bytes, char out[TW_SIZE_TEXT])
{
    if (bytes != TW_PROBE_NO_LIMIT)
        return tw_size_format(bytes, out);
    snprintf(out, TW_SIZE_TEXT, "unlimited");
    return out;
}

static bool meminfo(const struct tw_probe *probe, const char *key, uint64_t *bytes)
{
    bool found = tw_probe_number(probe->system, "/proc/meminfo", key, 10, bytes);
    *bytes *= KIB;
    return found;
}

uint64_t tw_probe_memory(const struct tw_probe *probe)
{
    uint64_t total;
    if (probe->settings->memory_bytes)
        return probe->settings->memory_bytes;
    return meminfo(probe, "MemTotal:", &total) ? total / 2 : 0;
}

/* RDMA pins the memory of the guests. CAP_IPC_LOCK is not enough everywhere: Soft-iWARP looks at
 * the limit of root, too. */
void tw_probe_memlock(const struct tw_probe *probe)
{
    uint64_t soft, hard, wanted = tw_probe_memory(probe);
    char found[TW_SIZE_TEXT], most[TW_SIZE_TEXT], size[TW_SIZE_TEXT];
    unsigned devices = tw_probe_rdma_count(probe->system);
    bool exempt = tw_probe_capable(probe, TW_CAP_IPC_LOCK);
    int failed = probe->system->memlock(probe->system->ctx, &soft, &hard);
    tw_probe_needs(probe, "%s for the guests' memory, registered for RDMA",
                   tw_size_format(wanted, size));
    tw_probe_mend(probe, "systemd: LimitMEMLOCK=infinity in the agent's unit; container: --ulimit "
                         "memlock=-1:-1; shell: ulimit -l unlimited");
    if (failed) {
        tw_probe_says(probe, TW_PROBE_FAIL, "getrlimit: %s", strerror(failed));
        return;
    }
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    if (soft < wanted && !devices && !probe->settings->rdma_required)
        verdict = TW_PROBE_SKIPPED;
    else if (soft < wanted)
        verdict = probe->settings->rdma_required && !exempt ? TW_PROBE_FAIL : TW_PROBE_WARN;
    tw_probe_says(probe, verdict, "%s (at most %s)%s%s", limit_text(soft, found),
                  limit_text(hard, most),
                  soft < wanted && exempt ? ", CAP_IPC_LOCK lifts it for most devices" : "",
                  verdict == TW_PROBE_SKIPPED ? "; no RDMA device needs it" : "");
}

/* A container's limit hides behind the machine's figures. */
static uint64_t group_limit(const struct tw_probe *probe)
{
    uint64_t limit;
    if (tw_probe_number(probe->system, "/sys/fs/cgroup/memory.max", "", 10, &limit) ||
        tw_probe_number(probe->system, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "", 10,
                        &limit))
        return limit;
    return TW_PROBE_NO_LIMIT;
}

void tw_probe_memory_free(const struct tw_probe *probe)
{
    uint64_t total, available, wanted = tw_probe_memory(probe), limit = group_limit(probe);
    uint64_t taken = probe->settings->memory_taken_bytes;
    uint64_t more = wanted > taken ? wanted - taken : 0;
    char size[TW_SIZE_TEXT], left[TW_SIZE_TEXT], all[TW_SIZE_TEXT];
    tw_probe_needs(probe, "%s for guests (memory), %s of it not taken yet",
                   tw_size_format(wanted, size), tw_size_format(more, left));
    if (!meminfo(probe, "MemTotal:", &total) || !meminfo(probe, "MemAvailable:", &available)) {
        tw_probe_mend(probe, "mount -t proc proc /proc");
        tw_probe_says(probe, TW_PROBE_FAIL, "/proc/meminfo cannot be read");
        return;
    }
    bool grouped = limit < total;
    if (grouped)
        total = limit;
    tw_probe_mend(probe, "lower memory in the agent's configuration%s, or end what else uses it",
                  grouped ? ", raise the container's memory limit" : "");
    enum tw_probe_verdict verdict = wanted >= total    ? TW_PROBE_FAIL
                                    : more > available ? TW_PROBE_WARN
                                                       : TW_PROBE_OK;
    tw_probe_says(probe, verdict, "%s available of %s%s", tw_size_format(available, left),
                  tw_size_format(total, all), grouped ? " (limit of the control group)" : "");
}

/* The word in brackets: "always [madvise] never". */
static void chosen(const struct tw_probe *probe, const char *path, char out[16])
{
    char text[128];
    snprintf(out, 16, "unknown");
    if (!tw_probe_read(probe->system, path, text, sizeof text))
        return;
    char *begin = strchr(text, '['), *end = begin ? strchr(begin, ']') : NULL;
    if (end)
        snprintf(out, 16, "%.*s", (int)(end - begin - 1), begin + 1);
}

/* Guests live on tmpfs and use no reserved huge pages: what is reserved is lost to them. */
void tw_probe_hugepages(const struct tw_probe *probe)
{
    uint64_t reserved = 0, unused = 0, total, wanted = tw_probe_memory(probe);
    char transparent[16], all[TW_SIZE_TEXT], idle[TW_SIZE_TEXT], size[TW_SIZE_TEXT];
    if (!tw_probe_number(probe->system, HUGE_FOLDER "nr_hugepages", "", 10, &reserved) ||
        !tw_probe_number(probe->system, HUGE_FOLDER "free_hugepages", "", 10, &unused) ||
        !meminfo(probe, "MemTotal:", &total)) {
        tw_probe_says(probe, TW_PROBE_SKIPPED, "this kernel has no pages of 2 MiB");
        return;
    }
    reserved *= HUGE_BYTES;
    unused *= HUGE_BYTES;
    chosen(probe, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", transparent);
    tw_probe_needs(probe, "%s of ordinary pages beside the reserved huge ones",
                   tw_size_format(wanted, size));
    tw_probe_mend(probe, "sysctl vm.nr_hugepages=0");
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    if (reserved && (reserved >= total || total - reserved < wanted))
        verdict = TW_PROBE_FAIL;
    else if (unused > total / UNUSED_SHARE)
        verdict = TW_PROBE_WARN;
    tw_probe_says(probe, verdict, "%s reserved, %s of it unused; transparent on tmpfs: %s",
                  tw_size_format(reserved, all), tw_size_format(unused, idle), transparent);
}
