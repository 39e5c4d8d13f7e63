/* What a local program's requests do. */
#include "agentd/local_impl.h"

#include "agentd/guests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_PAGES 16384u /* counted in one turn */

static struct tw_local_sums sums_of(const struct tw_figures *f)
{
    return (struct tw_local_sums){
        f->epochs,         f->lines,          f->pages,       f->whole_pages,   f->regions,
        f->regions_lost,   f->duration_ns,    f->known_lines, f->changed_bytes, f->clean_pages,
        f->accessed_lines, f->accessed_pages, f->same_lines};
}

static struct tw_tracking_wish wish_of(uint32_t flags)
{
    return (struct tw_tracking_wish){
        .exact = flags & TW_LOCAL_EXACT,
        .sharing = flags & TW_LOCAL_SHARING,
        .loads = flags & TW_LOCAL_LOADS,
        .bytes = flags & TW_LOCAL_BYTES,
        .kind = flags & TW_LOCAL_PROCESS        ? TW_ATTACHMENT_PROCESS
                : flags & TW_LOCAL_INSTRUMENTED ? TW_ATTACHMENT_INSTRUMENTED
                                                : TW_ATTACHMENT_ANY,
    };
}

static uint32_t flags_of(const struct tw_tracking_session_info *info)
{
    return (info->exact ? TW_LOCAL_EXACT : 0) | (info->sharing ? TW_LOCAL_SHARING : 0) |
           (info->loads ? TW_LOCAL_LOADS : 0) | (info->counts_bytes ? TW_LOCAL_COUNTS_BYTES : 0) |
           (info->attachment->kind == TW_ATTACHMENT_INSTRUMENTED ? TW_LOCAL_INSTRUMENTED
                                                                 : TW_LOCAL_PROCESS);
}

/* ---- Sessions ------------------------------------------------------------------------------- */

static enum tw_code do_catch(struct tw_local_conn *c, struct tw_error *err)
{
    uint64_t pid = c->request.catch.pid;
    const struct tw_tracking_wish wish = wish_of(c->request.catch.flags);
    enum tw_code code = tw_local_may_track(&c->caller, pid, err);
    if (!code && c->caught)
        code = tw_fail(err, TW_FAILED_PRECONDITION, "session", "one program at a time", NULL,
                       "a program is being started already");
    if (!code)
        code = tw_attacher_catch(c->local->attacher, pid, &wish, err);
    if (!code) {
        c->caught = pid;
        tw_local_answer(c, 0);
    }
    return code;
}

static void opened(struct tw_local_conn *c)
{
    struct tw_local_opened *out = tw_local_body(c);
    struct tw_tracking_session_info info;
    tw_tracking_session_info(c->session, &info);
    const struct tw_attachment *at = info.attachment;
    *out =
        (struct tw_local_opened){.session = info.id, .pid = info.pid, .granularity = TW_LINE_SIZE};
    out->flags = flags_of(&info) | (at->same_value_is_dirty ? TW_LOCAL_SAME_VALUE : 0) |
                 (at->whole_pages ? TW_LOCAL_WHOLE_PAGES : 0);
    char *text = (char *)(out + 1);
    size_t room = TW_LOCAL_BODY_MAX - sizeof *out, used = 0;
    for (const char *const *spot = at->blind_spots; spot && *spot && used < room; spot++)
        used += (size_t)snprintf(text + used, room - used, "%s\n", *spot);
    out->text_length = (uint32_t)(used < room ? used : room - 1);
    out->why_length = (uint32_t)strnlen(info.why, room - out->text_length);
    memcpy(text + out->text_length, info.why, out->why_length);
    tw_local_answer(c, sizeof *out + out->text_length + out->why_length);
}

