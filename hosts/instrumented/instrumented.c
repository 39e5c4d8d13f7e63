#include "hosts/instrumented/private.h"

#include "hosts/instrumented/server.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DEVICE_BYTES_DEFAULT (UINT64_C(256) << 30)
#define COPY_BYTES_DEFAULT   (UINT64_C(1) << 30)
#define LOADS_WAIT           TW_SEC
#define LOADS_LOOK           (100 * TW_US)

/* ---- Opening --------------------------------------------------------------------------------- */

static enum tw_code check_config(const struct tw_instrumented_config *c, struct tw_error *err)
{
    const char *where = "instrumented program";
    if (c->mode < TW_INST_MARK || c->mode > TW_INST_MOVING)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "mark, sharing, owned or moving", NULL,
                       "mode %d", (int)c->mode);
    if (c->device_bytes_max % TW_INSTRUMENTED_WINDOW)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a multiple of 64 MiB", NULL,
                       "device of %llu bytes", (unsigned long long)c->device_bytes_max);
    if (c->mode != TW_INST_OWNED)
        return TW_OK;
    if (c->cache.l1.size_bytes == 0 && c->cache.l2.size_bytes == 0 && c->cache.last.size_bytes == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "at least one level", NULL,
                       "line states without a cache");
    return tw_cache_config_check(&c->cache, err);
}

