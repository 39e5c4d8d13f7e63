#include "cli/progress.h"

#include "cli/format.h"
#include "cli/json.h"
#include "cli/outcome.h"
#include "cli/table.h"
#include "rpc/rpc.h"

#include "base/clock.h"
#include "base/units.h"

#include <string.h>
#include <unistd.h>

#define LINE_EVERY_NS (3 * TW_SEC)
#define BAR_COLUMNS   30u
#define BLOCK_LINES   7u
#define BLOCK_TEXT    512u

static const Towline__V1__MigrationProgress *progress_of(const Towline__V1__Migration *migration)
{
    static const Towline__V1__MigrationProgress empty = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    return migration->progress ? migration->progress : &empty;
}

static const char *state_name(const Towline__V1__Migration *migration, char out[TOW_ENUM_TEXT])
{
    return tow_enum_name(&towline__v1__migration_state__descriptor, (int)migration->state, out);
}

bool tow_migration_ended(const Towline__V1__Migration *migration)
{
    switch (migration->state) {
    case TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED:
    case TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_CANCELLED:
    case TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED:
    case TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_LOST:
        return true;
    default:
        return false;
    }
}

void tow_progress_init(struct tow_progress *progress, FILE *out, bool color)
{
    *progress = (struct tow_progress){.out = out, .color = color, .columns = 80};
    progress->terminal = isatty(fileno(out));
    if (progress->terminal)
        progress->columns = (unsigned)tow_terminal_width(out);
}

/* ---- Pieces --------------------------------------------------------------------------------- */

static unsigned percent(const Towline__V1__MigrationProgress *p)
{
    if (p->memory_bytes == 0)
        return 0;
    uint64_t done =
        p->full_copy_bytes_done < p->memory_bytes ? p->full_copy_bytes_done : p->memory_bytes;
    return (unsigned)(done * 100 / p->memory_bytes);
}

static const char *bar(unsigned percent_done, char out[BAR_COLUMNS + 1])
{
    unsigned filled = percent_done * BAR_COLUMNS / 100;
    memset(out, '-', BAR_COLUMNS);
    memset(out, '#', filled);
    out[BAR_COLUMNS] = 0;
    return out;
}

static const char *eta_text(const Towline__V1__MigrationProgress *p, bool up,
                            char out[TOW_TIME_TEXT])
{
    char duration[TW_SIZE_TEXT];
    if (p->eta_ms == 0)
        snprintf(out, TOW_TIME_TEXT, "not in sight");
    else
        snprintf(out, TOW_TIME_TEXT, "in %s%s", tw_duration_format(p->eta_ms * TW_MS, duration),
                 up ? " (longer than thought)" : "");
    return out;
}

struct figures {
    char sent[TW_SIZE_TEXT], pages[TW_SIZE_TEXT], rate[TW_SIZE_TEXT], dirty[TW_SIZE_TEXT];
    char times[TOW_TIME_TEXT], eta[TOW_TIME_TEXT];
};

static void figures_make(const Towline__V1__MigrationProgress *p, bool eta_up, struct figures *f)
{
    tw_size_format(p->bytes_sent, f->sent);
    tw_size_format(p->bytes_if_pages, f->pages);
    tw_size_format(p->rate_bytes_per_s, f->rate);
    tw_size_format(p->dirty_bytes_per_s, f->dirty);
    tow_times_format(p->bytes_if_pages, p->bytes_sent, f->times);
    eta_text(p, eta_up, f->eta);
}

/* ---- Block on a terminal -------------------------------------------------------------------- */

struct block {
    char lines[BLOCK_LINES][BLOCK_TEXT];
    unsigned count;
};

static char *block_line(struct block *block)
{
    return block->lines[block->count++];
}

static void pace_line(const Towline__V1__MigrationProgress *p, char line[BLOCK_TEXT])
{
    char delay[TW_SIZE_TEXT];
    snprintf(line, BLOCK_TEXT,
             "pacing     writers of %llu hot lines are slowed by %s a line, %u.%u %% of the time "
             "so far (budget %u %%)",
             (unsigned long long)p->paced_lines, tw_duration_format(p->pace_delay_ns, delay),
             p->pace_share_permille / 10, p->pace_share_permille % 10,
             p->pace_budget_permille / 10);
}

