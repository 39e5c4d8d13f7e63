/* Folders: room for guest RAM, the kind of file system, room for durable records. */
#include "hosts/probe/inside.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define SHM            "/dev/shm"
#define STATE_LEAST    (UINT64_C(16) << 20) /* bytes: some ten thousand records */
#define STATE_GOOD     (UINT64_C(256) << 20)
#define RUN_DIR(probe) tw_probe_or((probe)->settings->run_dir, SHM)

static bool space_of(const struct tw_probe *probe, const char *path, struct tw_probe_space *space)
{
    int failed = probe->system->space(probe->system->ctx, path, space);
    if (failed)
        tw_probe_says(probe, TW_PROBE_FAIL, "%s: %s", path, strerror(failed));
    return failed == 0;
}

/* Guest RAM is files in run_dir; a tmpfs that is too small ends a guest with SIGBUS. */
void tw_probe_shm(const struct tw_probe *probe)
{
    struct tw_probe_space space;
    uint64_t wanted = tw_probe_memory(probe), taken = probe->settings->memory_taken_bytes;
    uint64_t more = wanted > taken ? wanted - taken : 0;
    char size[TW_SIZE_TEXT], rest[TW_SIZE_TEXT], left[TW_SIZE_TEXT], all[TW_SIZE_TEXT];
    tw_probe_needs(probe, "%s for guests (memory), %s of it not taken yet",
                   tw_size_format(wanted, size), tw_size_format(more, rest));
    tw_probe_mend(probe, "mount -o remount,size=%lluM " SHM "; container: --shm-size=%llum",
                  (unsigned long long)(wanted + (wanted >> 4)) >> 20,
                  (unsigned long long)(wanted + (wanted >> 4)) >> 20);
    if (!space_of(probe, RUN_DIR(probe), &space))
        return;
    if (space.total_bytes == TW_PROBE_NO_LIMIT) {
        tw_probe_says(probe, TW_PROBE_OK, "%s: no limit", RUN_DIR(probe));
        return;
    }
    enum tw_probe_verdict verdict = space.total_bytes < wanted ? TW_PROBE_FAIL
                                    : space.free_bytes < more  ? TW_PROBE_WARN
                                                               : TW_PROBE_OK;
    tw_probe_says(probe, verdict, "%s: %s free of %s", RUN_DIR(probe),
                  tw_size_format(space.free_bytes, left), tw_size_format(space.total_bytes, all));
}

void tw_probe_run_dir(const struct tw_probe *probe)
{
    static const char *const kinds[] = {"a disk", "tmpfs", "hugetlbfs"};
    struct tw_probe_space space;
    tw_probe_needs(probe, "a folder on tmpfs that the agent may write");
    tw_probe_mend(probe, "run_dir: " SHM "/towline in the agent's configuration");
    if (!space_of(probe, RUN_DIR(probe), &space))
        return;
    /* On a disk every page of a guest is written back; hugetlbfs has no write(2). */
    enum tw_probe_verdict verdict = space.kind == TW_PROBE_FS_TMPFS   ? TW_PROBE_OK
                                    : space.kind == TW_PROBE_FS_OTHER ? TW_PROBE_WARN
                                                                      : TW_PROBE_FAIL;
    if (!space.writable)
        verdict = TW_PROBE_FAIL;
    tw_probe_says(probe, verdict, "%s is on %s%s", RUN_DIR(probe), kinds[space.kind],
                  space.writable ? "" : " and cannot be written");
}

void tw_probe_state_dir(const struct tw_probe *probe)
{
    struct tw_probe_space space;
    const char *folder = tw_probe_or(probe->settings->state_dir, "");
    char left[TW_SIZE_TEXT], least[TW_SIZE_TEXT];
    if (!*folder) {
        tw_probe_says(probe, TW_PROBE_SKIPPED, "no state_dir is known");
        return;
    }
    tw_probe_needs(probe, "%s on a disk that survives a reboot, and the right to write",
                   tw_size_format(STATE_GOOD, least));
    tw_probe_mend(probe, "free some room there, or set state_dir to another disk");
    if (!space_of(probe, folder, &space))
        return;
    bool lasting = space.kind == TW_PROBE_FS_OTHER;
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    if (!space.writable || space.free_bytes < STATE_LEAST)
        verdict = TW_PROBE_FAIL;
    else if (!lasting || space.free_bytes < STATE_GOOD)
        verdict = TW_PROBE_WARN;
    tw_probe_says(probe, verdict, "%s: %s free%s%s", folder, tw_size_format(space.free_bytes, left),
                  lasting ? "" : ", on tmpfs: gone after a reboot",
                  space.writable ? "" : ", and cannot be written");
}
