/* The meter's figures for people and for programs. */
#include "cli/meter.h"

#include "cli/format.h"
#include "cli/json.h"

#include "base/clock.h"
#include "base/units.h"

#include <inttypes.h>

#define BAR_COLUMNS    24u
#define LINES_PER_PAGE (TOW_PAGE_BYTES / TOW_LINE_BYTES)
#define SHARED_SHOWN   8u /* lines, in a view that redraws */

/* What a granularity makes of the epochs. */
struct grain {
    const char *name;
    uint64_t count, bytes;
};

static void grains_of(const struct towline_sums *s, struct grain out[3])
{
    out[0] = (struct grain){"lines, 64 B", s->lines, s->lines * TOW_LINE_BYTES};
    out[1] = (struct grain){"pages, 4 KiB", s->pages, s->pages * TOW_PAGE_BYTES};
    out[2] = (struct grain){"pages, 2 MiB", s->regions, s->regions * TOW_REGION_BYTES};
}

static const char *rate_text(uint64_t bytes, uint64_t duration_ns, char out[TW_SIZE_TEXT])
{
    double rate = duration_ns ? (double)bytes * 1e9 / (double)duration_ns : 0;
    return tw_size_format((uint64_t)rate, out);
}

/* Of the pages that were written, those that are as they were. */
static unsigned clean_percent(const struct towline_sums *s)
{
    uint64_t written = s->pages + s->clean_pages;
    return written ? (unsigned)(s->clean_pages * 100 / written) : 0;
}

/* Of the pages that were written, lines that are as they were: not written, or with what they held.
 */
static uint64_t unchanged_lines(const struct towline_sums *s)
{
    const uint64_t lines = (s->pages - s->whole_pages + s->clean_pages) * LINES_PER_PAGE;
    return lines > s->known_lines ? lines - s->known_lines : 0;
}

static unsigned same_percent(const struct towline_sums *s)
{
    return s->known_lines ? (unsigned)(s->same_lines * 100 / s->known_lines) : 0;
}