static void block_make(const struct tow_progress *progress, const Towline__V1__Migration *m,
                       uint64_t away_ms, struct block *block)
{
    const Towline__V1__MigrationProgress *p = progress_of(m);
    const Towline__V1__Round *round = p->n_rounds ? p->rounds[p->n_rounds - 1] : NULL;
    char state[TOW_ENUM_TEXT], drawn[BAR_COLUMNS + 1], done[TW_SIZE_TEXT], all[TW_SIZE_TEXT];
    char away[TW_SIZE_TEXT];
    struct figures f;
    figures_make(p, progress->eta_up, &f);
    block->count = 0;
    snprintf(block_line(block), BLOCK_TEXT, "%s  vm %s  %s -> %s  %s%s%s%s%s", m->id, m->vm,
             m->source, m->destination, state_name(m, state), p->phase[0] ? " (" : "", p->phase,
             p->phase[0] ? ")" : "", m->cancel_requested ? ", cancel asked for" : "");
    snprintf(block_line(block), BLOCK_TEXT, "full copy  [%s] %3u %%  %s of %s",
             bar(percent(p), drawn), percent(p), tw_size_format(p->full_copy_bytes_done, done),
             tw_size_format(p->memory_bytes, all));
    if (round)
        snprintf(block_line(block), BLOCK_TEXT,
                 "round %-4u %llu lines in %llu pages sent, %llu lines dirty", round->index,
                 (unsigned long long)round->lines, (unsigned long long)round->pages,
                 (unsigned long long)p->lines_dirty);
    snprintf(block_line(block), BLOCK_TEXT, "sent       %s; pages would have cost %s (%s)", f.sent,
             f.pages, f.times);
    snprintf(block_line(block), BLOCK_TEXT, "rate       %s/s, dirtied %s/s, switch-over %s", f.rate,
             f.dirty, f.eta);
    if (p->pace_delay_ns)
        pace_line(p, block_line(block));
    if (away_ms)
        snprintf(block_line(block), BLOCK_TEXT, "controller has not answered for %s",
                 tw_duration_format(away_ms / 100 * 100 * TW_MS, away));
}

/* As much of `text` as fits the terminal: a wrapped line would make the next drawing climb. */
static void print_fitting(const struct tow_progress *progress, const char *text)
{
    char safe[BLOCK_TEXT], one[8];
    unsigned width = 0;
    tow_safe_text(text, safe, sizeof safe);
    for (const char *p = safe; *p;) {
        size_t length = tow_utf8_length(p);
        memcpy(one, p, length);
        one[length] = 0;
        width += (unsigned)tow_text_width(one);
        if (width >= progress->columns)
            break;
        fputs(one, progress->out);
        p += length;
    }
}

void tow_progress_clear(struct tow_progress *progress)
{
    for (; progress->lines_drawn > 0; progress->lines_drawn--)
        fputs("\033[A\r\033[K", progress->out);
    fflush(progress->out);
}

static void block_draw(struct tow_progress *progress, const Towline__V1__Migration *migration,
                       uint64_t away_ms)
{
    struct block block;
    block_make(progress, migration, away_ms, &block);
    tow_progress_clear(progress);
    for (unsigned i = 0; i < block.count; i++) {
        enum tow_tone tone = i == 0 ? TOW_TONE_TITLE : TOW_TONE_PLAIN;
        fputs(tow_tone_begin(tone, progress->color), progress->out);
        print_fitting(progress, block.lines[i]);
        fprintf(progress->out, "%s\n", tow_tone_end(tone, progress->color));
    }
    progress->lines_drawn = block.count;
    fflush(progress->out);
}

/* ---- Lines elsewhere ------------------------------------------------------------------------ */