static enum tw_code do_open(struct tw_local_conn *c, struct tw_error *err)
{
    const struct tw_local_open *r = &c->request.open;
    uint64_t pid = r->pid ? r->pid : (uint64_t)c->caller.pid;
    const struct tw_tracking_wish wish = wish_of(r->flags);
    struct tw_range ranges[TW_LOCAL_RANGES_MAX];
    if (c->session)
        return tw_fail(err, TW_FAILED_PRECONDITION, "session", "one for each connection", NULL,
                       "this connection has a session");
    if ((r->flags & TW_LOCAL_CAUGHT) && c->caught != pid)
        return tw_fail(err, TW_FAILED_PRECONDITION, "session", "a program that was caught", NULL,
                       "pid %llu was not", (unsigned long long)pid);
    if (c->caught == pid)
        c->caught = 0; /* the attach takes it */
    enum tw_code code = tw_local_may_track(&c->caller, pid, err);
    if (!code)
        code = tw_tracking_session_open(c->local->tracking, pid, &wish, c->caller.uid, &c->session,
                                        err);
    if (code) {
        tw_attacher_let_go(c->local->attacher, pid);
        return code;
    }
    /* Again, now that the program cannot become another one unnoticed. */
    code = tw_local_may_track(&c->caller, pid, err);
    for (uint32_t i = 0; i < r->range_count; i++)
        ranges[i] = (struct tw_range){c->request.ranges[i].start, c->request.ranges[i].length};
    if (!code)
        code = tw_tracking_watch(c->session, ranges, r->range_count, err);
    if (!code) {
        opened(c);
        return TW_OK;
    }
    tw_tracking_session_close(c->session);
    c->session = NULL;
    return code;
}

/* ---- Epochs --------------------------------------------------------------------------------- */

/* The epoch that a request names, if the session has it. */
static enum tw_code epoch_check(struct tw_local_conn *c, uint32_t epoch, struct tw_error *err)
{
    char given[24];
    snprintf(given, sizeof given, "%u", epoch);
    if (!c->session)
        return tw_fail(err, TW_FAILED_PRECONDITION, "session", "a session", NULL,
                       "this connection has none");
    if (!tw_tracking_epoch_there(c->session, epoch))
        return tw_fail(err, TW_NOT_FOUND, "epoch", NULL, given, "the session has no such epoch");
    return TW_OK;
}

static enum tw_code do_epoch(struct tw_local_conn *c, struct tw_error *err)
{
    struct tw_local_epoch_begun *out = tw_local_body(c);
    enum tw_epoch_state state;
    if (!c->session)
        return epoch_check(c, 0, err);
    if (!c->begun) {
        enum tw_code code =
            tw_tracking_epoch_open(c->session, c->request.epoch.name, &c->arming, err);
        c->begun = code == TW_OK;
        return code;
    }
    enum tw_code code = tw_tracking_epoch_poll(c->session, c->arming, &state, err);
    if (state == TW_EPOCH_ARMING)
        return TW_OK;
    if (code) {
        tw_tracking_epoch_close(c->session, c->arming);
        return code;
    }
    c->cursor[c->arming] = c->cursor_accessed[c->arming] = 0;
    *out = (struct tw_local_epoch_begun){.epoch = c->arming};
    tw_local_answer(c, sizeof *out);
    return TW_OK;
}

static enum tw_code do_collect(struct tw_local_conn *c, struct tw_error *err)
{
    const struct tw_local_epoch_ask *r = &c->request.ask;
    struct tw_local_collected *out = tw_local_body(c);
    enum tw_epoch_state state;
    enum tw_code code = epoch_check(c, r->epoch, err);
    if (code)
        return code;
    if (!c->begun) {
        code = tw_tracking_collect(c->session, r->epoch, r->flags & TW_LOCAL_PACED, err);
        if (code)
            return code;
        c->begun = true;
    }
    code = tw_tracking_epoch_poll(c->session, r->epoch, &state, err);
    if (state == TW_EPOCH_COLLECTING)
        return TW_OK;
    if (code)
        return code;
    /* Never the same for two answers, and never 0; the high half counts collects. */
    c->cursor[r->epoch] = (c->cursor[r->epoch] | UINT32_MAX) + 1;
    c->cursor_accessed[r->epoch] = c->cursor[r->epoch];
    *out = (struct tw_local_collected){.cursor = c->cursor[r->epoch],
                                       .flags = state == TW_EPOCH_ENDED ? TW_LOCAL_ENDED : 0};
    tw_local_answer(c, sizeof *out);
    return TW_OK;
}

/* Loads are told where that was asked for, and nowhere else. */
static enum tw_code loads_check(const struct tw_local_conn *c, struct tw_error *err)
{
    struct tw_tracking_session_info info;
    tw_tracking_session_info(c->session, &info);
    if (info.loads)
        return TW_OK;
    if (!info.attachment->sees_loads)
        return tw_fail(err, TW_UNIMPLEMENTED, "accessed lines", "an attachment that sees loads",
                       "process",
                       "a program that was not compiled for it is seen by its stores only");
    return tw_fail(err, TW_FAILED_PRECONDITION, "accessed lines", "a session opened with them",
                   NULL, "the session is without");
}

