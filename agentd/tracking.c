#include "agentd/tracking_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

#define MAILBOX_CAPACITY 32u
#define SLICE            (2 * TW_MS)
#define TURN_IDLE        (200 * TW_MS)
#define PAGE_DEADLINE    (2 * TW_SEC)

static void wait_ready(struct tw_agent_tracking *t, uint64_t until_ns)
{
    struct pollfd fds[3 + TW_LOCAL_CONNECTIONS_MAX];
    nfds_t n = t->local ? tw_local_poll(t->local, fds) : 0;
    fds[n++] = (struct pollfd){.fd = tw_mailbox_fd(t->mailbox), .events = POLLIN};
    if (t->attacher.lobby)
        fds[n++] = (struct pollfd){.fd = tw_lobby_fd(t->attacher.lobby), .events = POLLIN};
    uint64_t now = tw_now(&tw_monotonic);
    uint64_t wait = until_ns > now ? until_ns - now : 0;
    if (wait > TURN_IDLE)
        wait = TURN_IDLE;
    const struct timespec time = {.tv_nsec = (long)wait};
    ppoll(fds, n, &time, NULL);
}

static void turn(struct tw_agent_tracking *t)
{
    uint64_t now = tw_now(&tw_monotonic);
    tw_mailbox_run(t->mailbox, t);
    if (t->attacher.lobby)
        tw_lobby_serve(t->attacher.lobby, now);
    bool more = t->local && tw_local_serve(t->local, now);
    uint64_t due = tw_operated_step(t, now);
    uint64_t next = tw_tracking_step(t->tracking, SLICE);
    /* What a pass has just completed is answered at once. */
    if (t->local && next != TW_NEVER)
        more |= tw_local_serve(t->local, now);
    tw_attacher_tidy(&t->attacher, now);
    if (due < next)
        next = due;
    wait_ready(t, more ? 0 : next);
}

static void *run(void *arg)
{
    struct tw_agent_tracking *t = arg;
    while (!atomic_load(&t->stopping))
        turn(t);
    tw_mailbox_shut(t->mailbox);
    return NULL;
}

enum tw_code tw_agent_tracking_open(const struct tw_agent_tracking_config *config,
                                    struct tw_agent_tracking **tracking, struct tw_error *err)
{
    struct tw_agent_tracking *t = calloc(1, sizeof *t);
    if (!t)
        return tw_fail_errno(err, ENOMEM, "tracking", "cannot start");
    const struct tw_tracking_env env = {&tw_monotonic, tw_attacher_choose, tw_attacher_attach,
                                        &t->attacher};
    t->attacher.copy_bytes_max = config->copy_bytes_max;
    t->mailbox = tw_mailbox_open(MAILBOX_CAPACITY);
    enum tw_code code = t->mailbox ? tw_tracking_open(&env, &t->tracking, err)
                                   : tw_fail_errno(err, ENOMEM, "tracking", "cannot start");
    if (!code && config->instrumented[0])
        code = tw_lobby_open(config->instrumented, &t->attacher.lobby, err);
    if (!code && config->socket[0])
        code = tw_local_open(config->socket, t->tracking, &t->attacher, &t->local, err);
    if (!code && t->local)
        tw_local_show_guests(t->local, config->guests);
    if (!code && pthread_create(&t->thread, NULL, run, t) != 0)
        code = tw_fail_errno(err, EAGAIN, "tracking", "no thread");
    if (code) {
        tw_agent_tracking_close(t);
        return code;
    }
    t->thread_runs = true;
    if (t->local)
        tw_log(TW_LOG_INFO, "tracking", "serving local programs", "socket=%s", config->socket);
    *tracking = t;
    return TW_OK;
}

void tw_agent_tracking_close(struct tw_agent_tracking *tracking)
{
    if (!tracking)
        return;
    atomic_store(&tracking->stopping, true);
    if (tracking->thread_runs)
        pthread_join(tracking->thread, NULL);
    tw_operated_close_all(tracking);
    tw_local_close(tracking->local);
    tw_tracking_close(tracking->tracking);
    tw_attacher_tidy(&tracking->attacher, TW_NEVER);
    tw_lobby_close(tracking->attacher.lobby);
    tw_mailbox_close(tracking->mailbox);
    free(tracking);
}

