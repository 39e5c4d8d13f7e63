#include "hosts/process/process.h"

#include "hosts/process/inject.h"
#include "hosts/process/process_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COPY_BYTES_DEFAULT   (UINT64_C(1) << 30)
#define DEVICE_BYTES_DEFAULT (UINT64_C(256) << 30)
#define FAULT_PERMILLE       50u
#define OWN_PERMILLE         100u
#define STOP_TIMEOUT         (2 * TW_SEC)

/* ---- State ----------------------------------------------------------------------------------- */

static const struct tw_state states[] = {
    [TW_PROCESS_ATTACHED] = {"attached", TW_MAY(TW_PROCESS_EXECED) | TW_MAY(TW_PROCESS_EXITED),
                             "its memory is the one that was attached to", NULL},
    [TW_PROCESS_EXECED] = {"execed", TW_MAY(TW_PROCESS_EXITED),
                           "it runs another program: what was known can be read", NULL},
    [TW_PROCESS_EXITED] = {"exited", 0, "it has ended: what was known can be read", NULL},
};
const struct tw_machine_table tw_process_table = {"process", states,
                                                  sizeof states / sizeof states[0]};

static bool has_ended(const struct tw_process *p)
{
    struct pollfd poll_fd = {.fd = p->pidfd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0;
}

/* The open file stands for the memory that was attached to; without it there is nothing to read. */
static bool has_memory(const struct tw_process *p)
{
    char byte;
    return pread(p->maps_fd, &byte, 1, 0) == 1;
}

void tw_process_poll(struct tw_process *process)
{
    struct tw_machine *m = &process->machine;
    if (m->state != TW_PROCESS_EXITED && has_ended(process))
        tw_machine_move(m, TW_PROCESS_EXITED, "the program ended");
    else if (m->state == TW_PROCESS_ATTACHED && !has_memory(process))
        tw_machine_move(m, has_ended(process) ? TW_PROCESS_EXITED : TW_PROCESS_EXECED,
                        "its memory is gone");
}

enum tw_code tw_process_check(struct tw_process *p, struct tw_error *err)
{
    tw_process_poll(p);
    if (p->machine.state == TW_PROCESS_ATTACHED)
        return TW_OK;
    return tw_fail(err, TW_ABORTED, p->where, "a program that runs",
                   tw_machine_state_name(&p->machine), "tracking has ended");
}

enum tw_process_state tw_process_state_get(const struct tw_process *process)
{
    return (enum tw_process_state)process->machine.state;
}

int tw_process_fd(const struct tw_process *process)
{
    return process->pidfd;
}

pid_t tw_process_pid(const struct tw_process *process)
{
    return process->pid;
}

/* ---- Beginning and end ----------------------------------------------------------------------- */

static enum tw_code fill_config(struct tw_process_config *config, struct tw_error *err)
{
    if (!config->clock)
        config->clock = &tw_monotonic;
    if (!config->copy_bytes_max)
        config->copy_bytes_max = COPY_BYTES_DEFAULT;
    if (!config->device_bytes_max)
        config->device_bytes_max = DEVICE_BYTES_DEFAULT;
    if (!config->fault_permille)
        config->fault_permille = FAULT_PERMILLE;
    if (!config->own_permille)
        config->own_permille = OWN_PERMILLE;
    if (!config->stop_timeout_ns)
        config->stop_timeout_ns = STOP_TIMEOUT;
    char given[32];
    snprintf(given, sizeof given, "%" PRIu64, config->device_bytes_max);
    if (config->device_bytes_max % TW_PROCESS_WINDOW ||
        config->device_bytes_max > TW_DEVICE_MEMORY_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "process", "a multiple of 64 MiB, up to 8 TiB",
                       given, "the device's address space is not usable");
    if (config->copy_bytes_max > TW_DEVICE_MEMORY_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "process", "up to 8 TiB", NULL,
                       "the store of copies is not usable");
    return TW_OK;
}

static enum tw_code open_tables(struct tw_process *p, struct tw_error *err)
{
    const uint64_t bytes = p->config.device_bytes_max;
    const struct tw_device_config device = {bytes, NULL};
    bool opened = tw_windows_open(&p->windows, bytes);
    opened = tw_copies_open(&p->copies, tw_page_of(bytes), p->config.copy_bytes_max) && opened;
    opened = tw_page_set_open(&p->big, bytes / TW_BIG_PAGE) && opened;
    void *batch = mmap(NULL, (size_t)TW_BATCH * TW_PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p->batch.bytes = batch == MAP_FAILED ? NULL : batch;
    if (!opened || !p->batch.bytes)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
    return tw_device_open(&device, &p->device, err);
}

static enum tw_code open_file(const struct tw_process *p, const char *name, int *fd,
                              struct tw_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)p->pid, name);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? tw_fail_errno(err, errno, path, "cannot be opened") : TW_OK;
}

