#include "cli/command.h"
#include "cli/follow.h"
#include "cli/format.h"
#include "cli/json.h"
#include "cli/meter.h"
#include "cli/options.h"
#include "cli/table.h"

#include "base/clock.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdlib.h>

#define SESSIONS_MAX   64u
#define GUESTS_MAX     64u
#define EVERY_MS       1000u
#define LINES_PER_PAGE (TOW_PAGE_BYTES / TOW_LINE_BYTES)

static double rate_of(const struct towline_listed *l)
{
    return l->last.duration_ns ? (double)l->last.lines * 1e9 / (double)l->last.duration_ns : 0;
}

static int busiest_first(const void *a, const void *b)
{
    const struct towline_listed *x = a, *y = b;
    double left = rate_of(x), right = rate_of(y);
    if (left != right)
        return left < right ? 1 : -1;
    return (x->session > y->session) - (x->session < y->session);
}

static void add_changed(struct tow_table *table, enum tow_tone tone, const struct towline_listed *l)
{
    char size[TW_SIZE_TEXT];
    double rate =
        l->last.duration_ns ? (double)l->last.changed_bytes * 1e9 / (double)l->last.duration_ns : 0;
    if (l->counts_bytes)
        tow_table_add(table, tone, "%s/s", tw_size_format((uint64_t)rate, size));
    else
        tow_table_add(table, tone, "-");
}

/* Contents are compared, and each store is seen. */
static bool counts_same(const struct towline_listed *l)
{
    return l->counts_bytes && l->attachment == TOWLINE_INSTRUMENTED;
}

/* Of the lines that were stored to and compared, those that hold what they held. */
static void add_same(struct tow_table *table, enum tow_tone tone, const struct towline_listed *l)
{
    if (counts_same(l) && l->last.known_lines)
        tow_table_add(table, tone, "%" PRIu64 " %%",
                      l->last.same_lines * 100 / l->last.known_lines);
    else
        tow_table_add(table, tone, "-");
}

/* Lines loaded or stored to, and how much of their pages that is. */
static void add_accessed(struct tow_table *table, enum tow_tone tone,
                         const struct towline_listed *l)
{
    const struct towline_sums *s = &l->last;
    if (!l->accessed || !s->duration_ns) {
        tow_table_add(table, tone, "-");
        tow_table_add(table, tone, "-");
        return;
    }
    tow_table_add(table, tone, "%.0f", (double)s->accessed_lines * 1e9 / (double)s->duration_ns);
    if (s->accessed_pages)
        tow_table_add(table, tone, "%" PRIu64 " %%",
                      s->accessed_lines * 100 / (s->accessed_pages * LINES_PER_PAGE));
    else
        tow_table_add(table, tone, "-");
}

static void add_clean(struct tow_table *table, enum tow_tone tone, const struct towline_listed *l)
{
    uint64_t written = l->last.pages + l->last.clean_pages;
    if (l->counts_bytes && !counts_same(l) && written)
        tow_table_add(table, tone, "%" PRIu64 " %%", l->last.clean_pages * 100 / written);
    else
        tow_table_add(table, tone, "-");
}

static const char *state_of(const struct towline_listed *l)
{
    return l->ended                                ? "ended"
           : l->attachment == TOWLINE_INSTRUMENTED ? "instrumented"
           : l->exact                              ? "exact"
                                                   : "tracked";
}