static enum tw_code do_read(struct tw_local_conn *c, struct tw_error *err)
{
    const struct tw_local_read *r = &c->request.read;
    const bool accessed = c->request.kind == TW_LOCAL_ACCESSED;
    struct tw_local_lines_head *out = tw_local_body(c);
    struct tw_local_lines *lines = (struct tw_local_lines *)(out + 1);
    struct tw_dirty_lines read[TW_LOCAL_READ_MAX];
    enum tw_code code = epoch_check(c, r->epoch, err);
    if (!code && accessed)
        code = loads_check(c, err);
    if (code)
        return code;
    uint64_t *cursor = accessed ? &c->cursor_accessed[r->epoch] : &c->cursor[r->epoch];
    if (r->cursor == 0 || r->cursor != *cursor)
        return tw_fail(err, TW_OUT_OF_RANGE, "cursor", "that of the last answer", NULL,
                       "not of the lines that are to be read now");
    if (r->max == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, "max", "at least 1", "0", "nothing to fill");
    size_t max = r->max < TW_LOCAL_READ_MAX ? r->max : TW_LOCAL_READ_MAX;
    size_t n = accessed ? tw_tracking_read_accessed(c->session, r->epoch, read, max)
                        : tw_tracking_read(c->session, r->epoch, read, max);
    for (size_t i = 0; i < n; i++)
        lines[i] = (struct tw_local_lines){.address = read[i].address,
                                           .lines = read[i].lines,
                                           .flags = read[i].whole ? TW_LOCAL_WHOLE : 0};
    ++*cursor;
    *out = (struct tw_local_lines_head){.cursor = n < max ? 0 : *cursor, .count = (uint32_t)n};
    tw_local_answer(c, sizeof *out + n * sizeof *lines);
    return TW_OK;
}

static enum tw_code do_figures(struct tw_local_conn *c, struct tw_error *err)
{
    const struct tw_local_epoch_ask *r = &c->request.ask;
    struct tw_local_figures *out = tw_local_body(c);
    struct tw_local_hot *hot = (struct tw_local_hot *)(out + 1);
    struct tw_tracking_session_info info;
    struct tw_region regions[TW_LOCAL_HOT_MAX];
    struct tw_figures last;
    enum tw_code code = epoch_check(c, r->epoch, err);
    if (code)
        return code;
    if (tw_tracking_read(c->session, r->epoch, NULL, DRAIN_PAGES) == DRAIN_PAGES ||
        tw_tracking_read_accessed(c->session, r->epoch, NULL, DRAIN_PAGES) == DRAIN_PAGES) {
        c->begun = true;
        return TW_OK;
    }
    tw_tracking_session_info(c->session, &info);
    tw_tracking_epoch_figures(c->session, r->epoch, &last);
    size_t n = tw_tracking_hottest(c->session, r->epoch, regions, TW_LOCAL_HOT_MAX);
    *out = (struct tw_local_figures){
        .last = sums_of(&last), .total = sums_of(&info.total), .hot_count = (uint32_t)n};
    for (size_t i = 0; i < n; i++)
        hot[i] = (struct tw_local_hot){regions[i].address, regions[i].lines, regions[i].pages,
                                       regions[i].bytes};
    tw_local_answer(c, sizeof *out + n * sizeof *hot);
    return TW_OK;
}

static enum tw_code do_shared(struct tw_local_conn *c, struct tw_error *err)
{
    struct tw_local_shared_head *out = tw_local_body(c);
    struct tw_local_shared *lines = (struct tw_local_shared *)(out + 1);
    struct tw_shared_line found[TW_LOCAL_SHARED_MAX];
    enum tw_code code = epoch_check(c, c->request.ask.epoch, err);
    if (code)
        return code;
    *out = (struct tw_local_shared_head){0};
    out->count = (uint32_t)tw_tracking_shared(c->session, c->request.ask.epoch, found,
                                              TW_LOCAL_SHARED_MAX, &out->total);
    for (uint32_t i = 0; i < out->count; i++) {
        lines[i] = (struct tw_local_shared){.address = found[i].address,
                                            .flags = found[i].disjoint ? TW_LOCAL_FALSELY : 0,
                                            .thread_count = found[i].thread_count};
        for (uint32_t k = 0; k < found[i].thread_count && k < TW_LOCAL_SHARED_THREADS; k++) {
            lines[i].threads[k].tid = found[i].threads[k].tid;
            lines[i].threads[k].pc = found[i].threads[k].pc;
            lines[i].threads[k].bytes = found[i].threads[k].bytes;
        }
    }
    tw_local_answer(c, sizeof *out + out->count * sizeof *lines);
    return TW_OK;
}

