/* A program that writes whatever it likes into the shared file, between all steps of the reader:
 * nothing outside the ranges is told, and everything stays within its bounds. */
#include "hosts/instrumented/private.h"

#include "hosts/instrumented/server.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGION_AT    UINT64_C(0x200002000000)
#define REGION_BYTES (16u * 4096u)
#define SHARED_MAX   64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct tw_instrumented *program;
    struct tw_tracker *tracker;
    struct tw_instrumented_watch *watch;
    uint64_t region;
    int other; /* end of the connection */
};

static void must(bool good)
{
    if (!good)
        abort();
}

/* What is said of contents is of what is watched, and says one thing of a line. */
static void hear(void *world, const struct tw_told *told)
{
    const struct world *w = world;
    const uint64_t address = tw_instrumented_address(w->program, told->device_page);
    must(address / TW_INSTRUMENTED_WINDOW == w->region / TW_INSTRUMENTED_WINDOW ||
         tw_inst_window_at(w->program, address) != NULL);
    must(((told->lines & told->same) | (told->lines & told->unsure) |
          (told->same & told->unsure)) == 0);
    must(told->bytes <= tw_popcount(told->lines) * TW_LINE_SIZE);
}

static void world_open(struct world *w, enum tw_inst_mode mode)
{
    const struct tw_instrumented_config config = {.mode = mode,
                                                  .cache = {.cores = 2, .last = {4096, 4}},
                                                  .device_bytes_max = TW_INSTRUMENTED_WINDOW};
    const struct tw_inst_ready ready = {TW_INST_MAGIC};
    struct tw_inst_peer peer = {.pid = getpid()};
    int ends[2];
    static void *region; /* in the middle of a window */
    if (!region)
        region = mmap((void *)REGION_AT, REGION_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    must(region == (void *)REGION_AT);
    w->region = REGION_AT;
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    peer.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    must(peer.pidfd >= 0 && write(ends[1], &ready, sizeof ready) == sizeof ready);
    must(tw_inst_engage(ends[0], &peer, true, false, &config, TW_NEVER, &w->program, NULL) ==
         TW_OK);
    /* Nobody else runs here, and a barrier in all programs takes long. */
    tw_instrumented_mutate(w->program, (struct tw_instrumented_mutations){.skip_barrier = true});
    close(ends[0]);
    close(peer.pidfd);
    w->other = ends[1];
    const struct tw_range range = {w->region, REGION_BYTES};
    struct tw_tracker_config tracker = {.name = "fuzz"};
    must(tw_instrumented_watch(w->program, &range, 1, &w->watch, NULL) == TW_OK);
    tracker.ranges = tw_instrumented_watch_ranges(w->watch, &tracker.range_count);
    must(tw_tracker_start(w->program->device, &tracker, &w->tracker, NULL) == TW_OK);
    must(mode == TW_INST_OWNED || tw_inst_compare_observe(w->program, hear, w, NULL) == TW_OK);
}

static void world_close(struct world *w)
{
    tw_tracker_stop(w->tracker);
    tw_instrumented_unwatch(w->watch);
    tw_instrumented_close(w->program);
    close(w->other);
}

/* Somewhere in one of the file's parts, near what is watched or anywhere. */
static void scribble(const struct world *w, uint8_t part, uint64_t place, uint64_t value)
{
    const uint64_t line = tw_line_of(w->region) + place % (4 * REGION_BYTES / TW_LINE_SIZE);
    const uint64_t at[] = {
        place % sizeof(struct tw_inst_header),
        TW_INST_THREADS_AT + place % (8 * sizeof(struct tw_inst_thread)),
        TW_INST_THREADS_AT + place % (TW_INST_THREADS_MAX * sizeof(struct tw_inst_thread)),
        TW_INST_RINGS_AT + place % (2 * TW_INST_RING_STRIDE),
        TW_INST_RECENT_AT + place % (4 * TW_INST_RECENT_STRIDE),
        TW_INST_SUMMARY_AT + (line >> (TW_PAGE_SHIFT - TW_LINE_SHIFT)),
        TW_INST_MARKS_AT + line,
        TW_INST_LINES_AT + line,
        place % TW_INST_FILE_BYTES,
    };
    const uint64_t where = at[part % (sizeof at / sizeof *at)];
    must(pwrite(w->program->file, &value, sizeof value, (off_t)where) >= 0 ||
         where + sizeof value > TW_INST_FILE_BYTES);
}

static bool is_in_region(const struct world *w, uint64_t address)
{
    return address - w->region < REGION_BYTES;
}

static void collect(const struct world *w)
{
    struct tw_dirty_page pages[16];
    struct tw_shared_line shared[SHARED_MAX];
    struct tw_inst_object objects[TW_INST_OBJECTS_MAX];
    struct tw_instrumented_stats stats;
    tw_instrumented_discover(w->program, NULL);
    tw_instrumented_sync(w->program);
    tw_tracker_collect(w->tracker);
    tw_instrumented_settle(w->program);
    for (size_t n; (n = tw_tracker_read(w->tracker, pages, 16)) > 0;)
        for (size_t i = 0; i < n; i++)
            must(is_in_region(w, tw_instrumented_address(w->program, pages[i].page)));
    size_t count = tw_instrumented_sharing_take(w->program, shared, SHARED_MAX);
    for (size_t i = 0; i < count && i < SHARED_MAX; i++)
        must(shared[i].thread_count <= TW_SHARED_LINE_THREADS &&
             shared[i].address / TW_INSTRUMENTED_WINDOW == w->region / TW_INSTRUMENTED_WINDOW);
    tw_instrumented_objects(w->program, objects, TW_INST_OBJECTS_MAX);
    for (size_t i = 0; i < TW_INST_OBJECTS_MAX && i < w->program->header->object_count; i++)
        must(memchr(objects[i].name, 0, sizeof objects[i].name) != NULL);
    tw_instrumented_stats_get(w->program, &stats);
    tw_inst_spots_free(w->program);
    must(tw_inst_spots_make(w->program, NULL) == TW_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w;
    uint64_t place, value;
    if (size < 1)
        return 0;
    world_open(&w, (enum tw_inst_mode)(TW_INST_MARK + data[0] % 3));
    for (data++, size--; size >= 1 + sizeof place + sizeof value;) {
        memcpy(&place, data + 1, sizeof place);
        memcpy(&value, data + 1 + sizeof place, sizeof value);
        scribble(&w, data[0] & 0x7f, place, value);
        if (data[0] & 0x80)
            collect(&w);
        data += 1 + sizeof place + sizeof value;
        size -= 1 + sizeof place + sizeof value;
    }
    collect(&w);
    world_close(&w);
    return 0;
}
