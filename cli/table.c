#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define WRAPPED_MIN 20u

void tow_table_init(struct tow_table *table, const struct tow_column *columns, unsigned count)
{
    *table = (struct tow_table){.columns = columns, .column_count = count};
}

void tow_table_free(struct tow_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i].text);
    free(table->cells);
    table->cells = NULL;
    table->count = table->capacity = 0;
}

static bool reserve(struct tow_table *table)
{
    if (table->count < table->capacity)
        return true;
    size_t capacity = table->capacity ? table->capacity * 2 : 64;
    struct tow_cell *cells = realloc(table->cells, capacity * sizeof *cells);
    if (!cells)
        return false;
    table->cells = cells;
    table->capacity = capacity;
    return true;
}

void tow_table_add(struct tow_table *table, enum tow_tone tone, const char *format, ...)
{
    char raw[TOW_CELL_TEXT], safe[TOW_CELL_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    char *text = strdup(raw[0] ? tow_safe_text(raw, safe, sizeof safe) : "-");
    if (!text || !reserve(table)) {
        free(text);
        table->failed = true;
        return;
    }
    table->cells[table->count++] = (struct tow_cell){text, tone};
}

static void print_row(const struct tow_table *table, const struct tow_cell *row,
                      const size_t *widths, bool color, FILE *out)
{
    size_t column = 0;
    for (unsigned c = 0; c < table->column_count; c++) {
        size_t used = tow_text_width(row[c].text), gap = widths[c] > used ? widths[c] - used : 0;
        if (c > 0)
            fputs("  ", out);
        column += c > 0 ? 2 : 0;
        if (table->columns[c].right)
            tow_pad(gap, out);
        fputs(tow_tone_begin(row[c].tone, color), out);
        if (c + 1 < table->column_count)
            fputs(row[c].text, out);
        else
            tow_text_wrap(row[c].text, column, column + widths[c], out);
        fputs(tow_tone_end(row[c].tone, color), out);
        column += widths[c];
        if (!table->columns[c].right && c + 1 < table->column_count)
            tow_pad(gap, out);
    }
    fputc('\n', out);
}

/* What the last column may have of `width`; a very narrow rest would help nobody. */
static void narrow_last(const struct tow_table *table, size_t *widths, size_t width)
{
    size_t before = 0, last = table->column_count - 1;
    for (size_t c = 0; c < last; c++)
        before += widths[c] + 2;
    if (width == 0 || table->columns[last].right || before + widths[last] <= width)
        return;
    size_t room = width > before + WRAPPED_MIN ? width - before : WRAPPED_MIN;
    if (room < widths[last])
        widths[last] = room;
}

void tow_table_print(const struct tow_table *table, bool color, FILE *out)
{
    struct tow_cell titles[TOW_COLUMNS_MAX];
    size_t widths[TOW_COLUMNS_MAX];
    size_t rows = table->count / table->column_count;
    if (table->failed) {
        fputs("out of memory\n", out);
        return;
    }
    if (rows == 0) {
        fputs("none\n", out);
        return;
    }
    for (unsigned c = 0; c < table->column_count; c++) {
        titles[c] = (struct tow_cell){(char *)(uintptr_t)table->columns[c].title, TOW_TONE_TITLE};
        widths[c] = tow_text_width(titles[c].text);
        for (size_t r = 0; r < rows; r++) {
            size_t width = tow_text_width(table->cells[r * table->column_count + c].text);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    narrow_last(table, widths, table->width ? table->width : tow_terminal_width(out));
    print_row(table, titles, widths, color, out);
    for (size_t r = 0; r < rows; r++)
        print_row(table, table->cells + r * table->column_count, widths, color, out);
}