static enum tw_code do_epoch_close(struct tw_local_conn *c, struct tw_error *err)
{
    enum tw_code code = epoch_check(c, c->request.ask.epoch, err);
    if (code)
        return code;
    tw_tracking_epoch_close(c->session, c->request.ask.epoch);
    tw_local_answer(c, 0);
    return TW_OK;
}

/* ---- Lists ---------------------------------------------------------------------------------- */

static void program_name(uint64_t pid, char out[16])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%llu/comm", (unsigned long long)pid);
    FILE *f = fopen(path, "re");
    memset(out, 0, 16);
    if (!f)
        return;
    if (fgets(out, 16, f))
        out[strcspn(out, "\n")] = 0;
    fclose(f);
}

static enum tw_code do_list(struct tw_local_conn *c, struct tw_error *err)
{
    struct tw_local_listed *out = tw_local_body(c);
    size_t n = 0;
    (void)err;
    for (struct tw_tracking_session *s = NULL;
         n < TW_LOCAL_LIST_MAX && (s = tw_tracking_next(c->local->tracking, s));) {
        struct tw_tracking_session_info info;
        tw_tracking_session_info(s, &info);
        if (c->caller.uid != 0 && info.owner != c->caller.uid)
            continue;
        out[n] = (struct tw_local_listed){.session = info.id,
                                          .pid = info.pid,
                                          .uid = info.owner,
                                          .shared = info.shared,
                                          .shared_falsely = info.shared_falsely,
                                          .last = sums_of(&info.last),
                                          .total = sums_of(&info.total)};
        out[n].flags = flags_of(&info) | (info.ended ? TW_LOCAL_GONE : 0);
        program_name(info.pid, out[n++].name);
    }
    tw_local_answer(c, n * sizeof *out);
    return TW_OK;
}

/* VMs are the operators'. */
static enum tw_code do_guests(struct tw_local_conn *c, struct tw_error *err)
{
    struct tw_local_guest *out = tw_local_body(c);
    static struct tw_guest_shown shown[TW_GUESTS_SHOWN_MAX]; /* this thread's alone */
    const bool may = c->caller.uid == 0 || c->caller.uid == getuid();
    (void)err;
    size_t n =
        may && c->local->guests ? tw_guests_look(c->local->guests, shown, TW_GUESTS_SHOWN_MAX) : 0;
    for (size_t i = 0; i < n; i++) {
        const struct tw_guest_figures *f = &shown[i].figures;
        out[i] = (struct tw_local_guest){.pid = shown[i].pid,
                                         .own_ns = f->own_ns,
                                         .last = sums_of(&f->last),
                                         .total = sums_of(&f->total),
                                         .hot_count = (uint32_t)f->hot_count};
        snprintf(out[i].name, sizeof out[i].name, "%s", shown[i].name);
        for (size_t k = 0; k < f->hot_count; k++)
            out[i].hot[k] =
                (struct tw_local_hot){f->hot[k].address, f->hot[k].lines, f->hot[k].pages, 0};
    }
    tw_local_answer(c, n * sizeof *out);
    return TW_OK;
}

bool tw_local_work(struct tw_local_conn *c)
{
    static enum tw_code (*const work[TW_LOCAL_KIND_END])(struct tw_local_conn *,
                                                         struct tw_error *) = {
        [TW_LOCAL_CATCH] = do_catch,
        [TW_LOCAL_OPEN] = do_open,
        [TW_LOCAL_EPOCH] = do_epoch,
        [TW_LOCAL_COLLECT] = do_collect,
        [TW_LOCAL_READ] = do_read,
        [TW_LOCAL_FIGURES] = do_figures,
        [TW_LOCAL_EPOCH_CLOSE] = do_epoch_close,
        [TW_LOCAL_ACCESSED] = do_read,
        [TW_LOCAL_LIST] = do_list,
        [TW_LOCAL_GUESTS] = do_guests,
        [TW_LOCAL_SHARED] = do_shared,
    };
    struct tw_error err = {0};
    enum tw_code code = work[c->request.kind](c, &err);
    if (code)
        tw_local_refuse(c, code, &err);
    return c->phase == TW_LOCAL_WORKING && c->request.kind == TW_LOCAL_FIGURES;
}
