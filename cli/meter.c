#include "cli/meter.h"

#include "cli/follow.h"
#include "cli/format.h"

#include "base/clock.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>

#define CALL_MS       120000u /* a paced collect waits for the program's budget */
#define GRACE_MS      2000u   /* beyond --for, for the last epoch */
#define READ_PAGES    4096u
#define CHILD_LOOK_MS 20u
#define EPOCH         "meter"

int tow_client_failed(struct tow *tow, int code)
{
    char safe[640];
    fprintf(tow->err, "%stow:%s %s\n", tow_tone_begin(TOW_TONE_BAD, tow->color_err),
            tow_tone_end(TOW_TONE_BAD, tow->color_err),
            tow_safe_text(towline_last_error(), safe, sizeof safe));
    return (int)tow_exit_of((enum tw_code)code);
}

static void name_read(struct tow_meter *meter)
{
    char path[48], name[64] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)meter->pid);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fgets(name, sizeof name, f))
            name[strcspn(name, "\n")] = 0;
        fclose(f);
    }
    tow_safe_text(name[0] ? name : "?", meter->name, sizeof meter->name);
}

int tow_meter_open(struct tow *tow, struct tow_meter *meter, bool catch)
{
    const struct towline_options options = {.size = sizeof options,
                                            .socket = meter->socket,
                                            .pid = meter->pid,
                                            .exact = meter->exact,
                                            .attachment = meter->attachment,
                                            .sharing = meter->sharing,
                                            .accessed = meter->accessed,
                                            .bytes = meter->bytes,
                                            .timeout_ms = CALL_MS};
    int code = towline_open(&options, &meter->session);
    if (!code && catch)
        code = towline_catch(meter->session);
    return code ? tow_client_failed(tow, code) : TOW_EXIT_OK;
}

