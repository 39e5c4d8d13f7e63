#include "cli/report.h"

#include "cli/format.h"

#include "base/clock.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHART_WIDTH  960u
#define CHART_HEIGHT 160u

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n"
    "body{font:14px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;"
    "color:#222;background:#fff}\n"
    "table{border-collapse:collapse}td,th{padding:.2em .9em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}\n"
    "tr+tr{border-top:1px solid #ddd}h2{font-size:1.1em;margin-top:2em}"
    "canvas,svg{width:100%;border:1px solid #bbb}canvas{image-rendering:pixelated}\n"
    ".note{color:#666}.at{font-family:monospace;min-height:1.5em}\n"
    "</style>\n";

/* Draws a grid, and says what is under the pointer. */
static const char script[] =
    "<script>\n"
    "function draw(name,rows,ends,most,lines){const "
    "c=document.getElementById(name),g=c.getContext('2d'),at=document.getElementById(name+'-at');"
    "\n"
    "const R=rows.length,C=ends.length;c.width=Math.max(C,1);c.height=Math.max(R,1);"
    "c.style.height=Math.max(R*4,120)+'px';\n"
    "for(let r=0;r<R;r++)for(let k=0;k<C;k++){const v=lines[r*C+k];if(!v)continue;"
    "const h=Math.log1p(v)/Math.log1p(most);"
    "g.fillStyle=`hsl(${60-60*h} 90% ${85-50*h}%)`;g.fillRect(k,r,1,1);}\n"
    "c.onmousemove=e=>{const b=c.getBoundingClientRect(),"
    "k=Math.floor((e.clientX-b.left)/b.width*C),r=Math.floor((e.clientY-b.top)/b.height*R);"
    "if(r<0||r>=R||k<0||k>=C)return;"
    "at.textContent=`${rows[r]}  until ${(ends[k]/1000).toFixed(1)} s: ${lines[r*C+k]} lines`;};}\n"
    "</script>\n";

void tow_html_text(const char *text, FILE *out)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(*text, out);
        }
    }
}

static void print_row(const char *name, uint64_t count, uint64_t bytes, uint64_t lines_bytes,
                      FILE *out)
{
    char size[TW_SIZE_TEXT], times[TOW_TIME_TEXT];
    fprintf(out, "<tr><td>%s<td>%" PRIu64 "<td>%s<td>%s\n", name, count,
            tw_size_format(bytes, size), tow_times_format(bytes, lines_bytes, times));
}

static void print_table(const struct tow_meter *meter, FILE *out)
{
    const struct towline_sums *s = &meter->total;
    uint64_t bytes = s->lines * TOW_LINE_BYTES;
    fputs("<table><tr><th>granularity<th>count<th>bytes<th>amplification over lines\n", out);
    if (meter->counts_bytes)
        print_row("bytes that changed", s->changed_bytes, s->changed_bytes,
                  s->known_lines * TOW_LINE_BYTES, out);
    print_row("lines, 64 B", s->lines, bytes, bytes, out);
    print_row("pages, 4 KiB", s->pages, s->pages * TOW_PAGE_BYTES, bytes, out);
    print_row("pages, 2 MiB", s->regions, s->regions * TOW_REGION_BYTES, bytes, out);
    if (meter->accessed) {
        const uint64_t accessed = s->accessed_lines * TOW_LINE_BYTES;
        print_row("lines, loaded or stored to", s->accessed_lines, accessed, accessed, out);
        print_row("pages, 4 KiB, the same", s->accessed_pages, s->accessed_pages * TOW_PAGE_BYTES,
                  accessed, out);
    }
    fputs("</table>\n", out);
    if (!meter->accessed)
        fputs(
            "<p class=\"note\">Which lines were loaded is not known: that was not asked for (with "
            "--accessed, of programs made by towline-cc).</p>\n",
            out);
    if (s->whole_pages)
        fprintf(out,
                "<p class=\"note\">Of %" PRIu64
                " pages the lines were not known (first reports): these count as a whole. With "
                "--exact, lines are known from the start.</p>\n",
                s->whole_pages);
    if (meter->counts_same)
        fprintf(out,
                "<p class=\"note\">Of the %" PRIu64 " lines whose contents were compared %" PRIu64
                " were rewritten with what they held. Bytes are those of these lines.</p>\n",
                s->known_lines, s->same_lines);
    else if (meter->counts_bytes)
        fprintf(out,
                "<p class=\"note\">%" PRIu64 " pages were written in vain: equal in every byte "
                "afterwards. Bytes are those of the %" PRIu64
                " lines whose contents were compared.</p>\n",
                s->clean_pages, s->known_lines);
    else
        fputs("<p class=\"note\">Bytes that changed, and lines rewritten with what they held, are "
              "not "
              "known: contents were not compared.</p>\n",
              out);
}

/* ---- The heat map --------------------------------------------------------------------------- */

static void print_data(const char *name, const struct tow_heat *heat,
                       const struct tow_heat_grid *grid, FILE *out)
{
    fprintf(out, "<script>\ndraw('%s',[", name);
    for (unsigned i = 0; i < grid->rows; i++)
        fprintf(out, "%s\"0x%" PRIx64 " to 0x%" PRIx64 "\"", i ? "," : "", grid->row[i].first,
                grid->row[i].last);
    fputs("],\n[", out);
    for (unsigned i = 0; i < grid->columns; i++) {
        size_t last = ((size_t)(i + 1) * heat->epoch_count + grid->columns - 1) / grid->columns - 1;
        fprintf(out, "%s%" PRIu64, i ? "," : "", heat->epochs[last].end_ms);
    }
    fprintf(out, "],\n%" PRIu64 ",\n[", grid->most);
    for (size_t i = 0; i < (size_t)grid->rows * grid->columns; i++)
        fprintf(out, "%s%" PRIu64, i ? "," : "", grid->lines[i]);
    fputs("]);\n</script>\n", out);
}

