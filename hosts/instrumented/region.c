#include "hosts/instrumented/region_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS   (600 * TW_SEC)
#define STATE_MAGIC   UINT64_C(0x314e47525754) /* "TWRGN1" */
#define STATE_VERSION 1u
#define HOLD_POLL_NS  100000

/* What travels as the state of the machine; little-endian as all of this. */
struct region_state {
    uint64_t magic;
    uint32_t version, reserved;
    uint64_t address, bytes;
};
static_assert(sizeof(struct region_state) == 32, "as it travels");

static const char *name_of(const struct tw_instrumented_region *r)
{
    return r->program->name;
}

/* ---- Operations -------------------------------------------------------------------------------
 */

static void hold(struct tw_instrumented_region *r)
{
    tw_inst_close_all(r, TW_INST_HELD);
    tw_inst_barrier(r->program);
    r->held = true;
}

static void let_go(struct tw_instrumented_region *r)
{
    r->held = false;
    tw_inst_open_all(r, TW_INST_HELD);
}

static enum tw_code begin(void *ctx, enum tw_host_operation op, const struct tw_host_state *state,
                          uint64_t deadline_ns, struct tw_error *err)
{
    struct tw_instrumented_region *r = ctx;
    if (!tw_instrumented_alive(r->program))
        return tw_fail(err, TW_UNAVAILABLE, name_of(r), NULL, NULL, "it has ended");
    r->op = op;
    r->op_deadline_ns = deadline_ns;
    r->to_load = state;
    r->busy = true;
    if (op == TW_HOST_STOP)
        hold(r);
    else if (op == TW_HOST_CONTINUE)
        let_go(r);
    return TW_OK;
}

/* True when every store has been made. A thread that never comes back to the runtime may have one
 * under way for all we know: then the program runs on. */
static bool poll_stop(struct tw_instrumented_region *r, enum tw_code *code, struct tw_error *err)
{
    if (!tw_inst_region_in_flight(r))
        return true;
    if (tw_now(r->clock) < r->op_deadline_ns)
        return false;
    let_go(r);
    *code = tw_fail(err, TW_DEADLINE_EXCEEDED, name_of(r), NULL, NULL,
                    "a thread may be about to store to the region, and says no more");
    return true;
}

static enum tw_code save_state(const struct tw_instrumented_region *r, struct tw_host_state *state,
                               struct tw_error *err)
{
    const struct region_state s = {
        .magic = STATE_MAGIC, .version = STATE_VERSION, .address = r->address, .bytes = r->bytes};
    *state = (struct tw_host_state){.data = malloc(sizeof s), .size = sizeof s};
    if (state->data == NULL)
        return tw_fail_errno(err, ENOMEM, name_of(r), "cannot say where its region lies");
    memcpy(state->data, &s, sizeof s);
    return TW_OK;
}

static enum tw_code load_state(const struct tw_instrumented_region *r,
                               const struct tw_host_state *state, struct tw_error *err)
{
    struct region_state s = {0};
    if (state->size == sizeof s)
        memcpy(&s, state->data, sizeof s);
    if (s.magic != STATE_MAGIC || s.version != STATE_VERSION)
        return tw_fail(err, TW_INVALID_ARGUMENT, name_of(r), "the state of a region", NULL,
                       "%zu bytes of something else", state->size);
    if (s.address != r->address || s.bytes != r->bytes)
        return tw_fail(err, TW_FAILED_PRECONDITION, name_of(r), NULL, NULL,
                       "its region of %llu bytes lies at %#llx, the source's of %llu at %#llx",
                       (unsigned long long)r->bytes, (unsigned long long)r->address,
                       (unsigned long long)s.bytes, (unsigned long long)s.address);
    return TW_OK;
}

static bool poll_op(void *ctx, struct tw_host_state *state, enum tw_code *code,
                    struct tw_error *err)
{
    struct tw_instrumented_region *r = ctx;
    *code = TW_OK;
    if (!tw_instrumented_alive(r->program))
        *code = tw_fail(err, TW_UNAVAILABLE, name_of(r), NULL, NULL, "it has ended");
    else if (r->op == TW_HOST_STOP && !poll_stop(r, code, err))
        return false;
    else if (r->op == TW_HOST_SAVE_STATE)
        *code = save_state(r, state, err);
    else if (r->op == TW_HOST_LOAD_STATE)
        *code = load_state(r, r->to_load, err);
    r->busy = false;
    return true;
}

static bool alive(void *ctx)
{
    const struct tw_instrumented_region *r = ctx;
    return tw_instrumented_alive(r->program);
}

static struct tw_range next_data(void *ctx, uint64_t address)
{
    const struct tw_instrumented_region *r = ctx;
    const off_t start = address < r->bytes ? lseek(r->fd, (off_t)address, SEEK_DATA) : -1;
    if (start < 0)
        return (struct tw_range){.start = r->bytes};
    const off_t end = lseek(r->fd, start, SEEK_HOLE);
    const uint64_t stop = end < 0 ? r->bytes : (uint64_t)end;
    return (struct tw_range){.start = (uint64_t)start, .length = stop - (uint64_t)start};
}

