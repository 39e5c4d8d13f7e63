#include "hosts/instrumented/test_subject.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const struct tw_instrumented_config configs[] = {
    {.mode = TW_INST_MARK},
    {.mode = TW_INST_SHARING},
    {.mode = TW_INST_OWNED, .cache = {.cores = 2, .l1 = {4096, 4}, .last = {65536, 8}}},
};
#define MODES (sizeof configs / sizeof configs[0])

static const struct {
    const char *compiler, *stores, *storm, *objects;
} builds[] = {
    {"gcc", TEST_SUBJECTS "stores-gcc", TEST_SUBJECTS "storm-gcc", TEST_SUBJECTS "objects-gcc"},
#ifdef TEST_CLANG
    {"clang", TEST_SUBJECTS "stores-clang", TEST_SUBJECTS "storm-clang",
     TEST_SUBJECTS "objects-clang"},
#endif
};
#define BUILDS (sizeof builds / sizeof builds[0])

static uint8_t before[SUBJECT_BYTES], after[SUBJECT_BYTES], dirty[SUBJECT_LINES];

static bool changed(size_t line)
{
    return memcmp(before + line * 64, after + line * 64, 64) != 0;
}

/* One scenario; `missed` and `invented` count lines against a comparison of the contents. */
struct verdict {
    size_t stored, missed, invented;
};

static struct verdict play(struct subject *s, char scenario)
{
    struct verdict v = {0};
    subject_read(s, before);
    subject_tell(s, scenario);
    subject_wait(s);
    subject_read(s, after);
    subject_collect(s, dirty);
    for (size_t line = 0; line < SUBJECT_LINES; line++) {
        v.stored += changed(line);
        v.missed += changed(line) && !dirty[line];
        v.invented += !changed(line) && dirty[line];
    }
    return v;
}

/* Every scenario but the last three, by every compiler, in every mode. */
static void expect_exact(const char *compiler, const char *path, const char *scenarios)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, path, &configs[mode]);
        for (const char *scenario = scenarios; *scenario; scenario++) {
            struct verdict v = play(&s, *scenario);
            if (configs[mode].mode == TW_INST_OWNED && *scenario == 'f')
                v.invented -= 4; /* a compare-exchange that fails owns its line, as in hardware */
            cr_expect(v.stored > 0 && v.missed == 0 && v.invented == 0,
                      "%s, mode %zu, scenario %c: %zu lines stored to, %zu missed, %zu invented",
                      compiler, mode, *scenario, v.stored, v.missed, v.invented);
        }
        subject_close(&s);
    }
}

Test(instrumented, sees_every_store_and_invents_none)
{
    for (size_t i = 0; i < BUILDS; i++)
        expect_exact(builds[i].compiler, builds[i].stores, "abcdefghijkl");
}

Test(instrumented, sees_the_stores_of_cxx_objects)
{
#ifdef TEST_GXX
    for (size_t i = 0; i < BUILDS; i++)
        expect_exact(builds[i].compiler, builds[i].objects, "a");
#else
    cr_skip_test("no C++ compiler");
#endif
}

/* R7: a stored line counts whether it changed or not. */
Test(instrumented, reports_lines_rewritten_with_the_same_value)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, builds[0].stores, &configs[mode]);
        const struct verdict v = play(&s, 'o');
        cr_expect_eq(v.stored, 0);
        cr_expect_eq(v.invented, 10);
        cr_assert(tw_instrumented_attachment(s.program).same_value_is_dirty);
        subject_close(&s);
    }
}

/* The stated blind spots, as they are: one that closes should leave the documents too. */
Test(instrumented, structures_that_a_function_returns)
{
    for (size_t i = 0; i < BUILDS; i++) {
        struct subject s;
        subject_open(&s, builds[i].stores, &configs[0]);
        const struct verdict v = play(&s, 'm');
        cr_expect_eq(v.missed, strcmp(builds[i].compiler, "gcc") == 0 ? 1 : 0);
        cr_expect_eq(v.invented, 0);
        subject_close(&s);
    }
}

static bool is_listed(const struct subject *s, const char *part)
{
    static struct tw_inst_object objects[TW_INST_OBJECTS_MAX];
    const size_t count = tw_instrumented_objects(s->program, objects, TW_INST_OBJECTS_MAX);
    for (size_t i = 0; i < count && i < TW_INST_OBJECTS_MAX; i++) {
        if (strstr(objects[i].name, part))
            return true;
    }
    return false;
}

Test(instrumented, objects_without_instrumentation_are_named)
{
    struct subject s;
    subject_open(&s, builds[0].stores, &configs[0]);
    cr_expect(is_listed(&s, "libc.so"));
    cr_expect(!is_listed(&s, "foreign"));
    const struct verdict v = play(&s, 'n');
    cr_expect(is_listed(&s, "foreign"));
    cr_expect_eq(v.stored, 1 + 4);
    cr_expect_eq(v.missed, 1); /* its own store; its memcpy of 200 bytes is the runtime's */
    cr_expect_eq(v.invented, 0);
    subject_close(&s);
}

/* ---- Coming and going ------------------------------------------------------------------------ */

Test(instrumented, a_program_runs_without_an_agent_and_finds_one_later)
{
    struct subject s = {0};
    subject_start(&s, builds[0].stores);
    subject_region(&s);
    subject_tell(&s, 'a');
    subject_wait(&s);
    subject_listen(&s);
    subject_attach(&s, &configs[0]);
    subject_track(&s);
    struct tw_instrumented_stats stats;
    tw_instrumented_stats_get(s.program, &stats);
    cr_expect_eq(stats.unsettled, 0);
    const struct verdict v = play(&s, 'c');
    cr_expect(v.stored > 0 && v.missed == 0 && v.invented == 0);
    subject_close(&s);
}