static unsigned whole_percent(const struct towline_sums *s)
{
    return s->pages ? (unsigned)(s->whole_pages * 100 / s->pages) : 0;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void json_figure(const char *name, bool known, uint64_t value, FILE *out)
{
    if (known)
        fprintf(out, ", \"%s\": %" PRIu64, name, value);
    else
        fprintf(out, ", \"%s\": null", name);
}

/* What only an attachment knows that compares contents. Who sees pages only cannot tell a line that
 * was rewritten with what it held from one that was not written. */
static void json_compared(const struct towline_sums *s, const struct tow_meter *meter, FILE *out)
{
    const bool by_page = meter->counts_bytes && !meter->counts_same;
    json_figure("bytes_changed", meter->counts_bytes, s->changed_bytes, out);
    json_figure("compared_lines", meter->counts_bytes, s->known_lines, out);
    json_figure("clean_pages", by_page, s->clean_pages, out);
    json_figure("unchanged_lines", by_page, unchanged_lines(s), out);
    json_figure("same_lines", meter->counts_same, s->same_lines, out);
}

static void json_accessed(const struct towline_sums *s, bool accessed, FILE *out)
{
    if (accessed)
        fprintf(out,
                ", \"accessed_lines\": %" PRIu64 ", \"accessed_line_bytes\": %" PRIu64
                ", \"accessed_pages\": %" PRIu64 ", \"accessed_page_bytes\": %" PRIu64,
                s->accessed_lines, s->accessed_lines * TOW_LINE_BYTES, s->accessed_pages,
                s->accessed_pages * TOW_PAGE_BYTES);
    else
        fputs(", \"accessed_lines\": null, \"accessed_pages\": null", out);
}

static void json_sums(const char *name, const struct towline_sums *s, const struct tow_meter *meter,
                      FILE *out)
{
    fprintf(out,
            "\"%s\": {\"epochs\": %" PRIu64 ", \"duration_us\": %" PRIu64 ", \"lines\": %" PRIu64
            ", \"line_bytes\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"page_bytes\": %" PRIu64
            ", \"whole_pages\": %" PRIu64 ", \"regions\": %" PRIu64 ", \"region_bytes\": %" PRIu64,
            name, s->epochs, s->duration_ns / TW_US, s->lines, s->lines * TOW_LINE_BYTES, s->pages,
            s->pages * TOW_PAGE_BYTES, s->whole_pages, s->regions, s->regions * TOW_REGION_BYTES);
    json_compared(s, meter, out);
    json_accessed(s, meter->accessed, out);
    fputc('}', out);
}

void tow_meter_print_json(struct tow_meter *meter, FILE *out)
{
    fprintf(out, "{\"pid\": %d, \"name\": ", (int)meter->pid);
    tow_json_string(meter->name, out);
    fputs(", \"attachment\": ", out);
    tow_json_string(meter->kind ? meter->kind : "", out);
    fputs(", \"why\": ", out);
    tow_json_string(meter->why, out);
    fprintf(out, ", \"elapsed_ms\": %" PRIu64 ", ", (meter->now_ns - meter->started_ns) / TW_MS);
    json_sums("epoch", &meter->last, meter, out);
    fputs(", ", out);
    json_sums("total", &meter->total, meter, out);
    fputs(", \"hottest\": [", out);
    for (size_t i = 0; i < meter->hot_count; i++) {
        const struct towline_hot *h = &meter->hot[i];
        fprintf(out, "%s{\"address\": %" PRIu64 ", \"lines\": %u, \"pages\": %u", i ? ", " : "",
                h->address, h->lines, h->pages);
        if (meter->counts_bytes)
            fprintf(out, ", \"bytes_changed\": %" PRIu64, h->changed_bytes);
        fputc('}', out);
    }
    fputc(']', out);
    if (meter->sharing) {
        fputs(", \"shared\": ", out);
        tow_sharing_print_json(&meter->shared, out);
    }
    fprintf(out, ", \"ended\": %s}\n", meter->ended ? "true" : "false");
}

/* ---- Text ----------------------------------------------------------------------------------- */

void tow_meter_print_line(struct tow_meter *meter, FILE *out)
{
    struct grain g[3];
    char rate[TW_SIZE_TEXT], bytes[2][TW_SIZE_TEXT], times[2][TOW_TIME_TEXT];
    const struct towline_sums *s = &meter->last;
    grains_of(s, g);
    fprintf(
        out, "%7.1f s  %" PRIu64 " lines, %s/s  %" PRIu64 " pages, %s, %s  2 MiB: %s, %s",
        (double)(meter->now_ns - meter->started_ns) / 1e9, s->lines,
        rate_text(g[0].bytes, s->duration_ns, rate), s->pages, tw_size_format(g[1].bytes, bytes[0]),
        tow_times_format(g[1].bytes, g[0].bytes, times[0]), tw_size_format(g[2].bytes, bytes[1]),
        tow_times_format(g[2].bytes, g[0].bytes, times[1]));
    if (s->whole_pages)
        fprintf(out, "  (lines not known in %u %% of pages)", whole_percent(s));
    if (meter->counts_bytes)
        fprintf(out, "  changed: %s, %s: %u %%", tw_size_format(s->changed_bytes, bytes[0]),
                meter->counts_same ? "rewritten the same" : "clean pages",
                meter->counts_same ? same_percent(s) : clean_percent(s));
    if (meter->accessed)
        fprintf(out, "  accessed: %" PRIu64 " lines in %" PRIu64 " pages", s->accessed_lines,
                s->accessed_pages);
    if (meter->sharing)
        fprintf(out, "  threads share %" PRIu64 " lines", meter->shared.total);
    fputc('\n', out);
}

static void print_grains(const struct towline_sums *s, FILE *out)
{
    struct grain g[3];
    grains_of(s, g);
    for (unsigned i = 0; i < 3; i++) {
        char bytes[TW_SIZE_TEXT], rate[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
        fprintf(out, "  %-14s %12" PRIu64 "  %10s  %10s/s  %s\n", g[i].name, g[i].count,
                tw_size_format(g[i].bytes, bytes), rate_text(g[i].bytes, s->duration_ns, rate),
                i ? tow_times_format(g[i].bytes, g[0].bytes, times) : "");
    }
}

/* Bytes first: what a perfect tracker would have moved. */
static void print_bytes(const struct tow_meter *meter, const struct towline_sums *s, FILE *out)
{
    char bytes[TW_SIZE_TEXT], rate[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
    if (!meter->counts_bytes) {
        fputs(
            "  bytes changed, lines rewritten the same: not known (contents are not compared, see "
            "--bytes, or pages are tracked in part)\n",
            out);
        return;
    }
    fprintf(out, "  %-14s %12" PRIu64 "  %10s  %10s/s  %s in their lines\n", "bytes changed",
            s->changed_bytes, tw_size_format(s->changed_bytes, bytes),
            rate_text(s->changed_bytes, s->duration_ns, rate),
            tow_times_format(s->known_lines * TOW_LINE_BYTES, s->changed_bytes, times));
}

static void print_clean(const struct tow_meter *meter, const struct towline_sums *s, FILE *out)
{
    if (meter->counts_same) {
        fprintf(out,
                "  %-14s %12" PRIu64 "  %u %% of the lines stored to and compared hold what they "
                "held\n",
                "rewritten same", s->same_lines, same_percent(s));
        return;
    }
    if (!meter->counts_bytes)
        return;
    fprintf(out,
            "  %-14s %12" PRIu64 "  of the pages written: not written, or with what they held\n",
            "lines as before", unchanged_lines(s));
    if (s->clean_pages)
        fprintf(out, "  %-14s %12" PRIu64 "  %u %% of the pages written are as they were\n",
                "clean pages", s->clean_pages, clean_percent(s));
}

/* What a page holds in vain: it is fetched, or kept, for the lines that are used. */
static void print_accessed(const struct tow_meter *meter, const struct towline_sums *s, FILE *out)
{
    char bytes[2][TW_SIZE_TEXT], times[TOW_TIME_TEXT];
    if (!meter->accessed)
        return;
    const uint64_t lines = s->accessed_lines * TOW_LINE_BYTES;
    const uint64_t pages = s->accessed_pages * TOW_PAGE_BYTES;
    fprintf(out, "  %-14s %12" PRIu64 "  %10s  loaded or stored to; in pages of 4 KiB %s, %s\n",
            "lines accessed", s->accessed_lines, tw_size_format(lines, bytes[0]),
            tw_size_format(pages, bytes[1]), tow_times_format(pages, lines, times));
}

void tow_meter_print_block(struct tow_meter *meter, FILE *out)
{
    const struct towline_sums *s = &meter->last;
    char epoch[TW_SIZE_TEXT], all[TW_SIZE_TEXT];
    fprintf(out, "%s, pid %d%s: epoch of %s, %s so far\n", meter->name, (int)meter->pid,
            meter->exact ? ", exact" : "", tw_duration_format(s->duration_ns, epoch),
            tw_duration_format(meter->now_ns - meter->started_ns, all));
    print_bytes(meter, s, out);
    print_grains(s, out);
    print_clean(meter, s, out);
    print_accessed(meter, s, out);
    if (s->whole_pages)
        fprintf(out, "  lines not known in %u %% of the pages: these count as a whole\n",
                whole_percent(s));
    for (size_t i = 0; i < meter->hot_count; i++) {
        const struct towline_hot *h = &meter->hot[i];
        unsigned bar = (unsigned)((uint64_t)h->lines * BAR_COLUMNS / meter->hot[0].lines);
        fprintf(out, "  %#14" PRIx64 "  %6u lines in %3u pages  %.*s\n", h->address, h->lines,
                h->pages, (int)(bar ? bar : 1), "########################");
    }
    if (meter->sharing)
        tow_sharing_print(&meter->shared, SHARED_SHOWN, out);
}

void tow_meter_print_summary(struct tow_meter *meter, FILE *out)
{
    const struct towline_sums *s = &meter->total;
    char all[TW_SIZE_TEXT];
    fprintf(out, "%s, pid %d: %" PRIu64 " epochs in %s%s\n", meter->name, (int)meter->pid,
            s->epochs, tw_duration_format(meter->now_ns - meter->started_ns, all),
            meter->ended ? "; it has ended or executed another program" : "");
    print_bytes(meter, s, out);
    print_grains(s, out);
    print_clean(meter, s, out);
    print_accessed(meter, s, out);
    if (s->whole_pages)
        fprintf(out, "  lines not known in %u %% of the pages: these count as a whole\n",
                whole_percent(s));
    if (meter->sharing)
        tow_sharing_print(&meter->shared, TOW_SHARED_MAX, out);
}