static void line_print(struct tow_progress *progress, const Towline__V1__Migration *m,
                       uint64_t away_ms)
{
    const Towline__V1__MigrationProgress *p = progress_of(m);
    char state[TOW_ENUM_TEXT], away[TW_SIZE_TEXT], line[BLOCK_TEXT], safe[BLOCK_TEXT];
    struct figures f;
    figures_make(p, progress->eta_up, &f);
    if (away_ms)
        snprintf(line, sizeof line, "%s: controller has not answered for %s", m->id,
                 tw_duration_format(away_ms / 100 * 100 * TW_MS, away));
    else
        snprintf(line, sizeof line,
                 "%s: %s%s%s, full copy %u %%, %zu rounds, sent %s (pages: %s), rate %s/s, "
                 "dirtied %s/s, switch-over %s",
                 m->id, state_name(m, state), p->phase[0] ? ", " : "", p->phase, percent(p),
                 p->n_rounds, f.sent, f.pages, f.rate, f.dirty, f.eta);
    fprintf(progress->out, "%s\n", tow_safe_text(line, safe, sizeof safe));
    if (p->pace_delay_ns && !away_ms) {
        pace_line(p, line);
        fprintf(progress->out, "%s: %s\n", m->id, line);
    }
    fflush(progress->out);
}

void tow_progress_show(struct tow_progress *progress, const Towline__V1__Migration *migration,
                       uint64_t away_ms)
{
    uint64_t now_ns = tw_now(&tw_monotonic), eta_ms = progress_of(migration)->eta_ms;
    progress->eta_up = eta_ms > progress->last_eta_ms && progress->last_eta_ms > 0;
    progress->last_eta_ms = eta_ms;
    if (progress->terminal) {
        block_draw(progress, migration, away_ms);
        return;
    }
    if (now_ns < progress->next_line_ns && (int)migration->state == progress->last_state)
        return;
    progress->next_line_ns = now_ns + LINE_EVERY_NS;
    progress->last_state = (int)migration->state;
    line_print(progress, migration, away_ms);
}

/* ---- At the end ----------------------------------------------------------------------------- */

static void print_rounds(const Towline__V1__MigrationProgress *p, bool color, FILE *out)
{
    static const struct tow_column columns[] = {{"ROUND", false}, {"LINES", true}, {"ZERO", true},
                                                {"PAGES", true},  {"BYTES", true}, {"TIME", true}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < p->n_rounds; i++) {
        const Towline__V1__Round *r = p->rounds[i];
        char size[TW_SIZE_TEXT], time[TW_SIZE_TEXT];
        tow_table_add(&table, TOW_TONE_PLAIN, "%u%s", r->index,
                      r->final ? " (stopped)" : (r->index == 0 ? " (full copy)" : ""));
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)r->lines);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)r->zero_lines);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)r->pages);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(r->bytes, size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tw_duration_format(r->duration_us * TW_US, time));
    }
    if (p->n_rounds > 0) {
        tow_table_print(&table, color, out);
        fputc('\n', out);
    }
    tow_table_free(&table);
}

static void print_times(const Towline__V1__MigrationProgress *p, FILE *out)
{
    char text[TW_SIZE_TEXT];
    if (p->downtime_us) {
        fprintf(out, "downtime       %s", tw_duration_format(p->downtime_us * TW_US, text));
        fprintf(out, " (stop %s", tw_duration_format(p->stop_us * TW_US, text));
        fprintf(out, ", last lines %s",
                tw_duration_format((p->final_pass_us - p->compare_us) * TW_US, text));
        fprintf(out, ", compare %s", tw_duration_format(p->compare_us * TW_US, text));
        fprintf(out, ", device state %s", tw_duration_format(p->device_state_us * TW_US, text));
        fprintf(out, ", hand-over %s)\n", tw_duration_format(p->hand_over_us * TW_US, text));
    }
    if (p->hook_us)
        fprintf(out, "hook           %s\n", tw_duration_format(p->hook_us * TW_US, text));
    if (p->paused_us)
        fprintf(out, "paused         %s%s\n", tw_duration_format(p->paused_us * TW_US, text),
                p->paused ? ", and still is" : "");
    if (p->total_us)
        fprintf(out, "total          %s\n", tw_duration_format(p->total_us * TW_US, text));
}