/* False when there is no memory. */
static bool print_map(const char *name, const char *title, const struct tow_heat *heat, FILE *out)
{
    struct tow_heat_grid made, *grid = &made;
    if (!tow_heat_grid_make(heat, grid))
        return false;
    fprintf(out, "<h2>%s over address and time</h2>\n", title);
    fprintf(out,
            "<p class=\"note\">Down: touched blocks of 64 KiB in order of address (gaps between "
            "them are not drawn). Across: time. Darker: more lines, at most %" PRIu64
            " in a cell.</p>\n",
            grid->most);
    fprintf(out, "<canvas id=\"%s\"></canvas><div class=\"at\" id=\"%s-at\"></div>\n", name, name);
    if (heat->full)
        fputs("<p class=\"note\">The map is not complete: there was more than it can hold.</p>\n",
              out);
    print_data(name, heat, grid, out);
    tow_heat_grid_free(grid);
    return true;
}

/* ---- Amplification over time ---------------------------------------------------------------- */

static double amplification(const struct tow_heat_epoch *e)
{
    return e->lines ? (double)(e->pages * TOW_PAGE_BYTES) / (double)(e->lines * TOW_LINE_BYTES) : 0;
}

static void print_chart(const struct tow_heat *heat, FILE *out)
{
    double most = 1;
    for (size_t i = 0; i < heat->epoch_count; i++)
        if (amplification(&heat->epochs[i]) > most)
            most = amplification(&heat->epochs[i]);
    fprintf(out,
            "<h2>Amplification of 4 KiB pages over time</h2>\n"
            "<p class=\"note\">Bytes of dirty pages by bytes of dirty lines, epoch by epoch; the "
            "top is %.1f times, the bottom 0.</p>\n"
            "<svg viewBox=\"0 0 %u %u\" role=\"img\"><polyline fill=\"none\" stroke=\"#b40\" "
            "stroke-width=\"2\" points=\"",
            most, CHART_WIDTH, CHART_HEIGHT);
    for (size_t i = 0; i < heat->epoch_count; i++) {
        double x =
            heat->epoch_count > 1 ? (double)i * CHART_WIDTH / (double)(heat->epoch_count - 1) : 0;
        fprintf(out, "%.1f,%.1f ", x,
                CHART_HEIGHT - amplification(&heat->epochs[i]) / most * (CHART_HEIGHT - 4) - 2);
    }
    fputs("\"/></svg>\n", out);
}

static void print_meaning(const struct tow_meter *meter, FILE *out)
{
    fprintf(
        out, "<p class=\"note\">%s</p>\n</body></html>\n",
        meter->kind && strcmp(meter->kind, "instrumented") == 0
            ? "Lines that were stored to, as the program's own instrumentation told: also those "
              "that were rewritten with their value."
            : "Lines whose content changed between two looks: one that was rewritten with its "
              "value is not seen.");
}

bool tow_report_print(struct tow_meter *meter, FILE *out)
{
    char duration[TW_SIZE_TEXT], time[TOW_TIME_TEXT];
    fputs(head, out);
    fputs("<title>Dirty lines of ", out);
    tow_html_text(meter->name, out);
    fputs("</title></head><body>\n<h1>Dirty lines of ", out);
    tow_html_text(meter->name, out);
    fprintf(out, "</h1>\n<p>pid %d, %" PRIu64 " epochs in %s, until %s%s</p>\n", (int)meter->pid,
            meter->total.epochs, tw_duration_format(meter->now_ns - meter->started_ns, duration),
            tow_time_format(tw_wall_ms(), time), meter->exact ? ", exact" : "");
    if (meter->kind) {
        fprintf(out, "<p class=\"note\">%s attachment: ", meter->kind);
        tow_html_text(meter->why, out);
        fputs("</p>\n", out);
    }
    print_table(meter, out);
    fputs(script, out);
    if (!print_map("dirty", "Dirty lines", meter->heat, out) ||
        (meter->heat_accessed &&
         !print_map("accessed", "Lines loaded or stored to", meter->heat_accessed, out)))
        return false;
    print_chart(meter->heat, out);
    if (meter->sharing)
        tow_sharing_print_html(&meter->shared, out);
    print_meaning(meter, out);
    return true;
}

int tow_report_write(struct tow *tow, struct tow_meter *meter, const char *path)
{
    struct tw_error err;
    char fresh[512];
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.part", path) >= sizeof fresh)
        return tow_usage(tow, "--out", "at most 500 bytes", NULL, "too long");
    FILE *f = fopen(fresh, "we");
    bool good = f && tow_report_print(meter, f);
    good = f && fflush(f) == 0 && !ferror(f) && good;
    if (f && fclose(f) != 0)
        good = false;
    if (good && rename(fresh, path) == 0) {
        fprintf(tow->err, "tow: wrote %s\n", path);
        return TOW_EXIT_OK;
    }
    int number = errno;
    if (f)
        unlink(fresh);
    tw_fail_errno(&err, number, path, "cannot write the report");
    tow_fail(tow, &err);
    return TOW_EXIT_FAILED;
}