bool tow_meter_child_lives(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

/* Which attachment it has become, and why; for people. */
static void kind_told(struct tow *tow, struct tow_meter *meter)
{
    struct towline_info info;
    char why[256];
    meter->kind = "process";
    if (towline_info(meter->session, &info))
        return;
    if (info.attachment == TOWLINE_INSTRUMENTED)
        meter->kind = "instrumented";
    snprintf(meter->why, sizeof meter->why, "%s", tow_safe_text(info.why, why, sizeof why));
    if (!tow->json)
        fprintf(tow->err, "tow: %s, pid %d: %s attachment: %s\n", meter->name, (int)meter->pid,
                meter->kind, meter->why);
}

int tow_meter_start(struct tow *tow, struct tow_meter *meter)
{
    struct towline_info info;
    int code = towline_start(meter->session, EPOCH);
    name_read(meter);
    meter->now_ns = tw_now(&tw_monotonic);
    if (!meter->started_ns) /* else it is met anew */
        meter->started_ns = meter->now_ns;
    meter->until_ns = TW_NEVER;
    if (code == TOWLINE_ABORTED) { /* so short that there was nothing to count */
        meter->ended = true;
        return TOW_EXIT_OK;
    }
    if (code)
        return tow_client_failed(tow, code);
    meter->counts_bytes =
        towline_info(meter->session, &info) == TOWLINE_OK && (info.flags & TOWLINE_COUNTS_BYTES);
    meter->counts_same = meter->counts_bytes && (info.flags & TOWLINE_SAME_VALUE);
    kind_told(tow, meter);
    if (meter->sharing)
        tow_sharing_look(&meter->shared, meter->pid);
    return TOW_EXIT_OK;
}

void tow_meter_close(struct tow_meter *meter)
{
    towline_close(meter->session);
    meter->session = NULL;
}

typedef int (*read_fn)(towline_session *session, const char *epoch, struct towline_lines *lines,
                       size_t max, size_t *count, uint64_t *cursor);

static int keep_heat(struct tow_meter *meter, struct tow_heat *heat, read_fn read, uint64_t cursor)
{
    static struct towline_lines lines[READ_PAGES];
    int code = TOWLINE_OK;
    while (heat && cursor && !code) {
        size_t count;
        code = read(meter->session, EPOCH, lines, READ_PAGES, &count, &cursor);
        for (size_t i = 0; i < count && !code; i++)
            tow_heat_add(heat, lines[i].address, (unsigned)__builtin_popcountll(lines[i].lines));
    }
    return code;
}

static void end_heat(const struct tow_meter *meter)
{
    const struct towline_sums *s = &meter->last;
    struct tow_heat_epoch epoch = {.end_ms = (meter->now_ns - meter->started_ns) / TW_MS,
                                   .lines = s->lines,
                                   .pages = s->pages,
                                   .regions = s->regions,
                                   .whole_pages = s->whole_pages};
    if (meter->heat)
        tow_heat_epoch_end(meter->heat, epoch);
    epoch.lines = s->accessed_lines;
    epoch.pages = s->accessed_pages;
    if (meter->heat_accessed)
        tow_heat_epoch_end(meter->heat_accessed, epoch);
}

static int count_epoch(struct tow_meter *meter, uint64_t cursor)
{
    int code = keep_heat(meter, meter->heat, towline_dirty, cursor);
    if (!code)
        code = keep_heat(meter, meter->heat_accessed, towline_accessed, cursor);
    if (!code)
        code = towline_figures(meter->session, EPOCH, &meter->last, &meter->total, meter->hot,
                               TOW_METER_HOT, &meter->hot_count);
    if (!code && meter->sharing)
        code = tow_sharing_take(&meter->shared, meter->session, EPOCH, meter->pid);
    meter->now_ns = tw_now(&tw_monotonic);
    if (!code)
        end_heat(meter);
    return code;
}

static void on_alarm(int number)
{
    (void)number; /* it is there to end a wait */
}

void tow_meter_limit(struct tow_meter *meter, unsigned for_ms)
{
    struct sigaction action = {.sa_handler = on_alarm};
    const unsigned wait_ms = for_ms + GRACE_MS;
    /* Again and again, for the first one may come just before a wait. */
    const struct itimerval timer = {
        .it_value = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000},
        .it_interval = {.tv_usec = 100000}};
    meter->until_ns = tw_after(meter->started_ns, for_ms * TW_MS);
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Until the epoch's time is over, or the child is. */
static void epoch_wait(const struct tow_meter *meter, uint64_t due_ns)
{
    uint64_t now;
    while (!tow_interrupted() && (now = tw_now(&tw_monotonic)) < due_ns) {
        unsigned ms = (unsigned)((due_ns - now) / TW_MS) + 1;
        if (meter->child && !tow_meter_child_lives(meter->child))
            return;
        tow_sleep_ms(meter->child && ms > CHILD_LOOK_MS ? CHILD_LOOK_MS : ms);
    }
}

int tow_meter_next(struct tow *tow, struct tow_meter *meter, bool *counted)
{
    uint64_t cursor = 0;
    uint32_t ended = 0;
    uint64_t due = tw_after(meter->now_ns, meter->every_ms * TW_MS);
    *counted = false;
    if (due > meter->until_ns)
        due = meter->until_ns;
    epoch_wait(meter, due);
    if (tow_interrupted())
        return TOW_EXIT_OK;
    int code = towline_collect(meter->session, EPOCH, TOWLINE_PACED | TOWLINE_INTERRUPTIBLE,
                               &cursor, &ended);
    if (code == TOWLINE_CANCELLED)
        return TOW_EXIT_OK;
    if (code == TOWLINE_ABORTED) {
        meter->ended = true;
        return TOW_EXIT_OK;
    }
    if (!code)
        code = count_epoch(meter, cursor);
    if (code)
        return tow_client_failed(tow, code);
    meter->ended = ended & TOWLINE_ENDED;
    *counted = true;
    return TOW_EXIT_OK;
}

/* ---- Following ------------------------------------------------------------------------------ */

static void show(struct tow *tow, struct tow_meter *meter, struct tow_redraw *redraw)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    if (tow->json)
        tow_meter_print_json(meter, out);
    else if (redraw->terminal)
        tow_meter_print_block(meter, out);
    else
        tow_meter_print_line(meter, out);
    fclose(out);
    if (tow->json) {
        fputs(text, redraw->out);
        fflush(redraw->out);
    } else {
        tow_redraw_show(redraw, text);
    }
    free(text);
}

int tow_meter_follow(struct tow *tow, struct tow_meter *meter, FILE *out)
{
    struct tow_redraw redraw;
    bool going = true;
    bool counted;
    tow_redraw_init(&redraw, out);
    while (going && !meter->ended && !ferror(out) && meter->now_ns < meter->until_ns) {
        int status = tow_meter_next(tow, meter, &counted);
        if (status)
            return status;
        going = counted;
        if (counted)
            show(tow, meter, &redraw);
    }
    if (!tow->json)
        tow_meter_print_summary(meter, out);
    return TOW_EXIT_OK;
}
