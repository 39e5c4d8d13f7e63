/* An epoch: a tracker of the device, and the passes that begin and end it. */
#include "services/tracking/tracking_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define READ_PAGES 256u /* taken out of the tracker at once */

static const struct tw_state epoch_states[] = {
    [TW_EPOCH_ARMING] = {.name = "arming",
                         .next = TW_MAY(TW_EPOCH_RUNNING) | TW_MAY(TW_EPOCH_ENDED),
                         .note = "stores before it are being taken off"},
    [TW_EPOCH_RUNNING] = {.name = "running",
                          .next = TW_MAY(TW_EPOCH_COLLECTING) | TW_MAY(TW_EPOCH_ENDED),
                          .note = "the tracker gathers; what was collected can be read"},
    [TW_EPOCH_COLLECTING] = {.name = "collecting",
                             .next = TW_MAY(TW_EPOCH_RUNNING) | TW_MAY(TW_EPOCH_ENDED),
                             .note = "waits for a pass that began after it was asked for"},
    [TW_EPOCH_ENDED] = {.name = "ended", .note = "the program has; what was collected can be read"},
};
const struct tw_machine_table tw_epoch_table = {
    .name = "epoch", .states = epoch_states, .count = sizeof epoch_states / sizeof *epoch_states};

static uint64_t now_of(const struct tw_tracking_session *session)
{
    return tw_now(session->program->tracking->env.clock);
}

/* ---- Open and close ------------------------------------------------------------------------- */

bool tw_tracking_epoch_find(const struct tw_tracking_session *session, const char *name,
                            unsigned *epoch)
{
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++) {
        if (session->epochs[i].used && strcmp(session->epochs[i].name, name) == 0) {
            *epoch = i;
            return true;
        }
    }
    return false;
}

bool tw_tracking_epoch_there(const struct tw_tracking_session *session, unsigned epoch)
{
    return epoch < TW_TRACKING_EPOCHS_MAX && session->epochs[epoch].used;
}

static enum tw_code open_check(const struct tw_tracking_session *session, const char *name,
                               struct tw_error *err)
{
    unsigned there;
    size_t length = strnlen(name, TW_TRACKING_NAME_SIZE);
    if (length == 0 || length == TW_TRACKING_NAME_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, "epoch", "a name of 1 to 31 bytes", NULL,
                       "not a usable name");
    if (!session->watch)
        return tw_fail(err, TW_FAILED_PRECONDITION, name, "a session that watches", NULL,
                       "the session has no ranges yet");
    if (tw_tracking_epoch_find(session, name, &there))
        return tw_fail(err, TW_ALREADY_EXISTS, name, NULL, NULL,
                       "the session has an epoch of this name");
    if (session->program->ended)
        return *err = session->program->end, session->program->end.code;
    return TW_OK;
}

enum tw_code tw_tracking_epoch_open(struct tw_tracking_session *session, const char *name,
                                    unsigned *epoch, struct tw_error *err)
{
    enum tw_code code = open_check(session, name, err);
    if (code)
        return code;
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++) {
        struct tw_epoch *e = &session->epochs[i];
        if (e->used)
            continue;
        *e = (struct tw_epoch){.used = true};
        snprintf(e->name, sizeof e->name, "%s", name);
        tw_machine_init(&e->machine, &tw_epoch_table, e, NULL, NULL);
        *epoch = i;
        return TW_OK;
    }
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL,
                   "the session has %u epochs already", TW_TRACKING_EPOCHS_MAX);
}

void tw_epoch_free(struct tw_epoch *epoch)
{
    if (!epoch->used)
        return;
    tw_tracker_stop(epoch->tracker);
    tw_tracker_stop(epoch->accessed);
    tw_regions_free(&epoch->regions);
    tw_regions_free(&epoch->heard);
    tw_regions_free(&epoch->bytes);
    tw_compared_free(&epoch->comparing);
    tw_compared_free(&epoch->compared);
    tw_shared_lines_free(&epoch->sharing);
    tw_shared_lines_free(&epoch->shared);
    *epoch = (struct tw_epoch){0};
}

void tw_tracking_epoch_close(struct tw_tracking_session *session, unsigned epoch)
{
    if (epoch < TW_TRACKING_EPOCHS_MAX)
        tw_epoch_free(&session->epochs[epoch]);
}