Test(instrumented, a_program_survives_its_agent_and_takes_the_next)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, builds[0].stores, &configs[mode]);
        cr_expect_eq(play(&s, 'd').missed, 0);
        tw_instrumented_unwatch(s.watch);
        tw_instrumented_close(s.program);
        tw_instrumented_server_close(s.server);
        subject_tell(&s, 'l');
        subject_wait(&s);
        subject_listen(&s);
        subject_attach(&s, &configs[(mode + 1) % MODES]);
        subject_track(&s);
        const struct verdict v = play(&s, 'e');
        cr_expect(v.stored > 0 && v.missed == 0 && v.invented == 0);
        subject_close(&s);
    }
}

Test(instrumented, the_end_of_a_program_is_noticed)
{
    struct subject s;
    subject_open(&s, builds[0].storm, &configs[0]);
    cr_expect(tw_instrumented_alive(s.program));
    subject_tell(&s, 'e'); /* executes another program */
    const uint64_t end = tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
    while (tw_instrumented_alive(s.program) && tw_now(&tw_monotonic) < end)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_expect(!tw_instrumented_alive(s.program));
    subject_collect(&s, dirty); /* still answers */
    subject_close(&s);
}

/* ---- Strangers on the socket ----------------------------------------------------------------- */

static int stranger(const struct subject *s)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", s->socket);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static enum tw_code accept_one(struct subject *s, uint64_t patience_ns)
{
    struct tw_instrumented *program;
    return tw_instrumented_accept(s->server, &configs[0],
                                  tw_after(tw_now(&tw_monotonic), patience_ns), &program, NULL);
}

Test(instrumented, strangers_are_refused)
{
    struct subject s = {0};
    strcpy(s.folder, "/tmp/towline-stranger-XXXXXX");
    cr_assert(mkdtemp(s.folder));
    snprintf(s.socket, sizeof s.socket, "%s/agent.sock", s.folder);
    subject_listen(&s);
    struct tw_instrumented_server *second;
    cr_expect_eq(tw_instrumented_listen(s.socket, false, &second, NULL), TW_ALREADY_EXISTS);

    cr_expect_eq(accept_one(&s, TW_SEC), TW_UNAVAILABLE); /* it only looked whether we listen */
    cr_expect_eq(accept_one(&s, 20 * TW_MS), TW_DEADLINE_EXCEEDED);
    int fd = stranger(&s);
    cr_expect_eq(accept_one(&s, 20 * TW_MS), TW_DEADLINE_EXCEEDED); /* it says nothing */
    close(fd);
    fd = stranger(&s);
    close(fd);
    cr_expect_eq(accept_one(&s, TW_SEC), TW_UNAVAILABLE);

    struct tw_inst_hello hello = {.magic = TW_INST_MAGIC, .version = TW_INST_VERSION + 1};
    fd = stranger(&s);
    cr_expect_eq(write(fd, &hello, sizeof hello), sizeof hello);
    cr_expect_eq(accept_one(&s, TW_SEC), TW_INVALID_ARGUMENT);
    close(fd);
    fd = stranger(&s);
    cr_expect_eq(write(fd, &hello, sizeof hello - 1), sizeof hello - 1);
    cr_expect_eq(accept_one(&s, TW_SEC), TW_INVALID_ARGUMENT);
    close(fd);
    /* A good beginning, then nothing: the file was handed over, and is taken back. */
    hello.version = TW_INST_VERSION;
    fd = stranger(&s);
    cr_expect_eq(write(fd, &hello, sizeof hello), sizeof hello);
    cr_expect_eq(accept_one(&s, 20 * TW_MS), TW_DEADLINE_EXCEEDED);
    close(fd);
    tw_instrumented_server_close(s.server);
    cr_expect_eq(rmdir(s.folder), 0);
}

Test(instrumented, bad_configurations_and_ranges_are_refused)
{
    static const struct tw_instrumented_config bad[] = {
        {.mode = TW_INST_DETACHED},
        {.mode = TW_INST_MARK, .device_bytes_max = 4096},
        {.mode = TW_INST_OWNED, .cache = {.cores = 1}},
    };
    struct subject s;
    subject_open(&s, builds[0].stores,
                 &(struct tw_instrumented_config){.mode = TW_INST_MARK,
                                                  .device_bytes_max = TW_INSTRUMENTED_WINDOW});
    struct tw_instrumented *program;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_eq(tw_instrumented_accept(s.server, &bad[i], 0, &program, NULL),
                     TW_INVALID_ARGUMENT);
    static const struct {
        struct tw_range range;
        enum tw_code code;
    } ranges[] = {
        {{4096, 0}, TW_INVALID_ARGUMENT},
        {{4097, 4096}, TW_INVALID_ARGUMENT},
        {{UINT64_C(1) << 47, 4096}, TW_INVALID_ARGUMENT},
        {{UINT64_C(4096), UINT64_MAX - 4095}, TW_INVALID_ARGUMENT},
        {{0, UINT64_C(1) << 41}, TW_RESOURCE_EXHAUSTED},
        {{4096, 4096}, TW_NOT_FOUND}, /* nothing is mapped there */
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        struct tw_instrumented_watch *watch;
        cr_expect_eq(tw_instrumented_watch(s.program, &ranges[i].range, 1, &watch, NULL),
                     ranges[i].code, "range %zu", i);
    }
    cr_expect_eq(tw_instrumented_address(s.program, UINT64_C(1) << 20), UINT64_MAX);
    cr_expect_eq(tw_instrumented_device_address(s.program, 0), UINT64_MAX);
    subject_close(&s);
}