/* Writers of hot lines that are slowed, or were. */
static void print_pacing(const Towline__V1__MigrationProgress *p, FILE *out)
{
    char line[BLOCK_TEXT], safe[BLOCK_TEXT], time[TW_SIZE_TEXT], waited[TW_SIZE_TEXT];
    if (p->pace_delay_ns) {
        pace_line(p, line);
        fprintf(out, "pacing         %s\n", line + strlen("pacing     "));
    }
    if (p->paced_lines_most || p->pace_us) {
        fprintf(out, "slowed         writers of up to %llu hot lines for %s",
                (unsigned long long)p->paced_lines_most,
                tw_duration_format(p->pace_us * TW_US, time));
        fprintf(out, ": %s waited, %u.%u %% of it, in %llu waits\n",
                tw_duration_format(p->pace_wait_us * TW_US, waited), p->pace_share_permille / 10,
                p->pace_share_permille % 10, (unsigned long long)p->pace_waits);
    }
    if (p->pace_reason[0])
        fprintf(out, "slowed because %s\n", tow_safe_text(p->pace_reason, safe, sizeof safe));
}

/* What followed the VM. */
static void print_followed(const Towline__V1__MigrationProgress *p, FILE *out)
{
    char text[TW_SIZE_TEXT];
    if (p->method != TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY &&
        p->method != TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID)
        return;
    fprintf(out, "followed       %llu lines", (unsigned long long)p->lines_to_come);
    fprintf(out, ", %llu of them (%s) because the guest waited",
            (unsigned long long)p->lines_on_demand, tw_size_format(p->bytes_on_demand, text));
    if (p->lines_left)
        fprintf(out, "; %llu are left", (unsigned long long)p->lines_left);
    if (p->fetch_us)
        fprintf(out, "; all there %s after the resume",
                tw_duration_format(p->fetch_us * TW_US, text));
    fprintf(out, "\nwaits          %llu", (unsigned long long)p->faults);
    if (p->fault_p50_us)
        fprintf(out, ", half of them under %s", tw_duration_format(p->fault_p50_us * TW_US, text));
    if (p->fault_p99_us)
        fprintf(out, ", 99 of 100 under %s", tw_duration_format(p->fault_p99_us * TW_US, text));
    fputc('\n', out);
    if (!*p->predictor)
        return;
    char safe[64];
    fprintf(out, "predictor      %s: %llu pages ahead of their turn",
            tow_safe_text(p->predictor, safe, sizeof safe), (unsigned long long)p->pages_ahead);
    if (p->pages_watched)
        fprintf(out, "; accuracy %u %%, coverage %u %%, timeliness %u %%", p->accuracy_percent,
                p->coverage_percent, p->timeliness_percent);
    fputc('\n', out);
}

/* The path between the hosts, lost while memory follows. */
static void print_path(const Towline__V1__MigrationProgress *p, FILE *out)
{
    char text[TW_SIZE_TEXT];
    if (p->path_lost_ms) {
        fprintf(out, "waiting        for the path since %s",
                tw_duration_format(p->path_lost_ms * TW_MS, text));
        if (p->path_left_ms)
            fprintf(out, " (%llu s left)\n", (unsigned long long)(p->path_left_ms + 999) / 1000);
        else
            fprintf(out, "; no more is tried: tow migration reconnect\n");
    }
    if (p->reconnects)
        fprintf(out, "reconnected    %llu times, %s without a path, %llu lines sent again\n",
                (unsigned long long)p->reconnects,
                tw_duration_format(p->path_waited_ms * TW_MS, text),
                (unsigned long long)p->lines_again);
}

