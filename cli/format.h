/* Text for people: tones (colour by meaning), safe text, times. */
#ifndef TOWLINE_CLI_FORMAT_H
#define TOWLINE_CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum tow_tone { TOW_TONE_PLAIN, TOW_TONE_GOOD, TOW_TONE_BUSY, TOW_TONE_BAD, TOW_TONE_TITLE };

/* Terminal sequences; empty when `color` is false or the tone is plain. */
const char *tow_tone_begin(enum tow_tone tone, bool color);
const char *tow_tone_end(enum tow_tone tone, bool color);

/* What a state's name ("running", "failed") means for the operator. */
enum tow_tone tow_tone_of_state(const char *name);

/* Copies `text` with control characters and broken UTF-8 replaced by '?': names and reasons come
 * from other machines and must not steer the terminal. Cuts at a character. Returns `out`. */
const char *tow_safe_text(const char *text, char *out, size_t size);

/* Bytes of the UTF-8 character at `text`; 0 for a broken one. */
size_t tow_utf8_length(const char *text);

/* Columns on a terminal: one for each character, none for combining marks, two for wide ones. */
size_t tow_text_width(const char *text);

/* Columns of the terminal behind `out` (80 when it does not say); 0 = it is none. */
size_t tow_terminal_width(FILE *out);

void tow_pad(size_t columns, FILE *out);

/* Prints text from column `indent` on, where the cursor is, and breaks it at spaces so that it
 * stays within `width` columns; only a single longer word sticks out. No line's end behind it. */
void tow_text_wrap(const char *text, size_t indent, size_t width, FILE *out);

#define TOW_TIME_TEXT 40
/* "2026-11-22 10:00:00" in local time; "-" for 0. */
const char *tow_time_format(uint64_t unix_ms, char out[TOW_TIME_TEXT]);
/* "3.2 s ago", "now" (also for a time to come: clocks differ); "never" for 0. */
const char *tow_ago_format(uint64_t unix_ms, uint64_t now_ms, char out[TOW_TIME_TEXT]);

/* "15.3 times": how many times `smaller` goes into `larger`; "-" when that says nothing. */
const char *tow_times_format(uint64_t larger, uint64_t smaller, char out[TOW_TIME_TEXT]);

#endif