/* ---- Metrics -------------------------------------------------------------------------------- */

static void family(FILE *out, const char *name, const char *help)
{
    fprintf(out, "# HELP towline_agent_tracking_%s %s\n# TYPE towline_agent_tracking_%s counter\n",
            name, help, name);
}

/* What is not known of a session has no sample. */
static bool always(const struct tw_tracking_session_info *info)
{
    (void)info;
    return true;
}

static bool counts_bytes(const struct tw_tracking_session_info *info)
{
    return info->counts_bytes;
}

static bool counts_clean(const struct tw_tracking_session_info *info)
{
    return info->counts_bytes && !info->counts_same;
}

static bool counts_same(const struct tw_tracking_session_info *info)
{
    return info->counts_same;
}

static bool counts_loads(const struct tw_tracking_session_info *info)
{
    return info->loads;
}

static const struct {
    const char *name, *help;
    size_t offset;
    bool (*known)(const struct tw_tracking_session_info *info);
} columns[] = {
    {"epochs_total", "Epochs collected.", offsetof(struct tw_figures, epochs), always},
    {"lines_total", "Dirty lines of 64 bytes, summed over epochs.",
     offsetof(struct tw_figures, lines), always},
    {"pages_total", "Pages of 4 KiB with a dirty line, summed over epochs.",
     offsetof(struct tw_figures, pages), always},
    {"whole_pages_total", "Of these, pages whose lines were not known.",
     offsetof(struct tw_figures, whole_pages), always},
    {"regions_total", "Regions of 2 MiB with a dirty line, summed over epochs.",
     offsetof(struct tw_figures, regions), always},
    {"compared_lines_total", "Of the dirty lines, those whose contents were compared.",
     offsetof(struct tw_figures, known_lines), counts_bytes},
    {"changed_bytes_total", "Bytes that changed in the compared lines.",
     offsetof(struct tw_figures, changed_bytes), counts_bytes},
    {"accessed_lines_total", "Lines loaded or stored to, of sessions that ask for them.",
     offsetof(struct tw_figures, accessed_lines), counts_loads},
    {"accessed_pages_total", "Pages of 4 KiB with such a line.",
     offsetof(struct tw_figures, accessed_pages), counts_loads},
    {"clean_pages_total", "Pages written in vain: equal in every byte afterwards.",
     offsetof(struct tw_figures, clean_pages), counts_clean},
    {"same_lines_total", "Of the compared lines, those stored to in vain: as they were.",
     offsetof(struct tw_figures, same_lines), counts_same},
};

static enum tw_code metrics_on_thread(void *owner, void *arg, struct tw_error *err)
{
    const struct tw_agent_tracking *t = owner;
    FILE *out = arg;
    unsigned count = 0;
    (void)err;
    for (struct tw_tracking_session *s = NULL; (s = tw_tracking_next(t->tracking, s));)
        count++;
    fprintf(out,
            "# HELP towline_agent_tracking_sessions Tracking sessions.\n"
            "# TYPE towline_agent_tracking_sessions gauge\ntowline_agent_tracking_sessions %u\n",
            count);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        family(out, columns[i].name, columns[i].help);
        for (struct tw_tracking_session *s = NULL; (s = tw_tracking_next(t->tracking, s));) {
            struct tw_tracking_session_info info;
            tw_tracking_session_info(s, &info);
            if (!columns[i].known(&info))
                continue;
            const char *at = (const char *)&info.total + columns[i].offset;
            fprintf(out, "towline_agent_tracking_%s{session=\"%llu\",pid=\"%llu\"} %llu\n",
                    columns[i].name, (unsigned long long)info.id, (unsigned long long)info.pid,
                    (unsigned long long)*(const uint64_t *)(const void *)at);
        }
    }
    return TW_OK;
}

void tw_agent_tracking_metrics(struct tw_agent_tracking *tracking, FILE *out)
{
    tw_mailbox_call(tracking->mailbox, metrics_on_thread, out,
                    tw_after(tw_now(&tw_monotonic), PAGE_DEADLINE), NULL);
}