/* Sealed: the program cannot take the ground from under our feet. */
static enum tw_code make_file(struct tw_instrumented *p, struct tw_error *err)
{
    p->file = memfd_create("towline-instrumented", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (p->file < 0)
        return tw_fail_errno(err, errno, p->name, "cannot make its file");
    if (ftruncate(p->file, (off_t)TW_INST_FILE_BYTES) < 0 ||
        fcntl(p->file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return tw_fail_errno(err, errno, p->name, "cannot size its file of %llu bytes of holes",
                             (unsigned long long)TW_INST_FILE_BYTES);
    void *at = mmap(NULL, TW_INST_HEAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    p->file, 0);
    if (at == MAP_FAILED)
        return tw_fail_errno(err, errno, p->name, "cannot map its file");
    p->head = at;
    p->header = at;
    p->threads = (struct tw_inst_thread *)(void *)(p->head + TW_INST_THREADS_AT);
    p->epoch = 1;
    p->header->magic = TW_INST_MAGIC;
    p->header->version = TW_INST_VERSION;
    p->header->mode = (uint32_t)p->mode;
    p->header->file_bytes = TW_INST_FILE_BYTES;
    p->header->epoch = p->epoch;
    return TW_OK;
}

static enum tw_code make_device(struct tw_instrumented *p,
                                const struct tw_instrumented_config *config, struct tw_error *err)
{
    const uint64_t bytes =
        config->device_bytes_max ? config->device_bytes_max : DEVICE_BYTES_DEFAULT;
    const struct tw_snoop_ops snoop = {tw_inst_snoop, p};
    const struct tw_device_config device = {.memory_bytes = bytes,
                                            .snoop = p->mode == TW_INST_OWNED ? &snoop : NULL};
    p->windows_max = bytes / TW_INSTRUMENTED_WINDOW;
    if (p->windows_max > TW_INSTRUMENTED_WINDOWS_MAX)
        p->windows_max = TW_INSTRUMENTED_WINDOWS_MAX;
    p->windows = calloc(p->windows_max, sizeof(void *));
    p->by_address = calloc(p->windows_max, sizeof(void *));
    p->flights = calloc(TW_INST_FLIGHTS_MAX, sizeof *p->flights);
    p->shared = calloc(TW_INST_SHARED_MAX, sizeof *p->shared);
    p->phase = TW_INST_DONE;
    if (p->windows == NULL || p->by_address == NULL || p->flights == NULL || p->shared == NULL)
        return tw_fail_errno(err, ENOMEM, p->name, "cannot attach");
    const enum tw_code code = tw_device_open(&device, &p->device, err);
    if (code || p->mode != TW_INST_OWNED)
        return code;
    const struct tw_link_sink sink = {tw_inst_message, p};
    p->cores = config->cache.cores;
    return tw_cache_open(&config->cache, &sink, &p->cache, err);
}

/* ---- Beginning and end ----------------------------------------------------------------------- */

static enum tw_code begin(struct tw_instrumented *p, const struct tw_instrumented_config *config,
                          uint64_t deadline_ns, struct tw_error *err)
{
    enum tw_code code;
    if (p->connection < 0 || p->pidfd < 0)
        return tw_fail_errno(err, errno, p->name, "cannot attach");
    if ((code = make_file(p, err)) || (code = make_device(p, config, err)) ||
        (code = tw_inst_send_order(
             p->connection, p->mode,
             (p->holding ? TW_INST_HOLD : 0) | (config->loads ? TW_INST_LOADS : 0), p->file, err)))
        return code;
    p->told = true;
    p->loads_wanted = config->loads;
    code = tw_inst_receive_ready(p->connection, deadline_ns, err);
    return code ? code : tw_inst_spots_make(p, err);
}

enum tw_code tw_inst_engage(int connection, const struct tw_inst_peer *peer, bool same_pids,
                            bool hold, const struct tw_instrumented_config *config,
                            uint64_t deadline_ns, struct tw_instrumented **out,
                            struct tw_error *err)
{
    *out = NULL;
    struct tw_instrumented *p = calloc(1, sizeof *p);
    if (p == NULL)
        return tw_fail_errno(err, ENOMEM, "instrumented program", "cannot attach");
    p->file = -1;
    p->connection = fcntl(connection, F_DUPFD_CLOEXEC, 0);
    p->pidfd = fcntl(peer->pidfd, F_DUPFD_CLOEXEC, 0);
    p->mode = config->mode;
    p->pid = peer->pid;
    p->same_pids = same_pids;
    p->holding = hold;
    p->copy_bytes_max = config->copy_bytes_max ? config->copy_bytes_max : COPY_BYTES_DEFAULT;
    snprintf(p->name, sizeof p->name, "program %d", (int)p->pid);
    enum tw_code code = check_config(config, err);
    if (code == TW_OK)
        code = begin(p, config, deadline_ns, err);
    if (code) {
        tw_instrumented_close(p);
        return code;
    }
    *out = p;
    return TW_OK;
}

static enum tw_code meet(int connection, const struct tw_instrumented_config *config,
                         uint64_t deadline_ns, struct tw_instrumented **out, struct tw_error *err)
{
    struct tw_inst_hello hello;
    struct tw_inst_peer peer;
    enum tw_code code = tw_inst_receive_hello(connection, deadline_ns, &hello, err);
    if (code == TW_OK)
        code = tw_inst_peer(connection, &peer, err);
    if (code)
        return code;
    code = tw_inst_engage(connection, &peer, (pid_t)hello.pid == peer.pid, false, config,
                          deadline_ns, out, err);
    close(peer.pidfd);
    return code;
}

enum tw_code tw_instrumented_accept(struct tw_instrumented_server *server,
                                    const struct tw_instrumented_config *config,
                                    uint64_t deadline_ns, struct tw_instrumented **out,
                                    struct tw_error *err)
{
    int connection;
    *out = NULL;
    enum tw_code code = check_config(config, err);
    if (code == TW_OK)
        code = tw_inst_take_connection(server, deadline_ns, &connection, err);
    if (code)
        return code;
    code = meet(connection, config, deadline_ns, out, err);
    close(connection);
    return code;
}

/* By the order the program knows, or by the connection's end where it is the only one. */
void tw_instrumented_close(struct tw_instrumented *p)
{
    if (p == NULL)
        return;
    if (p->told && p->connection >= 0)
        tw_inst_send_order(p->connection, TW_INST_DETACHED, 0, -1, NULL);
    if (p->connection >= 0)
        close(p->connection);
    if (p->pidfd >= 0)
        close(p->pidfd);
    tw_inst_compare_close(p->compare);
    tw_inst_spots_free(p);
    tw_inst_windows_close(p);
    free(p->windows);
    free(p->by_address);
    free(p->flights);
    free(p->shared);
    tw_device_close(p->device);
    if (p->cache)
        tw_cache_close(p->cache);
    if (p->head)
        munmap(p->head, TW_INST_HEAD_BYTES);
    if (p->file >= 0)
        close(p->file);
    free(p);
}

/* ---- Loads ----------------------------------------------------------------------------------- */

/* The program says in the file that it does. Not on the connection: an answer that comes too late
 * would be taken for another one. */
static enum tw_code await_loads(const struct tw_instrumented *p, uint64_t deadline_ns,
                                struct tw_error *err)
{
    while (__atomic_load_n(&p->header->loads, __ATOMIC_ACQUIRE) == 0) {
        if (tw_now(&tw_monotonic) >= deadline_ns)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, p->name, NULL, NULL,
                           "it does not begin to record its loads");
        nanosleep(&(struct timespec){.tv_nsec = LOADS_LOOK}, NULL);
    }
    return TW_OK;
}

enum tw_code tw_instrumented_loads(struct tw_instrumented *p, bool wanted, uint64_t deadline_ns,
                                   struct tw_error *err)
{
    enum tw_code code = TW_OK;
    if (p->loads_wanted != wanted && p->mode != TW_INST_OWNED)
        code = tw_inst_send_order(p->connection, p->mode,
                                  TW_INST_ONLY_LOADS | (wanted ? TW_INST_LOADS : 0), -1, err);
    if (code)
        return code;
    p->loads_wanted = wanted;
    code = wanted ? await_loads(p, deadline_ns, err) : TW_OK;
    if (code && p->mode != TW_INST_OWNED) {
        p->loads_wanted = false;
        tw_inst_send_order(p->connection, p->mode, TW_INST_ONLY_LOADS, -1, NULL);
    }
    return code;
}

/* ---- What there is to know ------------------------------------------------------------------- */

pid_t tw_instrumented_pid(const struct tw_instrumented *p)
{
    return p->pid;
}

bool tw_instrumented_alive(const struct tw_instrumented *p)
{
    struct pollfd fds[] = {{.fd = p->connection, .events = POLLRDHUP},
                           {.fd = p->pidfd, .events = POLLIN}};
    return poll(fds, 2, 0) == 0;
}

struct tw_device *tw_instrumented_device(struct tw_instrumented *p)
{
    return p->device;
}

enum tw_code tw_instrumented_read(const struct tw_instrumented *p, uint64_t address, void *buffer,
                                  size_t size, struct tw_error *err)
{
    const struct iovec local = {.iov_base = buffer, .iov_len = size};
    const struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
    const ssize_t got = process_vm_readv(p->pid, &local, 1, &remote, 1, 0);
    if (got == (ssize_t)size)
        return TW_OK;
    if (got >= 0 || errno == EFAULT)
        return tw_fail(err, TW_NOT_FOUND, p->name, NULL, NULL,
                       "not all of %zu bytes at %#llx is mapped", size,
                       (unsigned long long)address);
    return tw_fail_errno(err, errno, p->name, "cannot read %zu bytes at %#llx", size,
                         (unsigned long long)address);
}

void tw_instrumented_stats_get(const struct tw_instrumented *p, struct tw_instrumented_stats *out)
{
    const struct tw_inst_header *h = p->header;
    *out = (struct tw_instrumented_stats){
        .threads_refused = __atomic_load_n(&h->threads_refused, __ATOMIC_RELAXED),
        .unsettled = __atomic_load_n(&h->threads_unsettled, __ATOMIC_RELAXED),
        .objects = __atomic_load_n(&h->object_count, __ATOMIC_RELAXED),
        .records_loads = __atomic_load_n(&h->loads, __ATOMIC_RELAXED),
        .carried_lines = p->carried,
        .barriers = p->barriers,
        .slow_barriers = p->slow_barriers,
        .loads = p->loads,
        .stores = p->stores,
    };
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        out->threads += __atomic_load_n(&p->threads[i].tid, __ATOMIC_RELAXED) != 0;
        out->ring_full += __atomic_load_n(&p->threads[i].ring_full, __ATOMIC_RELAXED);
    }
}

size_t tw_instrumented_objects(const struct tw_instrumented *p, struct tw_inst_object *out,
                               size_t max)
{
    const size_t count = __atomic_load_n(&p->header->object_count, __ATOMIC_ACQUIRE);
    for (size_t i = 0; i < max && i < count && i < TW_INST_OBJECTS_MAX; i++) {
        memcpy(&out[i], &p->header->objects[i], sizeof out[i]);
        out[i].name[sizeof out[i].name - 1] = 0;
    }
    return count;
}

/* ---- As a table ------------------------------------------------------------------------------ */

static enum tw_code table_watch(void *ctx, const struct tw_range *ranges, size_t count,
                                void **watch, struct tw_error *err)
{
    struct tw_instrumented_watch *w;
    const enum tw_code code = tw_instrumented_watch(ctx, ranges, count, &w, err);
    *watch = w;
    return code;
}

static void table_unwatch(void *ctx, void *watch)
{
    (void)ctx;
    tw_instrumented_unwatch(watch);
}

static const struct tw_range *table_watch_ranges(const void *watch, size_t *count)
{
    return tw_instrumented_watch_ranges(watch, count);
}

static enum tw_code table_pass_begin(void *ctx, struct tw_error *err)
{
    struct tw_instrumented *p = ctx;
    (void)err;
    p->shares = p->mode == TW_INST_SHARING;
    tw_inst_pass_begin(p, TW_INST_DISCOVER);
    return TW_OK;
}

/* A pass costs what was written, plus 1/4096 of what is watched. */
static enum tw_code table_step(void *ctx, uint64_t slice_ns, bool *done, struct tw_error *err)
{
    struct tw_instrumented *p = ctx;
    const enum tw_code code = tw_inst_pass_go_on(p, tw_after(tw_now(&tw_monotonic), slice_ns), err);
    *done = p->phase == TW_INST_DONE;
    return code;
}

/* A program that waits at its start goes on when its first epoch has begun. */
static size_t table_settle(void *ctx)
{
    struct tw_instrumented *p = ctx;
    const size_t carried = tw_instrumented_settle(p);
    if (p->holding)
        tw_inst_send_order(p->connection, p->mode, TW_INST_GO, -1, NULL);
    p->holding = false;
    return carried;
}

static size_t table_sharing(void *ctx, struct tw_shared_line *out, size_t max)
{
    return tw_inst_sharing_hand_out(ctx, out, max);
}

static enum tw_code table_loads(void *ctx, bool wanted, struct tw_error *err)
{
    return tw_instrumented_loads(ctx, wanted, tw_after(tw_now(&tw_monotonic), LOADS_WAIT), err);
}

static enum tw_code table_observe(void *ctx, tw_told_fn told, void *arg, struct tw_error *err)
{
    return tw_inst_compare_observe(ctx, told, arg, err);
}

/* A pass never stops the program. */
static uint64_t table_due_ns(const void *ctx)
{
    (void)ctx;
    return 0;
}

static uint64_t table_address(const void *ctx, uint64_t device_page)
{
    return tw_instrumented_address(ctx, device_page);
}

static uint64_t table_device_address(const void *ctx, uint64_t address)
{
    return tw_instrumented_device_address(ctx, address);
}

static bool table_alive(void *ctx)
{
    return tw_instrumented_alive(ctx);
}

static void table_close(void *ctx)
{
    tw_instrumented_close(ctx);
}

struct tw_attachment tw_instrumented_attachment(struct tw_instrumented *p)
{
    static const struct tw_attachment_ops ops = {
        .watch = table_watch,
        .unwatch = table_unwatch,
        .watch_ranges = table_watch_ranges,
        .pass_begin = table_pass_begin,
        .step = table_step,
        .settle = table_settle,
        .sharing = table_sharing,
        .loads = table_loads,
        .observe = table_observe,
        .due_ns = table_due_ns,
        .address = table_address,
        .device_address = table_device_address,
        .alive = table_alive,
        .close = table_close,
    };
    return (struct tw_attachment){.ops = &ops,
                                  .ctx = p,
                                  .device = p->device,
                                  .same_value_is_dirty = true,
                                  .whole_pages = false,
                                  .sees_loads = true,
                                  .outlives = true,
                                  .compares_on_demand = true,
                                  .kind = TW_ATTACHMENT_INSTRUMENTED,
                                  .blind_spots = p->spots};
}
