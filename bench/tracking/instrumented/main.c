/* What instrumentation costs a program that stores, or loads, at random over 256 MiB: nothing (the
 * plain program), without an agent, and with one in each way of tracking, with and without a
 * collect every 0.1 s, which reads and compares the contents, too, where its name ends in bytes.
 * All programs run in turn, in one run; the figures are medians. */
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
#define INSTRUMENTED "bench-store-instrumented"
#define PLAIN        "bench-store-plain"

extern char **environ;

struct contender {
    const char *name, *program;
    enum tw_inst_mode mode; /* TW_INST_DETACHED: no agent */
    bool collects, loads, bytes;
    pid_t pid;
    FILE *to, *from;
    struct tw_instrumented *attachment;
    struct tw_instrumented_watch *watch;
    struct tw_tracker *tracker;
    struct tw_tracker *accessed;  /* where loads are recorded */
    double ns[2][BENCH_RUNS_MAX]; /* by case */
};

static struct contender contenders[] = {
    {.name = "plain", .program = PLAIN},
    {.name = "detached", .program = INSTRUMENTED},
    {.name = "mark", .program = INSTRUMENTED, .mode = TW_INST_MARK},
    {.name = "mark_collect", .program = INSTRUMENTED, .mode = TW_INST_MARK, .collects = true},
    {.name = "mark_bytes",
     .program = INSTRUMENTED,
     .mode = TW_INST_MARK,
     .collects = true,
     .bytes = true},
    {.name = "mark_loads", .program = INSTRUMENTED, .mode = TW_INST_MARK, .loads = true},
    {.name = "mark_loads_collect",
     .program = INSTRUMENTED,
     .mode = TW_INST_MARK,
     .collects = true,
     .loads = true},
    {.name = "sharing", .program = INSTRUMENTED, .mode = TW_INST_SHARING},
    {.name = "owned", .program = INSTRUMENTED, .mode = TW_INST_OWNED},
    {.name = "owned_collect", .program = INSTRUMENTED, .mode = TW_INST_OWNED, .collects = true},
};
#define CONTENDERS (sizeof contenders / sizeof contenders[0])

static const struct loop {
    struct bench_choice choice;
    char order; /* to the programs */
    const char *unit;
} loops[] = {{{"random_store", "stores at random over 256 MiB"}, 's', "ns/store"},
             {{"random_load", "loads at random over 256 MiB"}, 'l', "ns/load"}};
#define LOOPS (sizeof loops / sizeof loops[0])

static struct bench_choice choice(size_t index)
{
    return loops[index].choice;
}

static const struct bench_suite suite = {.program = "towline-bench-instrumented",
                                         .bench = "tracking",
                                         .runs_default = 9,
                                         .runs_min = 1,
                                         .case_count = LOOPS,
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
        .loads = c->loads,
        .cache = {.cores = 1, .l1 = {32 << 10, 8}, .last = {2 << 20, 16}},
    };
    if (tw_instrumented_accept(server, &config, tw_after(tw_now(&tw_monotonic), PATIENCE_NS),
                               &c->attachment, &err))
        die(tw_error_text(&err, text, sizeof text));
}

static void hear_nothing(void *arg, const struct tw_told *told)
{
    (void)arg;
    (void)told;
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
    config.accessed = true;
    config.name = "accessed";
    if (c->loads &&
        tw_tracker_start(tw_instrumented_device(c->attachment), &config, &c->accessed, &err))
        die(tw_error_text(&err, text, sizeof text));
    const struct tw_attachment table = tw_instrumented_attachment(c->attachment);
    if (c->bytes && table.ops->observe(table.ctx, hear_nothing, NULL, &err))
        die(tw_error_text(&err, text, sizeof text));
    tw_instrumented_settle(c->attachment);
}

static void collect(struct contender *c)
{
    static struct tw_dirty_page pages[1024];
    tw_instrumented_sync(c->attachment);
    tw_tracker_collect(c->tracker);
    if (c->accessed)
        tw_tracker_collect(c->accessed);
    tw_instrumented_settle(c->attachment);
    while (tw_tracker_read(c->tracker, pages, 1024) > 0)
        ;
    while (c->accessed && tw_tracker_read(c->accessed, pages, 1024) > 0)
        ;
}

static double run_once(struct contender *c, char order)
{
    char line[64];
    struct pollfd p = {.fd = fileno(c->from), .events = POLLIN};
    if (fputc(order, c->to) == EOF || fflush(c->to))
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

static void report_loop(size_t loop, unsigned runs, json_t *rows)
{
    const struct loop *l = &loops[loop];
    const double plain = bench_median(contenders[0].ns[loop], runs);
    printf("%-18s %10s %10s %9s\n", l->choice.name, l->unit, "plain", "slowdown");
    for (size_t i = 1; i < CONTENDERS; i++) {
        const double ours = bench_median(contenders[i].ns[loop], runs);
        printf("%-18s %10.3f %10.3f %9.2f\n", contenders[i].name, ours, plain, ours / plain);
        json_array_append_new(rows, bench_row(suite.bench, l->choice.name, contenders[i].name,
                                              l->unit, ours, "plain", plain, plain / ours));
    }
}

static json_t *report(const struct bench_options *o)
{
    json_t *rows = json_array();
    for (size_t loop = 0; loop < LOOPS; loop++)
        if (o->wanted[loop])
            report_loop(loop, o->runs, rows);
    return rows;
}

static void run_all(const struct bench_options *o)
{
    for (unsigned run = 0; run < o->runs; run++)
        for (size_t loop = 0; loop < LOOPS; loop++)
            for (size_t i = 0; i < CONTENDERS && o->wanted[loop]; i++)
                contenders[i].ns[loop][run] = run_once(&contenders[i], loops[loop].order);
}

static void measure(const struct bench_options *o)
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
    run_all(o);
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
    measure(&o);
    return bench_options_finish(&suite, &o, report(&o));
}
