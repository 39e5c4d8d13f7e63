#include "bench/tracking/amplification/work.h"

#include "base/clock.h"
#include "bench/tracking/child.h"
#include "bench/tracking/redis_server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUBJECT          "towline-bench-subject"
#define PATIENCE         (120 * TW_SEC)
#define REDIS_STEP_SHARE 100u

/* Between steps a program is on its way to where it waits, or does what an idle server does. */
static enum tw_code stopped_interval(const struct child *child, struct meter *meter,
                                     struct meter_count *count, struct tw_error *err)
{
    enum tw_code code = child_stop(child, err);
    if (code)
        return code;
    code = meter_interval(meter, count, err);
    const enum tw_code gone = child_go_on(child, code ? NULL : err);
    return code ? code : gone;
}

/* A stopped program could not be attached to: what it does until the meter has begun is in an
 * interval that nobody counts. */
static enum tw_code begin(const struct child *child, const struct tw_range *memory,
                          struct meter **meter, struct tw_error *err)
{
    struct meter_count unused = {0};
    const enum tw_code code = meter_open(child->pid, memory, memory ? 1 : 0, meter, err);
    return code ? code : stopped_interval(child, *meter, &unused, err);
}

/* ---- Programs of our own --------------------------------------------------------------------- */

static enum tw_code say_go(const struct child *child, struct tw_error *err)
{
    if (write(child->to, "\n", 1) == 1)
        return TW_OK;
    return tw_fail_errno(err, errno, SUBJECT, "cannot be told to go on");
}

static enum tw_code expect(struct child *child, const char *word, char *line, size_t size,
                           struct tw_error *err)
{
    const enum tw_code code =
        child_line(child, line, size, tw_after(tw_now(&tw_monotonic), PATIENCE), err);
    if (code || strncmp(line, word, strlen(word)) == 0)
        return code;
    return tw_fail(err, TW_INTERNAL, SUBJECT, word, line, "answered something else");
}

static enum tw_code subject_start(const struct work *work, struct child *child,
                                  struct tw_range *memory, struct tw_error *err)
{
    char path[512], size[24], steps[16], line[80];
    unsigned long start, bytes;
    enum tw_code code = child_beside(SUBJECT, path, sizeof path, err);
    if (code)
        return code;
    snprintf(size, sizeof size, "%llu", (unsigned long long)work->size);
    snprintf(steps, sizeof steps, "%u", work->steps);
    const char *const argv[] = {SUBJECT, work->name, size, steps, NULL};
    code = child_start(child, path, argv, NULL, true, err);
    if (code == TW_OK)
        code = expect(child, "ready ", line, sizeof line, err);
    if (code)
        return code;
    if (sscanf(line, "ready %lx %lx", &start, &bytes) != 2)
        return tw_fail(err, TW_INTERNAL, SUBJECT, "ready ADDRESS BYTES", line, "no range");
    *memory = (struct tw_range){start, bytes};
    return TW_OK;
}

static enum tw_code subject_finish(struct child *child, const struct work *work,
                                   struct tw_error *err)
{
    int status = 0;
    enum tw_code code = say_go(child, err);
    if (code == TW_OK)
        code = child_wait(child, tw_after(tw_now(&tw_monotonic), PATIENCE), &status, err);
    if (code == TW_OK && status != 0)
        return tw_fail(err, TW_DATA_LOSS, work->name, NULL, NULL, "found its result wrong");
    return code;
}

static enum tw_code measure_subject(const struct work *work, struct meter_count *counts,
                                    struct tw_error *err)
{
    char line[80];
    struct tw_range memory;
    struct meter *meter = NULL;
    struct child child = {0};
    enum tw_code code = subject_start(work, &child, &memory, err);
    if (code == TW_OK)
        code = begin(&child, memory.length ? &memory : NULL, &meter, err);
    for (unsigned step = 0; step < work->steps && code == TW_OK; step++) {
        code = say_go(&child, err);
        if (code == TW_OK)
            code = expect(&child, "step", line, sizeof line, err);
        if (code == TW_OK)
            code = stopped_interval(&child, meter, &counts[step], err);
    }
    if (code == TW_OK)
        code = subject_finish(&child, work, err);
    meter_close(meter);
    child_end(&child);
    return code;
}

/* ---- Redis ----------------------------------------------------------------------------------- */

static enum tw_code measure_redis(const struct work *work, bool random, struct meter_count *counts,
                                  struct tw_error *err)
{
    const uint32_t keys = (uint32_t)work->size, each = keys / REDIS_STEP_SHARE;
    struct redis_server server = {0};
    struct meter *meter = NULL;
    enum tw_code code = redis_start(&server, NULL, err);
    if (code == TW_OK)
        code = redis_set(&server, 0, keys, 0, 1, err);
    if (code == TW_OK)
        code = begin(&server.child, NULL, &meter, err);
    for (unsigned step = 0; step < work->steps && code == TW_OK; step++) {
        const uint32_t first = step % REDIS_STEP_SHARE * each;
        code = redis_set(&server, first, each, random ? keys : 0, step + UINT64_C(2), err);
        if (code == TW_OK)
            code = stopped_interval(&server.child, meter, &counts[step], err);
    }
    meter_close(meter);
    redis_end(&server);
    return code;
}

enum tw_code work_measure(const struct work *work, struct meter_count *counts, struct tw_error *err)
{
    if (strcmp(work->name, "redis_random") == 0)
        return measure_redis(work, true, counts, err);
    if (strcmp(work->name, "redis_sequential") == 0)
        return measure_redis(work, false, counts, err);
    return measure_subject(work, counts, err);
}