/* The files are opened after the injection: before it, a program that is to be caught at its execve
 * still has other memory. */
static enum tw_code open_files(struct tw_process *p, struct tw_error *err)
{
    enum tw_code code = open_file(p, "maps", &p->maps_fd, err);
    if (!code)
        code = open_file(p, "pagemap", &p->pagemap, err);
    if (!code)
        code = open_file(p, "mem", &p->mem, err);
    if (!code)
        code = tw_kernel_greet(p->userfaultfd, p->where, err);
    if (!code)
        code = tw_process_check(p, err);
    return code;
}

static enum tw_code process_alloc(const struct tw_process_config *config, pid_t pid,
                                  struct tw_process **process, struct tw_error *err)
{
    struct tw_process *p = calloc(1, sizeof *p);
    if (!p)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "process", NULL, NULL, "no memory");
    if (config)
        p->config = *config;
    snprintf(p->where, sizeof p->where, "pid %d", (int)pid);
    p->pid = pid;
    p->userfaultfd = p->pagemap = p->maps_fd = p->mem = -1;
    p->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    tw_machine_init(&p->machine, &tw_process_table, p, NULL, NULL);
    enum tw_code code = fill_config(&p->config, err);
    if (!code && p->pidfd < 0)
        code = tw_fail(err, TW_NOT_FOUND, p->where, NULL, NULL, "no such process");
    if (!code)
        code = tw_kernel_probe(&p->stats.fault_ns, err);
    if (!code)
        code = open_tables(p, err);
    if (code) {
        tw_process_detach(p);
        return code;
    }
    *process = p;
    return TW_OK;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void tw_process_detach(struct tw_process *process)
{
    if (!process)
        return;
    struct tw_process *p = process;
    tw_crew_close(p->crew);
    if (p->stay) /* the descriptor is ours, and closed below */
        tw_inject_end(p->stay);
    close_fd(p->userfaultfd); /* the last one: the kernel unprotects everything */
    while (p->watch_count)
        tw_process_unwatch(p->watches[p->watch_count - 1]);
    tw_device_close(p->device);
    close_fd(p->pagemap);
    close_fd(p->maps_fd);
    close_fd(p->mem);
    close_fd(p->pidfd);
    if (p->batch.bytes)
        munmap(p->batch.bytes, (size_t)TW_BATCH * TW_PAGE_SIZE);
    if (p->windows.max)
        tw_windows_close(&p->windows);
    if (p->copies.pages)
        tw_copies_close(&p->copies);
    if (p->big.pages)
        tw_page_set_close(&p->big);
    tw_maps_free(&p->maps);
    free(p->pass.found);
    free(p->spans);
    free(p->pieces);
    free(p);
}

struct tw_process_catch {
    struct tw_process *process;
    struct tw_inject *inject;
};

static enum tw_code begin(const struct tw_process_config *config, pid_t pid, bool wait_exec,
                          struct tw_process_catch *caught, struct tw_error *err)
{
    enum tw_code code = process_alloc(config, pid, &caught->process, err);
    if (code)
        return code;
    const enum tw_inject_when when = !wait_exec                     ? TW_INJECT_NOW
                                     : caught->process->config.stay ? TW_INJECT_AT_EXEC_AND_STAY
                                                                    : TW_INJECT_AT_EXEC;
    code = tw_inject_begin(pid, when, caught->process->config.leave,
                           caught->process->config.stop_timeout_ns, &caught->inject, err);
    if (code)
        tw_process_detach(caught->process);
    return code;
}

static enum tw_code finish(const struct tw_process_catch *caught, bool wait_exec,
                           uint64_t deadline_ns, struct tw_process **process, struct tw_error *err)
{
    struct tw_process *p = caught->process;
    const bool stays = wait_exec && p->config.stay;
    enum tw_code code = (stays ? tw_inject_stay : tw_inject_finish)(
        caught->inject, deadline_ns, &p->userfaultfd, &p->stats.stop_ns, err);
    if (!code) {
        p->stay = stays ? caught->inject : NULL;
        code = open_files(p, err);
    }
    if (code) {
        tw_process_detach(p);
        return code;
    }
    p->program_seen_ns = tw_now(p->config.clock);
    *process = p;
    return TW_OK;
}