/* ---- Passes --------------------------------------------------------------------------------- */

static enum tw_code arm(struct tw_tracking_session *session, struct tw_epoch *epoch)
{
    const struct tw_attachment *at = &session->program->at;
    char name[64];
    struct tw_tracker_config config = {.name = name};
    snprintf(name, sizeof name, "%llu.%s", (unsigned long long)session->id, epoch->name);
    config.ranges = at->ops->watch_ranges(session->watch, &config.range_count);
    enum tw_code code = tw_tracker_start(at->device, &config, &epoch->tracker, &epoch->failure);
    if (code || !session->loads)
        return code;
    snprintf(name, sizeof name, "%llu.%s accessed", (unsigned long long)session->id, epoch->name);
    config.accessed = true;
    return tw_tracker_start(at->device, &config, &epoch->accessed, &epoch->failure);
}

/* Ends the present epoch and begins the next. */
static void turn_over(struct tw_tracking_session *session, struct tw_epoch *epoch)
{
    uint64_t now = now_of(session);
    tw_tracker_collect(epoch->tracker);
    if (epoch->accessed)
        tw_tracker_collect(epoch->accessed);
    epoch->figures = (struct tw_figures){.epochs = 1,
                                         .duration_ns = now - epoch->began_ns,
                                         .changed_bytes = epoch->heard_bytes,
                                         .clean_pages = epoch->heard_clean};
    struct tw_regions spare = epoch->bytes;
    epoch->bytes = epoch->heard;
    epoch->heard = spare;
    tw_regions_clear(&epoch->heard);
    epoch->heard_bytes = epoch->heard_clean = 0;
    const struct tw_compared earlier = epoch->compared;
    epoch->compared = epoch->comparing;
    epoch->comparing = earlier;
    tw_compared_clear(&epoch->comparing);
    epoch->unread = true;
    epoch->accessed_unread = epoch->accessed != NULL;
    epoch->began_ns = now;
    tw_regions_clear(&epoch->regions);
    const struct tw_shared_lines old = epoch->shared;
    epoch->shared = epoch->sharing;
    epoch->sharing = old;
    tw_shared_lines_clear(&epoch->sharing);
    session->shared = epoch->shared.total;
    session->shared_falsely = epoch->shared.falsely;
}

void tw_epoch_passed(struct tw_tracking_session *session, struct tw_epoch *epoch)
{
    epoch->in_pass = false;
    if (tw_epoch_state(epoch) == TW_EPOCH_COLLECTING) {
        turn_over(session, epoch);
    } else if (arm(session, epoch)) {
        tw_machine_move(&epoch->machine, TW_EPOCH_ENDED, "no tracker");
        return;
    } else {
        epoch->began_ns = now_of(session);
    }
    tw_machine_move(&epoch->machine, TW_EPOCH_RUNNING, "pass complete");
}

void tw_epoch_pass_failed(struct tw_epoch *epoch, const struct tw_error *err)
{
    epoch->in_pass = false;
    epoch->failure = *err;
    tw_machine_move(&epoch->machine,
                    tw_epoch_state(epoch) == TW_EPOCH_COLLECTING ? TW_EPOCH_RUNNING
                                                                 : TW_EPOCH_ENDED,
                    "pass failed");
}

void tw_epoch_program_ended(struct tw_tracking_session *session, struct tw_epoch *epoch)
{
    epoch->in_pass = false;
    if (tw_epoch_state(epoch) == TW_EPOCH_COLLECTING)
        turn_over(session, epoch);
    else
        epoch->failure = session->program->end;
    tw_machine_move(&epoch->machine, TW_EPOCH_ENDED, "program ended");
}

enum tw_code tw_tracking_epoch_poll(const struct tw_tracking_session *session, unsigned epoch,
                                    enum tw_epoch_state *state, struct tw_error *err)
{
    const struct tw_epoch *e = &session->epochs[epoch];
    assert(tw_tracking_epoch_there(session, epoch));
    *state = tw_epoch_state(e);
    if (e->failure.code && err)
        *err = e->failure;
    return e->failure.code;
}

