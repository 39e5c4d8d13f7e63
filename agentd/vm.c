/* VM copies: the durable record and the process behind it. */
#include "agentd/agent.h"

#include "base/log.h"
#include "base/units.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CONTINUE_RETRY    (TW_SEC / 2)
#define CONTINUE_DEADLINE (5 * TW_SEC)

struct tw_vm *tw_vm_find(struct tw_agent *agent, const char *name)
{
    for (struct tw_vm *vm = agent->vms; vm; vm = vm->next)
        if (strcmp(vm->record->spec->name, name) == 0)
            return vm;
    return NULL;
}

uint64_t tw_agent_memory_used(const struct tw_agent *agent)
{
    uint64_t used = tw_mirrors_reserved(agent);
    for (const struct tw_vm *vm = agent->vms; vm; vm = vm->next)
        if (vm->qemu)
            used += vm->record->spec->memory_bytes;
    return used;
}

bool tw_vm_busy(const struct tw_vm *vm)
{
    return vm->remove || vm->continuing || vm->job ||
           (vm->qemu && tw_qemu_status_get(vm->qemu) == TW_QEMU_STARTING);
}

static struct tw_vm *vm_add(struct tw_agent *agent, const Towline__V1__VmRecord *record)
{
    struct tw_vm *vm = calloc(1, sizeof *vm);
    size_t size = towline__v1__vm_record__get_packed_size(record);
    uint8_t *packed = malloc(size + 1);
    if (!vm || !packed)
        goto failed;
    towline__v1__vm_record__pack(record, packed);
    vm->record = towline__v1__vm_record__unpack(NULL, size, packed);
    if (!vm->record)
        goto failed;
    free(packed);
    vm->agent = agent;
    vm->next = agent->vms;
    agent->vms = vm;
    agent->vm_count++;
    atomic_store(&agent->changed, true);
    return vm;
failed:
    free(packed);
    free(vm);
    return NULL;
}

static void vm_drop(struct tw_vm *vm)
{
    struct tw_agent *agent = vm->agent;
    for (struct tw_vm **p = &agent->vms; *p; p = &(*p)->next) {
        if (*p == vm) {
            *p = vm->next;
            agent->vm_count--;
            break;
        }
    }
    atomic_store(&agent->changed, true);
    towline__v1__vm_record__free_unpacked(vm->record, NULL);
    free(vm);
}

static struct tw_cache_level_config level_of(const Towline__V1__CacheLevel *level,
                                             uint64_t size_default, uint32_t ways_default)
{
    if (!level)
        return (struct tw_cache_level_config){size_default, ways_default};
    return (struct tw_cache_level_config){level->size_bytes, level->ways};
}

/* False when the VM has no cache model: every store is written back at once. */
static bool cache_of(const Towline__V1__VmSpec *spec, struct tw_cache_config *out)
{
    const Towline__V1__CacheModel *model = spec->cache;
    if (!model || model->kind != TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI)
        return false;
    *out = (struct tw_cache_config){
        .cores = spec->vcpus ? spec->vcpus : 1,
        .l1 = level_of(model->l1, 32u << 10, 8),
        .l2 = level_of(model->l2, 256u << 10, 8),
        .last = level_of(model->last_level, 8u << 20, 16),
    };
    return true;
}

/* Fills a QEMU configuration; the texts live in `vm` and the caller's buffers. */
struct launch {
    char run_dir[512];
    struct tw_cache_config cache;
    struct tw_qemu_config config;
};

static void launch_fill(const struct tw_vm *vm, struct launch *l)
{
    const struct tw_agent_config *agent = &vm->agent->config;
    const Towline__V1__VmSpec *spec = vm->record->spec;
    snprintf(l->run_dir, sizeof l->run_dir, "%s/%s", agent->run_dir, spec->name);
    l->config = (struct tw_qemu_config){
        .name = spec->name,
        .run_dir = l->run_dir,
        .qemu_binary = agent->qemu,
        .plugin = agent->plugin,
        .kernel = spec->kernel,
        .initrd = spec->initrd,
        .command_line = spec->command_line,
        .memory_bytes = spec->memory_bytes,
        .vcpus = spec->vcpus ? spec->vcpus : 1,
        .cache = cache_of(spec, &l->cache) ? &l->cache : NULL,
        .incoming = vm->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_INCOMING,
        .clock = &tw_monotonic,
        .fault_workers = (unsigned)agent->fault_workers,
    };
}