enum tw_code tw_process_attach(const struct tw_process_config *config, pid_t pid,
                               struct tw_process **process, struct tw_error *err)
{
    struct tw_process_catch caught;
    enum tw_code code = begin(config, pid, false, &caught, err);
    /* The injection has time limits of its own for each of its steps. */
    return code ? code : finish(&caught, false, TW_NEVER, process, err);
}

enum tw_code tw_process_catch_begin(const struct tw_process_config *config, pid_t pid,
                                    struct tw_process_catch **caught, struct tw_error *err)
{
    struct tw_process_catch *c = calloc(1, sizeof *c);
    if (!c)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "process", NULL, NULL, "no memory");
    enum tw_code code = begin(config, pid, true, c, err);
    if (code)
        free(c);
    else
        *caught = c;
    return code;
}

enum tw_code tw_process_catch_finish(struct tw_process_catch *caught, uint64_t deadline_ns,
                                     struct tw_process **process, struct tw_error *err)
{
    enum tw_code code = finish(caught, true, deadline_ns, process, err);
    free(caught);
    return code;
}

void tw_process_let_go(struct tw_process_catch *caught)
{
    if (!caught)
        return;
    tw_inject_cancel(caught->inject);
    tw_process_detach(caught->process);
    free(caught);
}

enum tw_hold tw_process_held(const struct tw_process *process)
{
    return process->stay ? tw_inject_hold(process->stay) : TW_HOLD_NONE;
}

void tw_process_go(struct tw_process *process)
{
    if (process->stay)
        tw_inject_go(process->stay);
}

/* ---- What there is to know ------------------------------------------------------------------- */

struct tw_device *tw_process_device(struct tw_process *process)
{
    return process->device;
}

uint64_t tw_process_address(const struct tw_process *process, uint64_t device_page)
{
    if (device_page > TW_DEVICE_MEMORY_MAX / TW_PAGE_SIZE)
        return TW_NEVER;
    return tw_windows_back(&process->windows, device_page * TW_PAGE_SIZE);
}

uint64_t tw_process_device_address(const struct tw_process *process, uint64_t address)
{
    return tw_windows_find(&process->windows, address);
}

uint64_t tw_process_due_ns(const struct tw_process *process)
{
    return process->due_ns;
}

void tw_process_stats_get(const struct tw_process *process, struct tw_process_stats *out)
{
    *out = process->stats;
    out->copy_bytes = tw_copies_bytes(&process->copies);
    out->copies_refused = process->copies.refused;
}

const char *tw_area_reason_text(enum tw_area_reason reason)
{
    static const char *const texts[] = {
        [TW_AREA_FOLLOWED] = "followed",
        [TW_AREA_KERNEL] = "memory of the kernel that the program does not write",
        [TW_AREA_DEVICE] = "memory of a device",
        [TW_AREA_READ_ONLY] = "not writable",
        [TW_AREA_REFUSED] = "the kernel does not let it be protected",
        [TW_AREA_BEYOND] = "above the addresses that are followed",
    };
    return reason < sizeof texts / sizeof texts[0] ? texts[reason] : "unknown";
}

bool tw_process_next_area(const struct tw_process *process, uint64_t address,
                          struct tw_process_area *out)
{
    const size_t i = tw_maps_find(&process->maps, address);
    if (i == process->maps.count)
        return false;
    const struct tw_map_area *area = &process->maps.areas[i];
    *out = (struct tw_process_area){
        .range = {area->start, area->end - area->start},
        .readable = area->readable,
        .writable = area->writable,
        .executable = area->executable,
        .shared = area->shared,
        .reason = area->reason,
    };
    memcpy(out->name, area->name, sizeof out->name);
    return true;
}

const char *const tw_process_blind_spots[] = {
    "a line rewritten with the value that it had, or changed and changed back between two passes",
    "writes that do not pass the program's page table: device DMA and kernel writes into pages "
    "that "
    "were pinned before (O_DIRECT and io_uring registered buffers, RDMA)",
    "writes to shared memory or to a mapped file by other programs or by write(2)",
    "memory given back (MADV_DONTNEED, munmap) until it is touched again",
    "what was written after the last completed pass, when the program ends or executes another",
    "child processes after a fork",
    NULL,
};
