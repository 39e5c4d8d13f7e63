#include "config/config.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct level {
    uint64_t size_bytes, ways;
};
struct sample {
    char listen[32];
    char note[16];
    uint64_t lease_ns, memory_bytes, workers;
    bool verify;
    unsigned colour;
    struct level cache;
};

static bool is_url(const void *value)
{
    return strstr(value, "://") != NULL;
}

static const char *const colours[] = {"red", "green", NULL};
static const struct tw_config_key level_keys[] = {
    {.name = "size", .type = TW_CONFIG_SIZE, .offset = offsetof(struct level, size_bytes)},
    {.name = "ways",
     .type = TW_CONFIG_UINT,
     .offset = offsetof(struct level, ways),
     .required = true,
     .min = 1,
     .max = 32},
};
#define STRING(member)                                                                             \
    .type = TW_CONFIG_STRING, .offset = offsetof(struct sample, member),                           \
    .size = sizeof(((struct sample *)0)->member)
static const struct tw_config_key keys[] = {
    {.name = "listen", STRING(listen), .required = true, .valid = is_url, .expected = "a URL"},
    {.name = "note", STRING(note), .may_be_empty = true},
    {.name = "lease",
     .type = TW_CONFIG_DURATION,
     .offset = offsetof(struct sample, lease_ns),
     .min = 100 * TW_MS,
     .max = 60 * TW_SEC},
    {.name = "memory", .type = TW_CONFIG_SIZE, .offset = offsetof(struct sample, memory_bytes)},
    {.name = "workers", .type = TW_CONFIG_UINT, .offset = offsetof(struct sample, workers)},
    {.name = "verify", .type = TW_CONFIG_BOOL, .offset = offsetof(struct sample, verify)},
    {.name = "colour",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct sample, colour),
     .names = colours},
    {.name = "cache",
     .type = TW_CONFIG_MAPPING,
     .offset = offsetof(struct sample, cache),
     .keys = level_keys,
     .key_count = 2},
};
#define KEY_COUNT (sizeof keys / sizeof *keys)

static enum tw_code parse(const char *text, struct sample *out, struct tw_error *err)
{
    *out = (struct sample){.lease_ns = 3 * TW_SEC};
    tw_error_clear(err);
    return tw_config_parse("a.yaml", text, strlen(text), keys, KEY_COUNT, out, err);
}

Test(config, reads_every_type)
{
    struct sample s;
    struct tw_error e;
    cr_assert_eq(parse("# a comment\n"
                       "listen: tcp://127.0.0.1:1\n"
                       "note: \"\"\n"
                       "lease: 1.5s\n"
                       "memory: 256MiB\n"
                       "workers: 4\n"
                       "verify: true\n"
                       "colour: green\n"
                       "cache: {size: 32K, ways: 8}\n",
                       &s, &e),
                 TW_OK, "%s", e.what);
    cr_assert_str_eq(s.listen, "tcp://127.0.0.1:1");
    cr_assert_eq(s.lease_ns, 1500 * TW_MS);
    cr_assert_eq(s.memory_bytes, UINT64_C(256) << 20);
    cr_assert_eq(s.workers, 4);
    cr_assert(s.verify);
    cr_assert_eq(s.colour, 1);
    cr_assert_eq(s.cache.size_bytes, 32768);
    cr_assert_eq(s.cache.ways, 8);
}

Test(config, absent_keys_keep_their_defaults)
{
    struct sample s;
    struct tw_error e;
    cr_assert_eq(parse("listen: a://b\n", &s, &e), TW_OK);
    cr_assert_eq(s.lease_ns, 3 * TW_SEC);
}

