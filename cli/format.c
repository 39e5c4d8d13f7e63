#include "cli/format.h"

#include "base/clock.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TERMINAL_USUAL 80u
#define TERMINAL_MIN   20u /* a terminal that says less does not know */

const char *tow_tone_begin(enum tow_tone tone, bool color)
{
    static const char *const sequences[] = {"", "\033[32m", "\033[33m", "\033[31m", "\033[1m"};
    return color ? sequences[tone] : "";
}

const char *tow_tone_end(enum tow_tone tone, bool color)
{
    return color && tone != TOW_TONE_PLAIN ? "\033[0m" : "";
}

enum tow_tone tow_tone_of_state(const char *name)
{
    static const struct {
        const char *name;
        enum tow_tone tone;
    } states[] = {
        {"running", TOW_TONE_GOOD},   {"alive", TOW_TONE_GOOD},     {"completed", TOW_TONE_GOOD},
        {"ready", TOW_TONE_GOOD},     {"starting", TOW_TONE_BUSY},  {"pending", TOW_TONE_BUSY},
        {"preparing", TOW_TONE_BUSY}, {"copying", TOW_TONE_BUSY},   {"switching", TOW_TONE_BUSY},
        {"resolving", TOW_TONE_BUSY}, {"paused", TOW_TONE_BUSY},    {"incoming", TOW_TONE_BUSY},
        {"given_up", TOW_TONE_BUSY},  {"cancelled", TOW_TONE_BUSY}, {"failed", TOW_TONE_BAD},
        {"dead", TOW_TONE_BAD},       {"lost", TOW_TONE_BAD},       {"unknown", TOW_TONE_BAD},
        {"not ready", TOW_TONE_BAD},
    };
    for (unsigned i = 0; i < sizeof states / sizeof *states; i++)
        if (strcmp(states[i].name, name) == 0)
            return states[i].tone;
    return TOW_TONE_PLAIN;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------- */

/* Decodes one character at `text`; returns its bytes, 0 for a broken sequence. */
static size_t decode(const char *text, uint32_t *character)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (length == 0 || p[0] > 0xf4)
        return 0;
    uint32_t c = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) /* also stops at the final zero */
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    *character = c;
    bool surrogate = c >= 0xd800 && c < 0xe000;
    return c < smallest[length] || surrogate || c > 0x10ffff ? 0 : length;
}

size_t tow_utf8_length(const char *text)
{
    uint32_t c;
    return decode(text, &c);
}

/* Controls, and the marks that turn the direction of text: both change what is seen. */
static bool steers_terminal(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

const char *tow_safe_text(const char *text, char *out, size_t size)
{
    size_t used = 0;
    while (*text && used + 1 < size) {
        uint32_t c;
        size_t length = decode(text, &c);
        if (length == 0 || steers_terminal(c)) {
            out[used++] = '?';
            text += length ? length : 1;
            continue;
        }
        if (used + length >= size)
            break;
        memcpy(out + used, text, length);
        used += length;
        text += length;
    }
    out[used] = 0;
    return out;
}

static bool in_ranges(uint32_t c, const uint32_t (*ranges)[2], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

static size_t character_width(uint32_t c)
{
    static const uint32_t none[][2] = {
        {0x300, 0x36f}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};
    static const uint32_t wide[][2] = {{0x1100, 0x115f},  {0x2e80, 0xa4cf},   {0xac00, 0xd7a3},
                                       {0xf900, 0xfaff},  {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                                       {0xffe0, 0xffe6},  {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff},
                                       {0x20000, 0x3fffd}};
    if (in_ranges(c, none, sizeof none / sizeof *none))
        return 0;
    return in_ranges(c, wide, sizeof wide / sizeof *wide) ? 2 : 1;
}

/* Columns of the first `length` bytes. */
static size_t part_width(const char *text, size_t length)
{
    size_t width = 0;
    for (size_t i = 0; i < length;) {
        uint32_t c;
        size_t bytes = decode(text + i, &c);
        width += bytes ? character_width(c) : 1;
        i += bytes ? bytes : 1;
    }
    return width;
}

size_t tow_text_width(const char *text)
{
    return part_width(text, strlen(text));
}

void tow_pad(size_t columns, FILE *out)
{
    for (; columns > 0; columns--)
        fputc(' ', out);
}

size_t tow_terminal_width(FILE *out)
{
    struct winsize size = {0};
    int fd = fileno(out);
    if (fd < 0 || !isatty(fd))
        return 0;
    bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > TERMINAL_MIN;
    return known ? size.ws_col : TERMINAL_USUAL;
}

void tow_text_wrap(const char *text, size_t indent, size_t width, FILE *out)
{
    size_t column = indent;
    while (*text) {
        size_t length = strcspn(text, " "), columns = part_width(text, length);
        if (column > indent && column + 1 + columns > width) {
            fputc('\n', out);
            tow_pad(indent, out);
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, length, out);
        column += columns;
        text += length;
        text += strspn(text, " ");
    }
}

/* ---- Times ---------------------------------------------------------------------------------- */

const char *tow_time_format(uint64_t unix_ms, char out[TOW_TIME_TEXT])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm local;
    if (unix_ms == 0 || !localtime_r(&seconds, &local) ||
        strftime(out, TOW_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &local) == 0)
        snprintf(out, TOW_TIME_TEXT, "-");
    return out;
}

const char *tow_ago_format(uint64_t unix_ms, uint64_t now_ms, char out[TOW_TIME_TEXT])
{
    char duration[TW_SIZE_TEXT];
    if (unix_ms == 0)
        snprintf(out, TOW_TIME_TEXT, "never");
    else if (now_ms < unix_ms + 1000)
        snprintf(out, TOW_TIME_TEXT, "now");
    else
        snprintf(out, TOW_TIME_TEXT, "%s ago",
                 tw_duration_format((now_ms - unix_ms) / 100 * 100 * TW_MS, duration));
    return out;
}

const char *tow_times_format(uint64_t larger, uint64_t smaller, char out[TOW_TIME_TEXT])
{
    if (larger == 0 || smaller == 0)
        snprintf(out, TOW_TIME_TEXT, "-");
    else
        snprintf(out, TOW_TIME_TEXT, "%.1f times", (double)larger / (double)smaller);
    return out;
}
