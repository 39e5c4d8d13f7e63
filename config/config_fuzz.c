/* The reader on hostile text: never reads or writes out of bounds, always ends, and a value that
 * it took keeps to its bounds. */
#include "config/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct inner {
    uint64_t size_bytes;
    char name[8];
};
struct outer {
    char text[8];
    char guard; /* a string too long would land here */
    uint64_t number, duration_ns;
    bool flag;
    unsigned choice;
    struct inner inner;
};

static const char *const names[] = {"a", "b", NULL};
static const struct tw_config_key inner_keys[] = {
    {.name = "size", .type = TW_CONFIG_SIZE, .offset = offsetof(struct inner, size_bytes)},
    {.name = "name", .type = TW_CONFIG_STRING, .offset = offsetof(struct inner, name), .size = 8},
};
static const struct tw_config_key keys[] = {
    {.name = "t", .type = TW_CONFIG_STRING, .offset = offsetof(struct outer, text), .size = 8},
    {.name = "n", .type = TW_CONFIG_UINT, .offset = offsetof(struct outer, number), .max = 9},
    {.name = "d", .type = TW_CONFIG_DURATION, .offset = offsetof(struct outer, duration_ns)},
    {.name = "f", .type = TW_CONFIG_BOOL, .offset = offsetof(struct outer, flag)},
    {.name = "c",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct outer, choice),
     .names = names},
    {.name = "i",
     .type = TW_CONFIG_MAPPING,
     .offset = offsetof(struct outer, inner),
     .keys = inner_keys,
     .key_count = 2},
};

static void check(const char *text, size_t size)
{
    struct outer o = {.guard = 'g'};
    struct tw_error err;
    tw_error_clear(&err);
    enum tw_code code =
        tw_config_parse("fuzz", text, size, keys, sizeof keys / sizeof *keys, &o, &err);
    if (o.guard != 'g' || o.number > 9 || o.choice > 1 || !memchr(o.text, 0, 8) ||
        !memchr(o.inner.name, 0, 8))
        abort();
    if (code != TW_OK && (err.code != code || !err.where[0] || !err.what[0]))
        abort();
}

/* Pieces that pass the scanner, so that random bytes reach the tables as well. */
static const char *const pieces[] = {
    "t: ",    "n: ", "d: ",  "f: ",  "c: ", "i: ",  "i: {",   "}",        "\n", "size: ",
    "name: ", "1",   "9",    "10",   "2s",  "true", "a",      "b",        "\"", "'",
    "- ",     "[",   "]",    ", ",   "&x ", "*x",   "!!str ", "? ",       ": ", "---\n",
    "...\n",  "#",   "|\n ", ">\n ", "  ",  "\t",   "\\0",    "12345678", "t",  "%YAML 1.1\n"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check((const char *)data, size);
    char text[1024];
    size_t length = 0;
    for (size_t i = 0; i < size && i < 64; i++) {
        const char *piece = pieces[data[i] % (sizeof pieces / sizeof *pieces)];
        memcpy(text + length, piece, strlen(piece));
        length += strlen(piece);
    }
    check(text, length);
    return 0;
}