static enum tw_code check_room(struct tw_agent *agent, const Towline__V1__VmSpec *spec,
                               struct tw_error *err)
{
    char expected[64], given[64], a[TW_SIZE_TEXT];
    uint64_t used = tw_agent_memory_used(agent);
    uint64_t capacity = agent->config.memory_bytes;
    uint64_t left = capacity > used ? capacity - used : 0;
    struct statvfs fs;
    if (agent->vm_count >= TW_AGENT_VMS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, agent->config.name, "fewer than 256 VMs", NULL,
                       "no room for VM %s", spec->name);
    const char *limit = "capacity of the agent";
    if (statvfs(agent->config.run_dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < left) {
        left = (uint64_t)fs.f_bavail * fs.f_frsize;
        limit = "free space in run_dir";
    }
    if (spec->memory_bytes <= left)
        return TW_OK;
    snprintf(expected, sizeof expected, "at most %s (%s)", tw_size_format(left, a), limit);
    snprintf(given, sizeof given, "%s", tw_size_format(spec->memory_bytes, a));
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, agent->config.name, expected, given,
                   "not enough memory for VM %s", spec->name);
}

enum tw_code tw_vm_save(struct tw_vm *vm, struct tw_error *err)
{
    return tw_record_vm_save(vm->agent->store, vm->record, err);
}

enum tw_code tw_vm_start(struct tw_agent *agent, const Towline__V1__VmRecord *record,
                         struct tw_vm **out, struct tw_error *err)
{
    enum tw_code code = tw_spec_check(record->spec, err);
    if (!code)
        code = check_room(agent, record->spec, err);
    if (code)
        return code;
    struct tw_vm *vm = vm_add(agent, record);
    if (!vm)
        return tw_fail_errno(err, ENOMEM, record->spec->name, "cannot start the VM");
    struct launch l;
    launch_fill(vm, &l);
    if (mkdir(l.run_dir, 0700) != 0 && errno != EEXIST) {
        code = tw_fail_errno(err, errno, l.run_dir, "cannot make the VM's run folder");
        vm_drop(vm);
        return code;
    }
    code = tw_qemu_spawn(&l.config, &vm->qemu, err);
    if (code) {
        rmdir(l.run_dir);
        vm_drop(vm);
        return code;
    }
    vm->record->qemu_pid = (uint64_t)tw_qemu_pid(vm->qemu);
    vm->record->qemu_start_ticks = tw_qemu_start_ticks(vm->qemu);
    code = tw_vm_save(vm, err);
    if (code) {
        tw_qemu_destroy(vm->qemu);
        vm_drop(vm);
        return code;
    }
    tw_log(TW_LOG_INFO, "vm", "started", "vm=%s pid=%llu epoch=%llu incoming=%d",
           vm->record->spec->name, (unsigned long long)vm->record->qemu_pid,
           (unsigned long long)vm->record->epoch, (int)l.config.incoming);
    *out = vm;
    return TW_OK;
}

/* A process that ended while no agent looked left its files: guest RAM is dear. */
static void wipe_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(path);
}

void tw_vm_sweep(struct tw_agent *agent)
{
    char folder[600];
    DIR *d = opendir(agent->config.run_dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!tw_record_name_ok(e->d_name) || tw_vm_find(agent, e->d_name))
            continue;
        snprintf(folder, sizeof folder, "%s/%s", agent->config.run_dir, e->d_name);
        tw_qemu_end_strays(folder);
        wipe_folder(folder);
    }
    if (d)
        closedir(d);
}

static void adopt_failed(struct tw_vm *vm, const struct tw_error *err)
{
    char text[512];
    tw_error_text(err, text, sizeof text);
    snprintf(vm->reason, sizeof vm->reason, "%.250s", text);
    tw_log(TW_LOG_ERROR, "vm", "cannot adopt", "vm=%s reason=\"%s\"", vm->record->spec->name, text);
}

void tw_vm_adopt(struct tw_agent *agent, const Towline__V1__VmRecord *record)
{
    struct tw_error err = {0};
    struct tw_vm *vm = vm_add(agent, record);
    if (!vm)
        return;
    struct launch l;
    launch_fill(vm, &l);
    enum tw_code code = tw_qemu_adopt(&l.config, (pid_t)record->qemu_pid, record->qemu_start_ticks,
                                      &vm->qemu, &err);
    if (code == TW_NOT_FOUND)
        wipe_folder(l.run_dir);
    if (code)
        adopt_failed(vm, &err);
    else
        tw_log(TW_LOG_INFO, "vm", "adopted", "vm=%s pid=%llu ownership=%d", record->spec->name,
               (unsigned long long)record->qemu_pid, (int)record->ownership);
    tw_job_adopt(vm);
}

