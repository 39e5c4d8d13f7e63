#include "cli/sharing.h"

#include "cli/format.h"
#include "cli/json.h"
#include "cli/report.h"

#include "base/symbol.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SYMBOL_SIZE 512u

void tow_sharing_look(struct tow_sharing *s, pid_t pid)
{
    char *maps = tw_symbol_maps(pid);
    if (!maps)
        return;
    free(s->maps);
    s->maps = maps;
}

int tow_sharing_take(struct tow_sharing *s, towline_session *session, const char *epoch, pid_t pid)
{
    tow_sharing_look(s, pid);
    return towline_shared(session, epoch, s->lines, TOW_SHARED_MAX, &s->count, &s->total);
}

void tow_sharing_free(struct tow_sharing *s)
{
    for (size_t i = 0; i < s->symbol_count; i++)
        free(s->symbols[i].text);
    free(s->symbols);
    free(s->maps);
    *s = (struct tow_sharing){0};
}

/* A program has few places that store to shared lines; when there are more, all are asked for anew.
 */
static struct tow_symbol *symbol_new(struct tow_sharing *s)
{
    if (!s->symbols)
        s->symbols = calloc(TOW_SYMBOLS_MAX, sizeof *s->symbols);
    if (s->symbol_count == TOW_SYMBOLS_MAX) {
        for (size_t i = 0; i < TOW_SYMBOLS_MAX; i++)
            free(s->symbols[i].text);
        s->symbol_count = 0;
    }
    return s->symbols ? &s->symbols[s->symbol_count] : NULL;
}

const char *tow_sharing_symbol(struct tow_sharing *s, uint64_t pc)
{
    char text[SYMBOL_SIZE], safe[SYMBOL_SIZE];
    for (size_t i = 0; i < s->symbol_count; i++)
        if (s->symbols[i].pc == pc)
            return s->symbols[i].text;
    struct tow_symbol *new = symbol_new(s);
    if (!new)
        return "?";
    tow_safe_text(tw_symbol(s->maps, pc, text, sizeof text), safe, sizeof safe);
    *new = (struct tow_symbol){pc, strdup(safe)};
    if (!new->text)
        return "?";
    s->symbol_count++;
    return new->text;
}

/* ---- Text ----------------------------------------------------------------------------------- */

static const char *kind_of(const struct towline_shared_line *line)
{
    return line->falsely ? "falsely shared" : "shared";
}

/* "bytes 0-7" where they lie together, "8 bytes" where not. */
static void print_bytes(uint64_t bytes, FILE *out)
{
    if (!bytes)
        return;
    unsigned first = (unsigned)__builtin_ctzll(bytes), last = 63 - (unsigned)__builtin_clzll(bytes);
    unsigned count = (unsigned)__builtin_popcountll(bytes);
    if (count == 1)
        fprintf(out, "byte %u", first);
    else if (last - first + 1 == count)
        fprintf(out, "bytes %u-%u", first, last);
    else
        fprintf(out, "%u bytes of %u-%u", count, first, last);
}

void tow_sharing_print(struct tow_sharing *s, size_t max, FILE *out)
{
    fprintf(out, "  lines that several threads wrote: %" PRIu64 "\n", s->total);
    for (size_t i = 0; i < s->count && i < max; i++) {
        const struct towline_shared_line *line = &s->lines[i];
        fprintf(out, "  %#14" PRIx64 "  %s\n", line->address, kind_of(line));
        for (uint32_t k = 0; k < line->thread_count; k++) {
            fprintf(out, "    thread %-8u ", line->threads[k].tid);
            print_bytes(line->threads[k].bytes, out);
            fprintf(out, "  %s\n", tow_sharing_symbol(s, line->threads[k].pc));
        }
    }
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void json_threads(struct tow_sharing *s, const struct towline_shared_line *line, FILE *out)
{
    for (uint32_t k = 0; k < line->thread_count; k++) {
        fprintf(out,
                "%s{\"tid\": %u, \"pc\": %" PRIu64 ", \"bytes_mask\": \"%#" PRIx64
                "\", \"symbol\": ",
                k ? ", " : "", line->threads[k].tid, line->threads[k].pc, line->threads[k].bytes);
        tow_json_string(tow_sharing_symbol(s, line->threads[k].pc), out);
        fputs("}", out);
    }
}

void tow_sharing_print_json(struct tow_sharing *s, FILE *out)
{
    fprintf(out, "{\"total\": %" PRIu64 ", \"lines\": [", s->total);
    for (size_t i = 0; i < s->count; i++) {
        const struct towline_shared_line *line = &s->lines[i];
        fprintf(out, "%s{\"address\": %" PRIu64 ", \"falsely\": %s, \"threads\": [", i ? ", " : "",
                line->address, line->falsely ? "true" : "false");
        json_threads(s, line, out);
        fputs("]}", out);
    }
    fputs("]}", out);
}

/* ---- HTML ----------------------------------------------------------------------------------- */

void tow_sharing_print_html(struct tow_sharing *s, FILE *out)
{
    fprintf(
        out,
        "<h2>Lines that several threads wrote</h2>\n<p class=\"note\">In the last epoch: %" PRIu64
        ". Falsely shared: no byte was written by two of the threads, so they would not "
        "disturb each other in lines of their own.</p>\n",
        s->total);
    if (!s->count)
        return;
    fputs("<table><tr><th>line<th>kind<th>thread<th>bytes<th>latest store\n", out);
    for (size_t i = 0; i < s->count; i++) {
        const struct towline_shared_line *line = &s->lines[i];
        for (uint32_t k = 0; k < line->thread_count; k++) {
            fprintf(out, "<tr><td>%#" PRIx64 "<td>%s<td>%u<td>", line->address, kind_of(line),
                    line->threads[k].tid);
            print_bytes(line->threads[k].bytes, out);
            fputs("<td>", out);
            tow_html_text(tow_sharing_symbol(s, line->threads[k].pc), out);
            fputc('\n', out);
        }
    }
    fputs("</table>\n", out);
}
