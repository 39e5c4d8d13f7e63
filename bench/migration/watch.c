#include "bench/migration/watch.h"

#include "base/clock.h"
#include "bench/migration/process.h"
#include "guests/sparse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS      (500 * TW_US)
#define POINT_NS     TW_MS         /* between two points of the series */
#define FIND_NS      (100 * TW_MS) /* between two searches for a vCPU thread */
#define VCPU_STEP_NS (5 * TW_MS)   /* loading a state costs a vCPU thread less */
#define SERIAL_MAX   512u          /* bytes of a line */

/* One copy of the guest. */
struct side {
    char dir[BENCH_PATH];
    int ram, serial, vcpu; /* descriptors; -1 = not there yet */
    uint64_t next_find_ns;
    char line[SERIAL_MAX];
    size_t line_size;
};

struct bench_watch {
    const struct bench_guest *guest;
    struct side source, destination;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t mutex; /* what follows */
    bool ready;
    uint64_t errors;
    struct bench_pulse pulse;
    struct bench_series ops;
};

static void note_ops(struct bench_watch *w, uint64_t t_ns, double ops)
{
    const struct bench_series *s = &w->ops;
    const struct bench_point *last = s->count ? &s->points[s->count - 1] : NULL;
    if (!last || (ops > last->value && t_ns >= last->t_ns + POINT_NS))
        bench_series_add(&w->ops, t_ns, ops);
}

/* ---- The small guest: its control block ------------------------------------------------------ */

static void open_in(int *fd, const char *dir, const char *name)
{
    char path[BENCH_PATH + 16];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (*fd < 0)
        *fd = open(path, O_RDONLY | O_CLOEXEC);
}

/* By pread: a look through a mapping would put a page where post-copy waits for the first touch. */
static bool control_of(struct side *s, struct tw_sparse_control *c)
{
    open_in(&s->ram, s->dir, "ram");
    return s->ram >= 0 && pread(s->ram, c, sizeof *c, TW_SPARSE_CONTROL) == (ssize_t)sizeof *c &&
           c->magic == TW_SPARSE_MAGIC;
}

static void look_at_memory(struct bench_watch *w)
{
    struct tw_sparse_control s = {0}, d = {0};
    /* The destination first: while the source runs, its copy is never ahead. */
    bool there = control_of(&w->destination, &d);
    bool here = control_of(&w->source, &s);
    uint64_t now = bench_now_ns();
    if (!here)
        return;
    bool moved = there && d.now_tsc > s.now_tsc;
    w->ready = true;
    w->errors = moved ? d.bad : s.bad;
    bench_pulse_look(&w->pulse, now, s.now_tsc, moved ? d.now_tsc - s.now_tsc : 0, 1);
    note_ops(w, now, (double)(moved ? d.writes : s.writes));
}

/* ---- The Linux guest: serial port and vCPU thread -------------------------------------------- */

static uint64_t number_after(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void on_line(struct bench_watch *w, const char *line)
{
    if (strncmp(line, "READY ", 6) == 0)
        w->ready = true;
    if (strncmp(line, "load ops=", 9) == 0) {
        w->errors = number_after(line, " errors=");
        note_ops(w, bench_now_ns(), (double)number_after(line, " ops="));
    }
    if (strncmp(line, "load fatal", 10) == 0)
        w->errors++;
}

static void read_serial(struct bench_watch *w, struct side *s)
{
    char bytes[2048];
    open_in(&s->serial, s->dir, "serial.log");
    ssize_t n = s->serial >= 0 ? read(s->serial, bytes, sizeof bytes) : 0;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && bytes[i] != '\r') {
            if (s->line_size < SERIAL_MAX - 1)
                s->line[s->line_size++] = bytes[i];
            continue;
        }
        s->line[s->line_size] = 0;
        if (s->line_size > 0)
            on_line(w, s->line);
        s->line_size = 0;
    }
}

