/* Redis under redis-benchmark, alone and under each way of tracking, which all pass once a second
 * (ours: or when its budget allows, over all of the server's memory; the peers over its large
 * anonymous mappings, as they were at the beginning).
 *
 * One server is tracked from outside, way after way. The way of mprotect and SIGSEGV is none from
 * outside: a second server has it loaded into it (redis_sigsegv.c). */
#include "bench/tracking/bench.h"
#include "bench/tracking/redis_server.h"
#include "hosts/process/maps.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS       200000u
#define RANGES_MAX 512u
#define LARGE      (UINT64_C(1) << 20) /* bytes; smaller mappings are left out by the peers */
#define SETTLE     (1500 * TW_MS)
#define SPAN_S     8u /* of one measurement, about; the number of requests is made for it */
#define TRIAL      100000u

typedef struct tracker_thread *start_tracker(const struct tracked *t);

static const struct {
    const char *name;
    start_tracker *start;
    bool itself; /* on the server that tracks itself */
} ways[] = {
    {"process", tracker_process, false},           {"untracked", NULL, false},
    {"wp_sync", tracker_wp_sync, false},           {"sigsegv", NULL, true},
    {"full_compare", tracker_full_compare, false},
};
#define WAYS (sizeof ways / sizeof ways[0])

static void must(enum tw_code code, const struct tw_error *err)
{
    if (code)
        bench_die(tw_error_text(err, (char[600]){0}, 600));
}

static struct redis_server plain, itself;

static void end_servers(void)
{
    redis_end(&itself);
    redis_end(&plain);
}

static void serve(struct redis_server *server, const char *preload)
{
    struct tw_error err;
    must(redis_start(server, preload, &err), &err);
    must(redis_set(server, 0, KEYS, 0, 1, &err), &err);
}

/* The second field of the second line is requests a second. */
static double requests_per_s(const struct redis_server *server, unsigned requests)
{
    char command[512], line[1024];
    const char *field = NULL;
    /* Keys and the end of each value are random; 100 bytes, as the server was filled. */
    snprintf(command, sizeof command,
             "exec timeout 120 redis-benchmark -s %s -n %u -r %u -c 20 -P 4 --csv "
             "SET key:__rand_int__ %088d__rand_int__",
             server->socket, requests, KEYS, 0);
    FILE *answer = popen(command, "re");
    if (answer == NULL)
        bench_die("redis-benchmark cannot be started");
    while (fgets(line, sizeof line, answer)) {
        char *second = strstr(line, "\",\"");
        field = second && strncmp(line, "\"test\"", 6) != 0 ? second + 3 : field;
        if (field)
            break;
    }
    const double speed = field ? strtod(field, NULL) : 0;
    while (fgets(line, sizeof line, answer))
        ;
    if (pclose(answer) != 0 || speed <= 0)
        bench_die("redis-benchmark failed");
    return speed;
}

static size_t large_ranges(pid_t pid, struct tw_range *ranges)
{
    char path[64];
    struct tw_maps maps = {0};
    struct tw_error err;
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(tw_maps_read(fd, &maps, &err), &err);
    close(fd);
    for (size_t i = 0; i < maps.count && count < RANGES_MAX; i++) {
        const struct tw_map_area *area = &maps.areas[i];
        if (area->anonymous && area->writable && area->reason == TW_AREA_FOLLOWED &&
            area->name[0] == 0 && area->end - area->start >= LARGE)
            ranges[count++] = (struct tw_range){area->start, area->end - area->start};
    }
    tw_maps_free(&maps);
    if (count == 0)
        bench_die("the server has no large mappings");
    return count;
}

static double speed_under(const struct redis_server *server, start_tracker *start,
                          unsigned requests, double *passes_per_s)
{
    static struct tw_range ranges[RANGES_MAX];
    const size_t count = large_ranges(server->child.pid, ranges);
    const struct tracked tracked = {server->child.pid, ranges, count, true, NULL};
    struct tracker_thread *tracker = start ? start(&tracked) : NULL;
    bench_sleep(SETTLE);
    const unsigned before = tracker ? tracker_passes(tracker) : 0;
    const uint64_t from = tw_now(&tw_monotonic);
    const double speed = requests_per_s(server, requests);
    const double seconds = (double)(tw_now(&tw_monotonic) - from) * 1e-9;
    *passes_per_s = tracker ? (tracker_passes(tracker) - before) / seconds : 0;
    if (tracker)
        tracker_stop(tracker);
    return speed;
}

unsigned bench_redis(const struct bench_case *self, unsigned runs, struct bench_row *rows)
{
    double speeds[WAYS][BENCH_RUNS_MAX], passes[WAYS][BENCH_RUNS_MAX];
    struct tw_error err;
    char preload[512];
    (void)self;
    must(child_beside("towline-bench-redis-sigsegv.so", preload, sizeof preload, &err), &err);
    atexit(end_servers); /* of a run that fails, too */
    serve(&plain, NULL);
    serve(&itself, preload);
    const unsigned requests = (unsigned)(requests_per_s(&plain, TRIAL) * SPAN_S);
    if (kill(itself.child.pid, SIGUSR1))
        bench_die("no signal");
    for (unsigned i = 0; i < runs; i++) {
        for (unsigned w = 0; w < WAYS; w++)
            speeds[w][i] = speed_under(ways[w].itself ? &itself : &plain, ways[w].start, requests,
                                       &passes[w][i]);
    }
    end_servers();
    rows[0] = (struct bench_row){.metric = "requests_per_s",
                                 .unit = "1/s",
                                 .ours = bench_median(speeds[0], runs),
                                 .peer_count = BENCH_PEERS_MAX};
    for (unsigned i = 0; i < BENCH_PEERS_MAX; i++) {
        rows[0].peers[i].name = ways[i + 1].name;
        rows[0].peers[i].value = bench_median(speeds[i + 1], runs);
        rows[0].peers[i].ratio = rows[0].ours / rows[0].peers[i].value;
    }
    rows[1] = (struct bench_row){
        .metric = "passes_per_s", .unit = "1/s", .ours = bench_median(passes[0], runs)};
    return 2;
}