static enum tw_code reserve(void *ctx, struct tw_range range, struct tw_error *err)
{
    const struct tw_instrumented_region *r = ctx;
    if (!tw_range_fits(range, r->bytes) || range.length == 0)
        return tw_fail(err, TW_OUT_OF_RANGE, name_of(r), NULL, NULL, "%llu bytes at %#llx of %llu",
                       (unsigned long long)range.length, (unsigned long long)range.start,
                       (unsigned long long)r->bytes);
    const int number = posix_fallocate(r->fd, (off_t)range.start, (off_t)range.length);
    return number ? tw_fail_errno(err, number, name_of(r), "no room for %llu bytes of its region",
                                  (unsigned long long)range.length)
                  : TW_OK;
}

static void sync_region(void *ctx)
{
    tw_inst_region_sync(ctx);
}

static const struct tw_host_ops ops = {.sync = sync_region,
                                       .begin = begin,
                                       .poll = poll_op,
                                       .alive = alive,
                                       .next_data = next_data,
                                       .reserve = reserve};

/* ---- Misses -----------------------------------------------------------------------------------
 */

/* Nobody touches it now: it is held. What is not to come is not absent. */
static bool guard(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct tw_instrumented_region *r = ctx;
    *code = TW_OK;
    if (!r->held) {
        *code = tw_fail(err, TW_FAILED_PRECONDITION, name_of(r), NULL, NULL,
                        "lines are to be absent while the program uses them");
        return true;
    }
    for (uint64_t page = 0; page < r->pages; page++) {
        const bool known = r->view.to_come && page < r->view.pages;
        tw_inst_close_lines(r, page, known ? r->view.to_come[page] : TW_ALL_LINES);
    }
    tw_inst_forget_told(r);
    return true;
}

/* The lines' states are in a file of the agent that has gone: the program waits for the end of its
 * patience. */
static bool rejoin(void *ctx, enum tw_code *code, struct tw_error *err)
{
    const struct tw_instrumented_region *r = ctx;
    *code = tw_fail(err, TW_UNIMPLEMENTED, name_of(r), NULL, NULL,
                    "lines that are absent do not outlive their agent");
    return true;
}

static void view(void *ctx, const struct tw_host_fault_view *v)
{
    struct tw_instrumented_region *r = ctx;
    r->view = v ? *v : (struct tw_host_fault_view){0};
}

static size_t take(void *ctx, struct tw_host_fault *out, size_t max)
{
    return tw_inst_take_misses(ctx, out, max);
}

static enum tw_code ready_lines(void *ctx, uint64_t page, uint64_t lines, struct tw_error *err)
{
    struct tw_instrumented_region *r = ctx;
    if (page >= r->pages)
        return tw_fail(err, TW_OUT_OF_RANGE, name_of(r), NULL, NULL, "page %llu of %llu",
                       (unsigned long long)page, (unsigned long long)r->pages);
    tw_inst_open_lines(r, page, lines);
    return TW_OK;
}

static void release(void *ctx)
{
    tw_inst_open_all(ctx, TW_INST_ABSENT);
}

static const struct tw_host_fault_ops fault_ops = {.guard = guard,
                                                   .rejoin = rejoin,
                                                   .view = view,
                                                   .take = take,
                                                   .ready_lines = ready_lines,
                                                   .release = release};

/* ---- Opening ----------------------------------------------------------------------------------
 */

static enum tw_code find(struct tw_instrumented_region *r, int *number, struct tw_error *err)
{
    const struct tw_inst_header *h = r->program->header;
    for (unsigned i = 0; i < TW_INST_REGIONS_MAX; i++) {
        const struct tw_inst_region *told = &h->regions[i];
        r->bytes = __atomic_load_n(&told->bytes, __ATOMIC_ACQUIRE);
        *number = __atomic_load_n(&told->fd, __ATOMIC_RELAXED);
        if (r->bytes == 0 || __atomic_load_n(&told->address, __ATOMIC_RELAXED) != r->address)
            continue;
        if (r->bytes % TW_PAGE_SIZE || r->bytes > TW_INST_REGION_MAX ||
            r->address % TW_INST_REGION_ALIGN || *number < 0 ||
            r->address >= (UINT64_C(1) << TW_INST_ADDRESS_BITS) - r->bytes)
            break;
        r->pages = r->bytes / TW_PAGE_SIZE;
        return TW_OK;
    }
    return tw_fail(err, r->bytes ? TW_INVALID_ARGUMENT : TW_NOT_FOUND, name_of(r), NULL, NULL,
                   "it has no region at %#llx", (unsigned long long)r->address);
}

static enum tw_code take_file(struct tw_instrumented_region *r, int number, struct tw_error *err)
{
    struct stat st;
    r->fd = (int)syscall(SYS_pidfd_getfd, r->program->pidfd, number, 0);
    if (r->fd < 0)
        return tw_fail_errno(err, errno, name_of(r), "cannot take its region's file");
    const int seals = fcntl(r->fd, F_GET_SEALS), flags = fcntl(r->fd, F_GETFL);
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
    if (seals < 0 || (seals & needed) != needed || (flags & O_ACCMODE) != O_RDWR ||
        fstat(r->fd, &st) < 0 || (uint64_t)st.st_size != r->bytes)
        return tw_fail(err, TW_INVALID_ARGUMENT, name_of(r), "a sealed file of its size", NULL,
                       "what it calls its region's file is none");
    void *at = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->fd, 0);
    r->host.memory = at == MAP_FAILED ? NULL : at;
    return at == MAP_FAILED ? tw_fail_errno(err, errno, name_of(r), "cannot map its region")
                            : TW_OK;
}