enum tw_code tw_tracking_collect(struct tw_tracking_session *session, unsigned epoch, bool paced,
                                 struct tw_error *err)
{
    struct tw_epoch *e = &session->epochs[epoch];
    const struct tw_attachment *at = &session->program->at;
    assert(tw_tracking_epoch_there(session, epoch));
    if (tw_epoch_state(e) == TW_EPOCH_ENDED) {
        if (session->program->ended)
            return *err = session->program->end, session->program->end.code;
        return *err = e->failure, e->failure.code;
    }
    if (tw_epoch_state(e) != TW_EPOCH_RUNNING)
        return tw_fail(err, TW_FAILED_PRECONDITION, e->name, "a running epoch",
                       tw_machine_state_name(&e->machine), "cannot be collected now");
    tw_error_clear(&e->failure);
    e->not_before_ns = paced ? at->ops->due_ns(at->ctx) : 0;
    tw_machine_move(&e->machine, TW_EPOCH_COLLECTING, "asked for");
    if (session->program->ended)
        tw_epoch_program_ended(session, e);
    return TW_OK;
}

void tw_tracking_collect_cancel(struct tw_tracking_session *session, unsigned epoch)
{
    struct tw_epoch *e = &session->epochs[epoch];
    assert(tw_tracking_epoch_there(session, epoch));
    if (tw_epoch_state(e) != TW_EPOCH_COLLECTING)
        return;
    e->in_pass = false;
    tw_machine_move(&e->machine, TW_EPOCH_RUNNING, "taken back");
}

/* ---- Bytes ---------------------------------------------------------------------------------- */

/* `same`: it is wanted to know which lines hold what they held. */
static void hear(struct tw_epoch *e, const struct tw_told *told, uint64_t address, bool same)
{
    if (!e->used || !e->tracker)
        return;
    if (same)
        tw_compared_add(&e->comparing, address, told->same, told->lines,
                        told->whole ? TW_ALL_LINES : told->unsure);
    if (told->whole)
        return;
    e->heard_clean += told->lines == 0 && !same;
    e->heard_bytes += told->bytes;
    if (told->lines)
        tw_regions_add(&e->heard, address, tw_popcount(told->lines), told->bytes);
}

void tw_tracked_told(void *program, const struct tw_told *told)
{
    struct tw_tracked *p = program;
    uint64_t address = p->at.ops->address(p->at.ctx, told->device_page);
    if (address == TW_NEVER)
        return;
    for (struct tw_tracking_session *s = p->tracking->sessions; s; s = s->next) {
        if (s->program != p || !s->counts_bytes || !tw_tracked_ranges_mask(&s->ranges, address))
            continue;
        for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++)
            hear(&s->epochs[i], told, address, tw_tracking_counts_same(s));
    }
}

/* ---- Reading -------------------------------------------------------------------------------- */

/* Where each store is seen, a line may have been stored to that was not compared. */
static void take_compared(const struct tw_tracking_session *session, struct tw_epoch *e,
                          const struct tw_dirty_lines *page)
{
    uint64_t known = page->lines, changed = page->lines;
    if (tw_tracking_counts_same(session))
        tw_compared_find(&e->compared, page->address, &known, &changed);
    known &= page->lines;
    e->figures.known_lines += tw_popcount(known);
    e->figures.same_lines += tw_popcount(known & ~changed);
}

/* Counts a page; false when none of its lines are watched. */
static bool take(struct tw_tracking_session *session, struct tw_epoch *e,
                 const struct tw_dirty_page *page, struct tw_dirty_lines *out)
{
    const struct tw_attachment *at = &session->program->at;
    out->address = at->ops->address(at->ctx, page->page);
    if (out->address == TW_NEVER)
        return false;
    out->whole = page->whole_page;
    out->lines = page->lines & tw_tracked_ranges_mask(&session->ranges, out->address);
    if (!out->lines)
        return false;
    e->figures.lines += tw_popcount(out->lines);
    e->figures.pages++;
    e->figures.whole_pages += out->whole;
    if (session->counts_bytes && !out->whole)
        take_compared(session, e, out);
    if (!tw_regions_add(&e->regions, out->address, tw_popcount(out->lines), 0))
        e->figures.regions_lost++;
    e->figures.regions = e->regions.count;
    return true;
}