static bool is_vcpu(const char *comm)
{
    char name[32] = "";
    int fd = open(comm, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
    if (fd >= 0)
        close(fd);
    return n > 0 && strncmp(name, "CPU ", 4) == 0;
}

static void find_vcpu(struct side *s, uint64_t now)
{
    char path[96];
    if (s->vcpu >= 0 || now < s->next_find_ns)
        return;
    s->next_find_ns = now + FIND_NS;
    pid_t pid = bench_process_find(s->dir);
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = pid > 0 ? opendir(path) : NULL;
    for (struct dirent *e; d && s->vcpu < 0 && (e = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/comm", pid, e->d_name);
        if (e->d_name[0] == '.' || !is_vcpu(path))
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
        s->vcpu = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (d)
        closedir(d);
}

static uint64_t vcpu_ns(struct side *s)
{
    char text[64] = "";
    if (s->vcpu < 0 || pread(s->vcpu, text, sizeof text - 1, 0) <= 0)
        return 0;
    return strtoull(text, NULL, 10);
}

static void look_at_linux(struct bench_watch *w)
{
    find_vcpu(&w->source, bench_now_ns());
    find_vcpu(&w->destination, bench_now_ns());
    uint64_t source = vcpu_ns(&w->source), destination = vcpu_ns(&w->destination);
    /* A source that has ended tells nothing any more. */
    if (source == 0)
        source = w->pulse.source_value;
    if (source > 0)
        bench_pulse_look(&w->pulse, bench_now_ns(), source, destination, VCPU_STEP_NS);
    read_serial(w, &w->source);
    read_serial(w, &w->destination);
}

/* ---- The thread ------------------------------------------------------------------------------ */

static void *look(void *arg)
{
    struct bench_watch *w = arg;
    while (!atomic_load(&w->stop)) {
        pthread_mutex_lock(&w->mutex);
        if (w->guest->linux_guest)
            look_at_linux(w);
        else
            look_at_memory(w);
        pthread_mutex_unlock(&w->mutex);
        nanosleep(&(struct timespec){0, (long)LOOK_NS}, NULL);
    }
    return NULL;
}

static void side_open(struct side *s, const char *dir)
{
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    s->ram = s->serial = s->vcpu = -1;
}

static void side_close(struct side *s)
{
    int *fds[] = {&s->ram, &s->serial, &s->vcpu};
    for (size_t i = 0; i < 3; i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
}

enum tw_code bench_watch_start(const struct bench_guest *guest, const char *source,
                               const char *destination, struct bench_watch **watch,
                               struct tw_error *err)
{
    struct bench_watch *w = calloc(1, sizeof *w);
    if (!w)
        return tw_fail_errno(err, ENOMEM, guest->name, "no memory to watch it");
    w->guest = guest;
    side_open(&w->source, source);
    side_open(&w->destination, destination);
    pthread_mutex_init(&w->mutex, NULL);
    int failed = pthread_create(&w->thread, NULL, look, w);
    if (failed) {
        free(w);
        return tw_fail_errno(err, failed, guest->name, "no thread to watch it");
    }
    *watch = w;
    return TW_OK;
}

void bench_watch_stop(struct bench_watch *watch)
{
    if (!watch)
        return;
    atomic_store(&watch->stop, true);
    pthread_join(watch->thread, NULL);
    pthread_mutex_destroy(&watch->mutex);
    side_close(&watch->source);
    side_close(&watch->destination);
    free(watch);
}

/* ---- Questions ------------------------------------------------------------------------------- */

static bool is_ready(struct bench_watch *w, uint64_t unused)
{
    (void)unused;
    return w->ready && (!w->guest->writes || w->ops.count >= 2);
}

static bool has_moved(struct bench_watch *w, uint64_t unused)
{
    (void)unused;
    return w->pulse.destination_ns != 0;
}

static bool has_ops(struct bench_watch *w, uint64_t t_ns)
{
    return !w->guest->writes || (w->ops.count && w->ops.points[w->ops.count - 1].t_ns >= t_ns);
}

static bool await(struct bench_watch *w, bool (*is)(struct bench_watch *, uint64_t), uint64_t arg,
                  unsigned within_ms)
{
    uint64_t end = bench_now_ns() + within_ms * TW_MS;
    for (;;) {
        pthread_mutex_lock(&w->mutex);
        bool yes = is(w, arg);
        pthread_mutex_unlock(&w->mutex);
        if (yes || bench_now_ns() >= end || !bench_sleep_ms(2))
            return yes;
    }
}

enum tw_code bench_watch_await_ready(struct bench_watch *watch, struct tw_error *err)
{
    const struct bench_guest *g = watch->guest;
    if (await(watch, is_ready, 0, g->ready_ms))
        return TW_OK;
    if (bench_interrupted())
        return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    return tw_fail(err, TW_DEADLINE_EXCEEDED, g->name, NULL, NULL, "guest not ready after %u ms",
                   g->ready_ms);
}

bool bench_watch_await_moved(struct bench_watch *watch, unsigned within_ms)
{
    return await(watch, has_moved, 0, within_ms);
}

bool bench_watch_await_ops(struct bench_watch *watch, uint64_t t_ns, unsigned within_ms)
{
    return await(watch, has_ops, t_ns, within_ms);
}

double bench_watch_rate(struct bench_watch *watch, uint64_t from_ns, uint64_t to_ns)
{
    pthread_mutex_lock(&watch->mutex);
    double rate = watch->guest->writes ? bench_series_rate(&watch->ops, from_ns, to_ns) : NAN;
    pthread_mutex_unlock(&watch->mutex);
    return rate;
}

double bench_watch_stall_ms(struct bench_watch *watch, uint64_t from_ns, uint64_t to_ns)
{
    if (watch->guest->linux_guest || !watch->guest->writes)
        return NAN;
    pthread_mutex_lock(&watch->mutex);
    uint64_t gap = bench_series_gap(&watch->ops, from_ns, to_ns);
    pthread_mutex_unlock(&watch->mutex);
    return (double)gap / (double)TW_MS;
}

double bench_watch_pause_ms(struct bench_watch *watch)
{
    if (!watch->guest->writes)
        return NAN;
    pthread_mutex_lock(&watch->mutex);
    uint64_t pause = bench_pulse_pause_ns(&watch->pulse);
    pthread_mutex_unlock(&watch->mutex);
    return pause ? (double)pause / (double)TW_MS : NAN;
}

double bench_watch_recovered_ms(struct bench_watch *watch, double before, uint64_t window_ns)
{
    pthread_mutex_lock(&watch->mutex);
    uint64_t stopped_ns = watch->pulse.destination_ns ? watch->pulse.source_ns : 0;
    uint64_t at = stopped_ns && watch->guest->writes && !isnan(before)
                      ? bench_series_reaches(&watch->ops, stopped_ns, before * 0.9, window_ns)
                      : 0;
    pthread_mutex_unlock(&watch->mutex);
    return at ? (double)(at - stopped_ns) / (double)TW_MS : NAN;
}

uint64_t bench_watch_moved_ns(struct bench_watch *watch)
{
    pthread_mutex_lock(&watch->mutex);
    uint64_t t = watch->pulse.destination_ns;
    pthread_mutex_unlock(&watch->mutex);
    return t;
}

uint64_t bench_watch_errors(struct bench_watch *watch)
{
    pthread_mutex_lock(&watch->mutex);
    uint64_t errors = watch->errors;
    pthread_mutex_unlock(&watch->mutex);
    return errors;
}
