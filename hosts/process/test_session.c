#include "hosts/process/test_session.h"

#include <stdio.h>
#include <stdlib.h>

#define PATIENCE (60 * TW_SEC)

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[600];
    if (code) {
        fprintf(stderr, "test session: %s\n", tw_error_text(err, text, sizeof text));
        abort();
    }
}

struct target target;
struct tw_process *process;

void attach_with(const struct tw_process_config *config)
{
    struct tw_error err;
    target_start(&target);
    must(tw_process_attach(config, target.pid, &process, &err), &err);
}

void attach(void)
{
    attach_with(NULL);
}

void end(void)
{
    tw_process_detach(process);
    target_end(&target);
}

void must_pass(struct tw_process *attached)
{
    struct tw_error err;
    must(tw_process_pass(attached, tw_after(tw_now(&tw_monotonic), PATIENCE), &err), &err);
}

void session_start(struct session *s, struct tw_process *attached, const char *name,
                   uint64_t address, uint64_t length)
{
    struct tw_range range = {address, length};
    struct tw_tracker_config config = {.name = name};
    struct tw_error err;
    *s = (struct session){.process = attached};
    must(tw_process_watch(attached, &range, length ? 1 : 0, &s->watch, &err), &err);
    must_pass(attached);
    if (!tw_process_watch_armed(s->watch))
        abort();
    config.ranges = tw_process_watch_ranges(s->watch, &config.range_count);
    must(tw_tracker_start(tw_process_device(attached), &config, &s->tracker, &err), &err);
}

void session_end(struct session *s)
{
    tw_tracker_stop(s->tracker);
    tw_process_unwatch(s->watch);
    free(s->pages);
    *s = (struct session){0};
}

static int by_address(const void *a, const void *b)
{
    const struct told_page *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

void session_read(struct session *s)
{
    struct tw_dirty_page some[100];
    const size_t promised = tw_tracker_collect(s->tracker);
    s->pages = realloc(s->pages, (promised + 1) * sizeof *s->pages);
    s->count = 0;
    for (size_t n; (n = tw_tracker_read(s->tracker, some, 100)) > 0;) {
        for (size_t i = 0; i < n; i++) {
            if (s->count == promised)
                abort();
            s->pages[s->count++] = (struct told_page){tw_process_address(s->process, some[i].page),
                                                      some[i].lines, some[i].whole_page};
        }
    }
    if (s->count != promised)
        abort();
    qsort(s->pages, s->count, sizeof *s->pages, by_address);
}

void session_collect(struct session *s)
{
    must_pass(s->process);
    session_read(s);
}

uint64_t session_lines(const struct session *s, uint64_t address, bool *whole)
{
    const struct told_page key = {.address = address & ~(uint64_t)(TW_PAGE_SIZE - 1)};
    const struct told_page *found =
        s->count ? bsearch(&key, s->pages, s->count, sizeof key, by_address) : NULL;
    if (whole)
        *whole = found && found->whole;
    return found ? found->lines : 0;
}