/* A VM that is owned here and in no migration runs: that one rule mends what a crash left paused.
 */
static void keep_running(struct tw_vm *vm)
{
    const struct tw_host *host = tw_qemu_host(vm->qemu);
    struct tw_error err = {0};
    enum tw_code code;
    uint64_t now = tw_now(&tw_monotonic);
    if (vm->continuing) {
        if (!host->ops->poll(host->ctx, NULL, &code, &err))
            return;
        vm->continuing = false;
        vm->retry_ns = now + CONTINUE_RETRY;
        atomic_store(&vm->agent->changed, true);
        if (code)
            tw_log(TW_LOG_WARN, "vm", "cannot continue", "vm=%s what=\"%s\"",
                   vm->record->spec->name, err.what);
        return;
    }
    if (vm->job || vm->record->ownership != TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED ||
        tw_qemu_status_get(vm->qemu) != TW_QEMU_PAUSED || now < vm->retry_ns)
        return;
    vm->continuing =
        host->ops->begin(host->ctx, TW_HOST_CONTINUE, NULL, now + CONTINUE_DEADLINE, &err) == TW_OK;
    vm->retry_ns = now + CONTINUE_RETRY;
}

static void note_exit(struct tw_vm *vm)
{
    snprintf(vm->reason, sizeof vm->reason, "%.250s", tw_qemu_exit_reason(vm->qemu));
    tw_log(TW_LOG_ERROR, "vm", "process ended", "vm=%s reason=\"%s\"", vm->record->spec->name,
           vm->reason);
    tw_guests_forget(vm);
    tw_qemu_destroy(vm->qemu);
    vm->qemu = NULL;
    vm->continuing = false;
    atomic_store(&vm->agent->changed, true);
}

void tw_vm_strand(struct tw_vm *vm, const char *why)
{
    snprintf(vm->reason, sizeof vm->reason, "%.250s", why);
    tw_log(TW_LOG_ERROR, "vm", "ended: its memory could not follow it", "vm=%s reason=\"%s\"",
           vm->record->spec->name, vm->reason);
    tw_guests_forget(vm);
    tw_qemu_destroy(vm->qemu);
    vm->qemu = NULL;
    vm->continuing = false;
    atomic_store(&vm->agent->changed, true);
}

void tw_vm_step(struct tw_vm *vm)
{
    struct tw_error err = {0};
    if (vm->remove && !vm->job) {
        if (tw_vm_remove(vm, &err))
            tw_log(TW_LOG_ERROR, "vm", "cannot remove", "what=\"%s\"", err.what);
        return;
    }
    if (!vm->qemu)
        return;
    enum tw_qemu_status before = tw_qemu_status_get(vm->qemu);
    tw_qemu_step(vm->qemu);
    enum tw_qemu_status status = tw_qemu_status_get(vm->qemu);
    if (status != before)
        atomic_store(&vm->agent->changed, true);
    /* A job looks at its host until it has ended; the process is buried after that. */
    if (status == TW_QEMU_EXITED && !vm->job)
        note_exit(vm);
    else if (status != TW_QEMU_EXITED && !vm->job)
        keep_running(vm);
}

enum tw_code tw_vm_remove(struct tw_vm *vm, struct tw_error *err)
{
    /* The process first: a record without a process is mended at the next start, a process without
     * a record would be nobody's. */
    tw_guests_forget(vm);
    if (vm->qemu)
        tw_qemu_destroy(vm->qemu);
    vm->qemu = NULL;
    enum tw_code code = tw_record_vm_remove(vm->agent->store, vm->record->spec->name, err);
    if (code)
        return code;
    tw_log(TW_LOG_INFO, "vm", "removed", "vm=%s epoch=%llu", vm->record->spec->name,
           (unsigned long long)vm->record->epoch);
    vm_drop(vm);
    return TW_OK;
}

void tw_vm_release(struct tw_vm *vm)
{
    tw_guests_forget(vm);
    if (vm->qemu)
        tw_qemu_release(vm->qemu);
    vm_drop(vm);
}