/* The two lists are read apart, each counts when it is at its end. */
static void count_in(struct tw_tracking_session *session, struct tw_epoch *e)
{
    struct tw_figures dirty = e->figures;
    if (!e->unread)
        return;
    e->unread = false;
    session->last = e->figures;
    dirty.accessed_lines = dirty.accessed_pages = 0;
    tw_figures_add(&session->total, &dirty);
}

static void count_accessed_in(struct tw_tracking_session *session, struct tw_epoch *e)
{
    if (!e->accessed_unread)
        return;
    e->accessed_unread = false;
    session->last.accessed_lines = e->figures.accessed_lines;
    session->last.accessed_pages = e->figures.accessed_pages;
    session->total.accessed_lines += e->figures.accessed_lines;
    session->total.accessed_pages += e->figures.accessed_pages;
}

static bool take_accessed(struct tw_tracking_session *session, struct tw_epoch *e,
                          const struct tw_dirty_page *page, struct tw_dirty_lines *out)
{
    const struct tw_attachment *at = &session->program->at;
    out->address = at->ops->address(at->ctx, page->page);
    if (out->address == TW_NEVER)
        return false;
    out->whole = page->whole_page;
    out->lines = page->lines & tw_tracked_ranges_mask(&session->ranges, out->address);
    e->figures.accessed_lines += tw_popcount(out->lines);
    e->figures.accessed_pages += out->lines != 0;
    return out->lines != 0;
}

typedef bool (*take_fn)(struct tw_tracking_session *session, struct tw_epoch *e,
                        const struct tw_dirty_page *page, struct tw_dirty_lines *out);

static size_t read_from(struct tw_tracking_session *session, struct tw_epoch *e,
                        struct tw_tracker *tracker, take_fn taken, struct tw_dirty_lines *out,
                        size_t max)
{
    struct tw_dirty_page pages[READ_PAGES];
    struct tw_dirty_lines lines;
    size_t given = 0;
    while (tracker && given < max) {
        const size_t want = max - given < READ_PAGES ? max - given : READ_PAGES;
        const size_t n = tw_tracker_read(tracker, pages, want);
        for (size_t i = 0; i < n; i++) {
            if (taken(session, e, &pages[i], &lines)) {
                if (out)
                    out[given] = lines;
                given++;
            }
        }
        if (n == 0)
            break;
    }
    return given;
}

size_t tw_tracking_read(struct tw_tracking_session *session, unsigned epoch,
                        struct tw_dirty_lines *out, size_t max)
{
    struct tw_epoch *e = &session->epochs[epoch];
    assert(tw_tracking_epoch_there(session, epoch));
    const size_t given = read_from(session, e, e->tracker, take, out, max);
    if (given < max)
        count_in(session, e);
    return given;
}

size_t tw_tracking_read_accessed(struct tw_tracking_session *session, unsigned epoch,
                                 struct tw_dirty_lines *out, size_t max)
{
    struct tw_epoch *e = &session->epochs[epoch];
    assert(tw_tracking_epoch_there(session, epoch));
    const size_t given = read_from(session, e, e->accessed, take_accessed, out, max);
    if (given < max)
        count_accessed_in(session, e);
    return given;
}

void tw_tracking_epoch_figures(const struct tw_tracking_session *session, unsigned epoch,
                               struct tw_figures *last)
{
    assert(tw_tracking_epoch_there(session, epoch));
    *last = session->epochs[epoch].figures;
}

size_t tw_tracking_hottest(const struct tw_tracking_session *session, unsigned epoch,
                           struct tw_region *out, size_t max)
{
    assert(tw_tracking_epoch_there(session, epoch));
    const struct tw_epoch *e = &session->epochs[epoch];
    size_t n = tw_regions_hottest(&e->regions, out, max);
    for (size_t i = 0; i < n; i++) {
        const struct tw_region *heard = tw_regions_find(&e->bytes, out[i].address);
        out[i].bytes = heard ? heard->bytes : 0;
    }
    return n;
}

size_t tw_tracking_shared(const struct tw_tracking_session *session, unsigned epoch,
                          struct tw_shared_line *out, size_t max, uint64_t *total)
{
    assert(tw_tracking_epoch_there(session, epoch));
    const struct tw_shared_lines *shared = &session->epochs[epoch].shared;
    *total = shared->total;
    return tw_shared_lines_list(shared, out, max);
}
