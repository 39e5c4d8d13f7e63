#include "cli/redraw.h"

#include "cli/format.h"

#include <string.h>
#include <unistd.h>

#define LINE_TEXT 512u

void tow_redraw_init(struct tow_redraw *r, FILE *out)
{
    *r = (struct tow_redraw){.out = out, .terminal = isatty(fileno(out)) != 0};
}

static void show_line(const char *line, size_t length, size_t width, FILE *out)
{
    char cut[LINE_TEXT], safe[LINE_TEXT], one[8];
    size_t used = 0;
    snprintf(cut, sizeof cut, "%.*s", (int)(length < sizeof cut ? length : sizeof cut - 1), line);
    tow_safe_text(cut, safe, sizeof safe);
    for (const char *p = safe; *p;) {
        size_t bytes = tow_utf8_length(p);
        snprintf(one, sizeof one, "%.*s", (int)bytes, p);
        used += tow_text_width(one);
        if (used >= width)
            break;
        fputs(one, out);
        p += bytes ? bytes : 1;
    }
    fputs("\033[K\n", out);
}

void tow_redraw_show(struct tow_redraw *r, const char *text)
{
    if (!r->terminal) {
        fputs(text, r->out);
        fflush(r->out);
        return;
    }
    size_t width = tow_terminal_width(r->out);
    if (r->drawn)
        fprintf(r->out, "\033[%uA", r->drawn);
    r->drawn = 0;
    for (const char *p = text; *p; r->drawn++) {
        size_t length = strcspn(p, "\n");
        show_line(p, length, width, r->out);
        p += length + (p[length] == '\n');
    }
    fputs("\033[J", r->out);
    fflush(r->out);
}