/* What a third host keeps. */
static void print_mirror(const Towline__V1__MigrationProgress *p, FILE *out)
{
    static const char *const states[] = {NULL,
                                         "fills: the VM does not move before it holds all",
                                         "holds all that follows",
                                         "serves the destination, which has lost the source",
                                         "does not answer",
                                         "lost: no longer mirrored",
                                         "released",
                                         "none: the VM moves without one"};
    char safe[BLOCK_TEXT];
    char text[TW_SIZE_TEXT];
    if ((size_t)p->mirror_state >= sizeof states / sizeof *states || !states[p->mirror_state])
        return;
    fprintf(out, "mirror         %s", states[p->mirror_state]);
    if (p->mirror_state != TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_WITHOUT)
        fprintf(out, "; %llu lines, %s", (unsigned long long)p->mirror_lines,
                tw_size_format(p->mirror_bytes, text));
    if (p->mirror_us)
        fprintf(out, "; the switch waited %s for it",
                tw_duration_format(p->mirror_us * TW_US, text));
    if (p->mirror_reason[0])
        fprintf(out, ": %s", tow_safe_text(p->mirror_reason, safe, sizeof safe));
    fputs(p->from_mirror ? "; the rest came from it\n" : "\n", out);
}

static void print_figures(const Towline__V1__MigrationProgress *p, FILE *out)
{
    char text[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
    if (*p->fabric) {
        char line[BLOCK_TEXT], safe[BLOCK_TEXT];
        snprintf(line, sizeof line, "%s: %s", p->fabric, p->fabric_reason);
        fprintf(out, "path           %s\n", tow_safe_text(line, safe, sizeof safe));
    }
    fprintf(out, "sent           %s", tw_size_format(p->bytes_sent, text));
    fprintf(out, ", device state %s of it\n", tw_size_format(p->bytes_device_state, text));
    fprintf(out, "as pages       %s", tw_size_format(p->bytes_if_pages, text));
    fprintf(out, " (%s as much)\n", tow_times_format(p->bytes_if_pages, p->bytes_sent, times));
    print_times(p, out);
    print_pacing(p, out);
    print_followed(p, out);
    print_path(p, out);
    print_mirror(p, out);
    if (p->memory_compared)
        fprintf(out, "memory         compared, %s\n", p->memory_equal ? "equal" : "NOT EQUAL");
    else
        fputs("memory         not compared\n", out);
    fprintf(out, "compare only   %llu lines that no store event had reported\n",
            (unsigned long long)p->lines_found_by_compare_only);
}

/* Which method, and why when it was chosen. */
static void print_choice(const Towline__V1__Migration *m, FILE *out)
{
    char text[BLOCK_TEXT], safe[BLOCK_TEXT];
    for (size_t i = 0; i < m->n_reasons; i++) {
        if (strcmp(m->reasons[i]->rule, "choice") != 0)
            continue;
        snprintf(text, sizeof text, "%s; see: tow migration why %s", m->reasons[i]->text, m->id);
        fprintf(out, "method         %s\n", tow_safe_text(text, safe, sizeof safe));
    }
    if (m->plan[0])
        fprintf(out, "plan           %s\n", tow_safe_text(m->plan, safe, sizeof safe));
}

void tow_migration_print(const Towline__V1__Migration *m, bool color, FILE *out)
{
    const Towline__V1__MigrationProgress *p = progress_of(m);
    char state[TOW_ENUM_TEXT], line[BLOCK_TEXT], safe[BLOCK_TEXT];
    state_name(m, state);
    enum tow_tone tone = tow_tone_of_state(state);
    snprintf(line, sizeof line, "%s  vm %s  %s -> %s  ", m->id, m->vm, m->source, m->destination);
    fprintf(out, "%s%s%s%s", tow_safe_text(line, safe, sizeof safe), tow_tone_begin(tone, color),
            state, tow_tone_end(tone, color));
    fprintf(out, "%s\n",
            m->cancel_requested && !tow_migration_ended(m) ? ", cancel asked for" : "");
    if (m->error) {
        struct tw_error err;
        tw_error_from_proto(m->error, &err);
        fprintf(out, "because        %s\n",
                tow_safe_text(tw_error_text(&err, line, sizeof line), safe, sizeof safe));
    }
    fputc('\n', out);
    print_rounds(p, color, out);
    print_figures(p, out);
    print_choice(m, out);
    tow_forecast_print(m, color, out);
    tow_audit_print(m, color, out);
}