static uint8_t *map_part(const struct tw_instrumented_region *r, uint64_t offset, uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    r->program->file, (off_t)offset);
    return at == MAP_FAILED ? NULL : at;
}

static enum tw_code map_states(struct tw_instrumented_region *r, struct tw_error *err)
{
    r->map.page_count = r->pages;
    r->map.summary = map_part(r, TW_INST_SUMMARY_AT + tw_page_of(r->address), r->pages);
    r->map.marks =
        map_part(r, TW_INST_MARKS_AT + tw_line_of(r->address), r->pages * TW_LINES_PER_PAGE);
    r->lines = map_part(r, TW_INST_LINES_AT + tw_line_of(r->address), r->pages * TW_LINES_PER_PAGE);
    if (r->map.summary && r->map.marks && r->lines)
        return TW_OK;
    return tw_fail_errno(err, errno, name_of(r), "cannot map the marks of its region");
}

/* Held, left alone, and zeros. */
static enum tw_code empty(struct tw_instrumented_region *r, uint64_t deadline_ns,
                          struct tw_error *err)
{
    hold(r);
    while (tw_inst_region_in_flight(r)) {
        if (tw_now(r->clock) >= deadline_ns || !tw_instrumented_alive(r->program)) {
            let_go(r);
            return tw_fail(err, TW_DEADLINE_EXCEEDED, name_of(r), NULL, NULL,
                           "a thread may be about to store to the region");
        }
        nanosleep(&(struct timespec){.tv_nsec = HOLD_POLL_NS}, NULL);
    }
    if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)r->bytes) < 0)
        return tw_fail_errno(err, errno, name_of(r), "cannot empty its region");
    return TW_OK;
}

static enum tw_code open_parts(struct tw_instrumented_region *r,
                               const struct tw_instrumented_region_config *config,
                               uint64_t deadline_ns, struct tw_error *err)
{
    int number;
    enum tw_code code = find(r, &number, err);
    if (code || (code = take_file(r, number, err)) || (code = map_states(r, err)))
        return code;
    const struct tw_device_config device = {.memory_bytes = r->bytes};
    if ((code = tw_device_open(&device, &r->host.device, err)))
        return code;
    const uint64_t patience_ns = config->patience_ns ? config->patience_ns : PATIENCE_NS;
    __atomic_store_n(&r->program->header->patience_ns, patience_ns, __ATOMIC_RELEASE);
    return config->incoming ? empty(r, deadline_ns, err) : TW_OK;
}

enum tw_code tw_instrumented_region_open(struct tw_instrumented *program,
                                         const struct tw_instrumented_region_config *config,
                                         uint64_t deadline_ns,
                                         struct tw_instrumented_region **region,
                                         struct tw_error *err)
{
    *region = NULL;
    if (program->mode != TW_INST_MOVING)
        return tw_fail(err, TW_FAILED_PRECONDITION, program->name, "moving", NULL, "mode %d",
                       (int)program->mode);
    struct tw_instrumented_region *r = calloc(1, sizeof *r);
    if (r == NULL)
        return tw_fail_errno(err, ENOMEM, program->name, "cannot open its region");
    r->program = program;
    r->clock = config->clock ? config->clock : &tw_monotonic;
    r->address = config->address;
    r->fd = -1;
    const enum tw_code code = open_parts(r, config, deadline_ns, err);
    if (code) {
        tw_instrumented_region_close(r);
        return code;
    }
    r->host.ops = &ops;
    r->host.ctx = r;
    r->host.memory_bytes = r->bytes;
    r->host.faults = &fault_ops;
    r->host.sees_all_writers = false;
    *region = r;
    return TW_OK;
}

void tw_instrumented_region_close(struct tw_instrumented_region *r)
{
    if (r == NULL)
        return;
    tw_device_close(r->host.device);
    if (r->map.summary)
        munmap(r->map.summary, r->pages);
    if (r->map.marks)
        munmap(r->map.marks, r->pages * TW_LINES_PER_PAGE);
    if (r->lines)
        munmap(r->lines, r->pages * TW_LINES_PER_PAGE);
    if (r->host.memory)
        munmap(r->host.memory, r->bytes);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

struct tw_host *tw_instrumented_region_host(struct tw_instrumented_region *r)
{
    return &r->host;
}

void tw_instrumented_region_stats_get(const struct tw_instrumented_region *r,
                                      struct tw_instrumented_region_stats *out)
{
    *out = r->stats;
}

void tw_instrumented_region_mutate(struct tw_instrumented_region *r,
                                   struct tw_instrumented_region_mutations mutations)
{
    r->mutations = mutations;
}