static void print_table(const struct towline_listed *l, size_t count, bool color, FILE *out)
{
    static const struct tow_column columns[] = {
        {"PID", true},     {"PROGRAM", false}, {"UID", true},        {"LINES/S", true},
        {"WRITTEN", true}, {"CHANGED", true},  {"4 KIB", true},      {"2 MIB", true},
        {"CLEAN", true},   {"SAME", true},     {"ACCESSED/S", true}, {"USED", true},
        {"EPOCHS", true},  {"SHARED", true},   {"STATE", false}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        char name[64], size[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
        double rate = rate_of(&l[i]);
        uint64_t bytes = l[i].last.lines * TOW_LINE_BYTES;
        enum tow_tone tone = l[i].ended ? TOW_TONE_BAD : TOW_TONE_PLAIN;
        tow_table_add(&table, tone, "%" PRIu64, l[i].pid);
        tow_table_add(&table, tone, "%s", tow_safe_text(l[i].name, name, sizeof name));
        tow_table_add(&table, tone, "%u", l[i].uid);
        tow_table_add(&table, tone, "%.0f", rate);
        tow_table_add(&table, tone, "%s/s",
                      tw_size_format((uint64_t)(rate * (double)TOW_LINE_BYTES), size));
        add_changed(&table, tone, &l[i]);
        tow_table_add(&table, tone, "%s",
                      tow_times_format(l[i].last.pages * TOW_PAGE_BYTES, bytes, times));
        tow_table_add(&table, tone, "%s",
                      tow_times_format(l[i].last.regions * TOW_REGION_BYTES, bytes, times));
        add_clean(&table, tone, &l[i]);
        add_same(&table, tone, &l[i]);
        add_accessed(&table, tone, &l[i]);
        tow_table_add(&table, tone, "%" PRIu64, l[i].total.epochs);
        if (l[i].sharing)
            tow_table_add(&table, tone, "%" PRIu64 " (%" PRIu64 " falsely)", l[i].shared,
                          l[i].shared_falsely);
        else
            tow_table_add(&table, tone, "-");
        tow_table_add(&table, tone, "%s", state_of(&l[i]));
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}

static void json_known(const char *name, bool known, uint64_t value, FILE *out)
{
    if (known)
        fprintf(out, ", \"%s\": %" PRIu64, name, value);
    else
        fprintf(out, ", \"%s\": null", name);
}

static void print_json(const struct towline_listed *l, size_t count, FILE *out)
{
    fputs("\"sessions\": [", out);
    for (size_t i = 0; i < count; i++) {
        const struct towline_sums *s = &l[i].last;
        fprintf(out, "%s{\"session\": %" PRIu64 ", \"pid\": %" PRIu64 ", \"name\": ", i ? ", " : "",
                l[i].session, l[i].pid);
        tow_json_string(l[i].name, out);
        fprintf(out,
                ", \"attachment\": \"%s\", \"uid\": %u, \"ended\": %s, \"exact\": %s, \"epochs\": "
                "%" PRIu64 ", \"duration_us\": %" PRIu64 ", \"lines\": %" PRIu64
                ", \"pages\": %" PRIu64 ", \"whole_pages\": %" PRIu64 ", \"regions\": %" PRIu64,
                l[i].attachment == TOWLINE_INSTRUMENTED ? "instrumented" : "process", l[i].uid,
                l[i].ended ? "true" : "false", l[i].exact ? "true" : "false", l[i].total.epochs,
                s->duration_ns / TW_US, s->lines, s->pages, s->whole_pages, s->regions);
        if (l[i].sharing)
            fprintf(out, ", \"shared\": %" PRIu64 ", \"shared_falsely\": %" PRIu64, l[i].shared,
                    l[i].shared_falsely);
        json_known("bytes_changed", l[i].counts_bytes, s->changed_bytes, out);
        json_known("compared_lines", l[i].counts_bytes, s->known_lines, out);
        json_known("clean_pages", l[i].counts_bytes && !counts_same(&l[i]), s->clean_pages, out);
        json_known("same_lines", counts_same(&l[i]), s->same_lines, out);
        json_known("accessed_lines", l[i].accessed, s->accessed_lines, out);
        json_known("accessed_pages", l[i].accessed, s->accessed_pages, out);
        fputc('}', out);
    }
    fputc(']', out);
}

/* ---- Virtual machines ------------------------------------------------------------------------ */

static void print_guests(const struct towline_guest *g, size_t count, bool color, FILE *out)
{
    static const struct tow_column columns[] = {
        {"PID", true},   {"VM", false}, {"LINES/S", true}, {"WRITTEN", true}, {"4 KIB", true},
        {"2 MIB", true}, {"HOT", true}, {"EPOCHS", true},  {"COST", true}};
    struct tow_table table;
    if (count == 0)
        return;
    fputc('\n', out);
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        char name[128], size[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
        const struct towline_sums *s = &g[i].last;
        const uint64_t bytes = s->lines * TOW_LINE_BYTES;
        const double seconds = (double)s->duration_ns / 1e9;
        const double rate = seconds > 0 ? (double)s->lines / seconds : 0;
        tow_table_add(&table, TOW_TONE_PLAIN, "%" PRIu64, g[i].pid);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tow_safe_text(g[i].name, name, sizeof name));
        tow_table_add(&table, TOW_TONE_PLAIN, "%.0f", rate);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s/s",
                      tw_size_format((uint64_t)(rate * (double)TOW_LINE_BYTES), size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tow_times_format(s->pages * TOW_PAGE_BYTES, bytes, times));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tow_times_format(s->regions * TOW_REGION_BYTES, bytes, times));
        if (g[i].hot_count)
            tow_table_add(&table, TOW_TONE_PLAIN, "%#" PRIx64, g[i].hot[0].address);
        else
            tow_table_add(&table, TOW_TONE_PLAIN, "-");
        tow_table_add(&table, TOW_TONE_PLAIN, "%" PRIu64, g[i].total.epochs);
        tow_table_add(&table, TOW_TONE_PLAIN, "%.1f ms", (double)g[i].own_ns / 1e6);
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}

static void print_guests_json(const struct towline_guest *g, size_t count, FILE *out)
{
    fputs("\"vms\": [", out);
    for (size_t i = 0; i < count; i++) {
        const struct towline_sums *s = &g[i].last;
        fprintf(out, "%s{\"pid\": %" PRIu64 ", \"name\": ", i ? ", " : "", g[i].pid);
        tow_json_string(g[i].name, out);
        fprintf(out,
                ", \"epochs\": %" PRIu64 ", \"duration_us\": %" PRIu64 ", \"lines\": %" PRIu64
                ", \"pages\": %" PRIu64 ", \"regions\": %" PRIu64
                ", \"bytes_changed\": null, \"same_lines\": null, \"own_us\": %" PRIu64
                ", \"hottest\": [",
                g[i].total.epochs, s->duration_ns / TW_US, s->lines, s->pages, s->regions,
                g[i].own_ns / TW_US);
        for (size_t k = 0; k < g[i].hot_count; k++)
            fprintf(out, "%s{\"address\": %" PRIu64 ", \"lines\": %u, \"pages\": %u}",
                    k ? ", " : "", g[i].hot[k].address, g[i].hot[k].lines, g[i].hot[k].pages);
        fputs("]}", out);
    }
    fputc(']', out);
}

/* ---- The view -------------------------------------------------------------------------------- */

struct view {
    struct towline_listed listed[SESSIONS_MAX];
    struct towline_guest guests[GUESTS_MAX];
    size_t count, guest_count;
};

static void print_view(const struct view *v, const struct tow *tow, bool color, FILE *out)
{
    if (tow->json) {
        fputc('{', out);
        print_json(v->listed, v->count, out);
        fputs(", ", out);
        print_guests_json(v->guests, v->guest_count, out);
        fputs("}\n", out);
        return;
    }
    print_table(v->listed, v->count, color, out);
    print_guests(v->guests, v->guest_count, color, out);
}

/* One look. */
static int look(struct tow *tow, const char *socket, struct tow_redraw *redraw)
{
    static struct view view;
    size_t size;
    char *text = NULL;
    int code = towline_list(socket, view.listed, SESSIONS_MAX, &view.count);
    if (!code)
        code = towline_guests(socket, view.guests, GUESTS_MAX, &view.guest_count);
    if (code)
        return tow_client_failed(tow, code);
    qsort(view.listed, view.count, sizeof *view.listed, busiest_first);
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return TOW_EXIT_FAILED;
    print_view(&view, tow, tow->color_out && !redraw->terminal, out);
    fclose(out);
    if (tow->json)
        fputs(text, tow->out);
    else
        tow_redraw_show(redraw, text);
    fflush(tow->out);
    free(text);
    return TOW_EXIT_OK;
}

int tow_top(struct tow *tow, const struct tow_arguments *arguments)
{
    const char *socket = tow_option_value(arguments, "socket");
    const char *every = tow_option_value(arguments, "every");
    const char *limit = tow_option_value(arguments, "count");
    struct tow_redraw redraw;
    struct tw_error err = {0};
    uint64_t count = UINT64_MAX;
    uint32_t every_ms = EVERY_MS;
    if ((every && tow_milliseconds_parse("--every", every, &every_ms, &err) != TW_OK) ||
        (limit && tow_number_parse("--count", limit, 1, UINT32_MAX, &count, &err) != TW_OK))
        return tow_fail(tow, &err);
    tow_interrupt_catch();
    tow_redraw_init(&redraw, tow->out);
    for (;;) {
        int status = look(tow, socket, &redraw);
        if (status || --count == 0 || ferror(tow->out))
            return status;
        tow_sleep_ms(every_ms);
        if (tow_interrupted())
            return TOW_EXIT_OK;
    }
}