struct bad {
    const char *text, *error; /* part of "where: what (expected X, given Y)" */
};
static const struct bad bad[] = {
    {"", "a.yaml:1: key is missing (expected listen)"},
    {"lease: 1s\n", "a.yaml:1: key is missing (expected listen)"},
    {"listen: a://b\nlisten: a://c\n", "a.yaml:2: key given twice"},
    {"listen: a://b\n\nlaese: 1s\n", "a.yaml:3: unknown key (expected perhaps lease, given laese)"},
    {"listen: a://b\nzzzzzz: 1\n", "a.yaml:2: unknown key (expected one of listen, note"},
    {"listen: a://b\nlease: 5\n", "a.yaml:2: bad value of lease (expected a duration"},
    {"listen: a://b\nlease: 5ms\n",
     "a.yaml:2: bad value of lease (expected at least 100.0 ms, given \"5ms\")"},
    {"listen: a://b\nlease: 5m\n", "expected at most 1.0 min"},
    {"listen: a://b\nmemory: lots\n", "expected a size like 256MiB, given \"lots\""},
    {"listen: a://b\nworkers: -1\n", "expected a whole number, given \"-1\""},
    {"listen: a://b\nworkers: 18446744073709551616\n", "expected a whole number"},
    {"listen: a://b\nworkers: 0x10\n", "expected a whole number"},
    {"listen: a://b\nverify: yes\n", "expected true or false, given \"yes\""},
    {"listen: a://b\ncolour: blue\n", "expected one of red, green, given \"blue\""},
    {"listen: nothing\n", "a.yaml:1: bad value of listen (expected a URL, given \"nothing\")"},
    {"listen:\n", "expected a text that is not empty"},
    {"listen: a://b\nnote:\n", "expected a text that is not empty"},
    {"listen: a://01234567890123456789012345678901234\n", "expected at most 31 bytes"},
    {"listen: [a, b]\n", "a.yaml:1: listen (expected a value, given a list)"},
    {"listen: {a: b}\n", "(expected a value, given a mapping)"},
    {"listen: a://b\ncache: 5\n", "a.yaml:2: cache (expected a mapping, given a value)"},
    {"listen: a://b\ncache:\n  size: 1K\n", "a.yaml:3: key is missing (expected ways)"},
    {"listen: a://b\ncache:\n  size: 1K\n  ways: 33\n", "a.yaml:4: bad value of ways"},
    {"listen: &x a://b\n", "expected a plain value, given an anchor or a tag"},
    {"listen: !!str a://b\n", "expected a plain value, given an anchor or a tag"},
    {"listen: *x\n", "a.yaml:1"},
    {"? [a]\n: b\n", "a key (expected a value, given a list)"},
    {"- a\n", "the file (expected a mapping, given a list)"},
    {"listen: \"a://\\0b\"\n", "given a zero byte"},
    {"listen: a://b\n---\nlisten: a://c\n", "text behind the end"},
    {"listen: a://b\n\tlease: 1s\n", "a.yaml:2: not YAML"},
    {"listen: \"a\n", "not YAML"},
    {"listen: \xff\xfe\n", "not YAML"},
};

Test(config, bad_text_is_refused_with_its_line)
{
    struct sample s;
    struct tw_error e;
    char text[600];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(parse(bad[i].text, &s, &e), TW_INVALID_ARGUMENT, "%s", bad[i].text);
        tw_error_text(&e, text, sizeof text);
        cr_assert(strstr(text, bad[i].error), "%s gave\n  %s\nbut not\n  %s", bad[i].text, text,
                  bad[i].error);
    }
}

Test(config, long_paths_keep_their_line)
{
    struct sample s = {0};
    struct tw_error e;
    char path[200];
    memset(path, 'd', sizeof path);
    strcpy(path + 150, "/agent.yaml");
    cr_assert_eq(tw_config_parse(path, "\n\nx: 1", 6, keys, KEY_COUNT, &s, &e),
                 TW_INVALID_ARGUMENT);
    cr_assert(strstr(e.where, "/agent.yaml:3"), "%s", e.where);
}

Test(config, files)
{
    struct sample s = {0};
    struct tw_error e;
    char path[] = "/tmp/towline-config-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, "listen: a://b\n", 14), 14);
    cr_assert_eq(tw_config_read(path, keys, KEY_COUNT, &s, &e), TW_OK);
    cr_assert_eq(ftruncate(fd, TW_CONFIG_BYTES_MAX + 10), 0);
    cr_assert_eq(tw_config_read(path, keys, KEY_COUNT, &s, &e), TW_INVALID_ARGUMENT);
    cr_assert_str_eq(e.expected, "at most 256 KiB");
    close(fd);
    unlink(path);
    cr_assert_eq(tw_config_read(path, keys, KEY_COUNT, &s, &e), TW_NOT_FOUND);
    cr_assert_neq(tw_config_read("/", keys, KEY_COUNT, &s, &e), TW_OK, "a folder is no file");
}

Test(config, options_pass_the_same_checks)
{
    struct sample s = {0};
    struct tw_error e;
    cr_assert_eq(tw_config_set("--lease", "lease", "2s", keys, KEY_COUNT, &s, &e), TW_OK);
    cr_assert_eq(s.lease_ns, 2 * TW_SEC);
    cr_assert_eq(tw_config_set("--lease", "lease", "2h", keys, KEY_COUNT, &s, &e),
                 TW_INVALID_ARGUMENT);
    cr_assert_str_eq(e.where, "--lease");
    cr_assert_eq(tw_config_set("--x", "x", "2h", keys, KEY_COUNT, &s, &e), TW_NOT_FOUND);
    cr_assert_eq(tw_config_set("--cache", "cache", "2h", keys, KEY_COUNT, &s, &e),
                 TW_INVALID_ARGUMENT);
}

Test(config, nearest)
{
    const char *const names[] = {"listen", "lease", "store", "log_level", NULL};
    cr_assert_str_eq(tw_config_nearest("lisen", names), "listen");
    cr_assert_str_eq(tw_config_nearest("laese", names), "lease");
    cr_assert_str_eq(tw_config_nearest("log-level", names), "log_level");
    cr_assert_null(tw_config_nearest("memory", names));
    cr_assert_null(tw_config_nearest("", names));
}
