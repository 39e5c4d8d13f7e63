/* What instrumentation costs a program that stores at random over 256 MiB: nothing (the plain
 * program), without an agent, and with one in each way of tracking, with and without a collect
 * every 0.1 s. All programs run in turn, in one run; the figures are medians. */
#include "base/clock.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/report.h"
#include "hosts/instrumented/instrumented.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS  (60 * TW_SEC)
#define COLLECT_MS   100
#define MEMORY_BYTES (UINT64_C(256) << 20)
#define CASE         "random_store"
#define INSTRUMENTED "bench-store-instrumented"
#define PLAIN        "bench-store-plain"

extern char **environ;

struct contender {
    const char *name, *program;
    enum tw_inst_mode mode; /* TW_INST_DETACHED: no agent */
    bool collects;
    pid_t pid;
    FILE *to, *from;
    struct tw_instrumented *attachment;
    struct tw_instrumented_watch *watch;
    struct tw_tracker *tracker;
    double ns[BENCH_RUNS_MAX];
};

static struct contender contenders[] = {
    {.name = "plain", .program = PLAIN},
    {.name = "detached", .program = INSTRUMENTED},
    {.name = "mark", .program = INSTRUMENTED, .mode = TW_INST_MARK},
    {.name = "mark_collect", .program = INSTRUMENTED, .mode = TW_INST_MARK, .collects = true},
    {.name = "sharing", .program = INSTRUMENTED, .mode = TW_INST_SHARING},
    {.name = "owned", .program = INSTRUMENTED, .mode = TW_INST_OWNED},
    {.name = "owned_collect", .program = INSTRUMENTED, .mode = TW_INST_OWNED, .collects = true},
};
#define CONTENDERS (sizeof contenders / sizeof contenders[0])

static struct bench_choice choice(size_t index)
{
    (void)index;
    return (struct bench_choice){CASE, "stores at random over 256 MiB"};
}

static const struct bench_suite suite = {.program = "towline-bench-instrumented",
                                         .bench = "tracking",
                                         .runs_default = 9,
                                         .runs_min = 1,
                                         .case_count = 1,
                                         .choice = choice};

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", suite.program, what);
    for (size_t i = 0; i < CONTENDERS; i++) {
        if (contenders[i].pid > 0)
            kill(contenders[i].pid, SIGKILL);
    }
    exit(1);
}

static void start(struct contender *c, const char *folder, const char *socket)
{
    int in[2], out[2];
    char path[512];
    posix_spawn_file_actions_t actions;
    snprintf(path, sizeof path, "%s/%s", folder, c->program);
    setenv(TW_INST_SOCKET_ENV, c->mode ? socket : "off", 1);
    if (pipe(in) || pipe(out))
        die("no pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    char *argv[] = {path, NULL};
    if (posix_spawn(&c->pid, path, &actions, NULL, argv, environ))
        die(path);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    c->to = fdopen(in[1], "w");
    c->from = fdopen(out[0], "r");
}

static void attach(struct contender *c, struct tw_instrumented_server *server)
{
    struct tw_error err;
    char text[512];
    const struct tw_instrumented_config config = {
        .mode = c->mode,
        .cache = {.cores = 1, .l1 = {32 << 10, 8}, .last = {2 << 20, 16}},
    };
    if (tw_instrumented_accept(server, &config, tw_after(tw_now(&tw_monotonic), PATIENCE_NS),
                               &c->attachment, &err))
        die(tw_error_text(&err, text, sizeof text));
}

static void track(struct contender *c)
{
    char line[64];
    struct tw_error err;
    char text[512];
    if (fgets(line, sizeof line, c->from) == NULL)
        die("a program ended");
    if (c->attachment == NULL)
        return;
    const uint64_t at = strtoull(line, NULL, 16) & ~UINT64_C(0xfff);
    const struct tw_range range = {at, MEMORY_BYTES};
    struct tw_tracker_config config = {.name = "bench"};
    if (tw_instrumented_watch(c->attachment, &range, 1, &c->watch, &err))
        die(tw_error_text(&err, text, sizeof text));
    tw_instrumented_sync(c->attachment);
    config.ranges = tw_instrumented_watch_ranges(c->watch, &config.range_count);
    if (tw_tracker_start(tw_instrumented_device(c->attachment), &config, &c->tracker, &err))
        die(tw_error_text(&err, text, sizeof text));
    tw_instrumented_settle(c->attachment);
}

static void collect(struct contender *c)
{
    static struct tw_dirty_page pages[1024];
    tw_instrumented_sync(c->attachment);
    tw_tracker_collect(c->tracker);
    tw_instrumented_settle(c->attachment);
    while (tw_tracker_read(c->tracker, pages, 1024) > 0)
        ;
}

static double run_once(struct contender *c)
{
    char line[64];
    struct pollfd p = {.fd = fileno(c->from), .events = POLLIN};
    if (fputc('\n', c->to) == EOF || fflush(c->to))
        die("a program ended");
    const uint64_t end = tw_after(tw_now(&tw_monotonic), PATIENCE_NS);
    while (poll(&p, 1, c->collects ? COLLECT_MS : (int)(PATIENCE_NS / TW_MS)) == 0) {
        if (tw_now(&tw_monotonic) > end)
            die("a run takes too long");
        collect(c);
    }
    if (fgets(line, sizeof line, c->from) == NULL)
        die("a program ended");
    if (c->attachment)
        collect(c); /* the next run finds the state of an epoch's beginning */
    return strtod(line, NULL);
}

static void stop(struct contender *c)
{
    fclose(c->to);
    fclose(c->from);
    waitpid(c->pid, NULL, 0);
    tw_instrumented_unwatch(c->watch);
    tw_instrumented_close(c->attachment);
}

static json_t *report(unsigned runs)
{
    json_t *rows = json_array();
    const double plain = bench_median(contenders[0].ns, runs);
    printf("%-14s %10s %10s %9s\n", CASE, "ns/store", "plain", "slowdown");
    for (size_t i = 1; i < CONTENDERS; i++) {
        const double ours = bench_median(contenders[i].ns, runs);
        printf("%-14s %10.3f %10.3f %9.2f\n", contenders[i].name, ours, plain, ours / plain);
        json_array_append_new(rows, bench_row(suite.bench, CASE, contenders[i].name, "ns/store",
                                              ours, "plain", plain, plain / ours));
    }
    return rows;
}

static void measure(unsigned runs)
{
    char self[384], folder[] = "/tmp/towline-bench-XXXXXX", socket[64];
    struct tw_instrumented_server *server;
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0 || mkdtemp(folder) == NULL)
        die("no folder");
    self[length] = 0;
    *strrchr(self, '/') = 0;
    snprintf(socket, sizeof socket, "%s/agent.sock", folder);
    if (tw_instrumented_listen(socket, false, &server, NULL))
        die("cannot listen");
    for (size_t i = 0; i < CONTENDERS; i++) {
        start(&contenders[i], self, socket);
        if (contenders[i].mode)
            attach(&contenders[i], server);
        track(&contenders[i]);
    }
    for (unsigned run = 0; run < runs; run++) {
        for (size_t i = 0; i < CONTENDERS; i++)
            contenders[i].ns[run] = run_once(&contenders[i]);
    }
    for (size_t i = 0; i < CONTENDERS; i++)
        stop(&contenders[i]);
    tw_instrumented_server_close(server);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    struct bench_options o;
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    measure(o.runs);
    return bench_options_finish(&suite, &o, report(o.runs));
}
