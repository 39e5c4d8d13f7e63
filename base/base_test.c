#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/line.h"
#include "base/machine.h"
#include "base/random.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

Test(line, arithmetic)
{
    cr_assert_eq(tw_line_of(0x1040), 0x41);
    cr_assert_eq(tw_page_of(0x1fff), 1);
    cr_assert_eq(tw_line_bit(0x1fc0), UINT64_C(1) << 63);
    cr_assert(tw_range_fits((struct tw_range){4096, 4096}, 8192));
    cr_assert_not(tw_range_fits((struct tw_range){4096, 4097}, 8192));
    cr_assert_not(tw_range_fits((struct tw_range){UINT64_MAX, 2}, 8192), "wraps");
}

Test(error, names_thing_expected_and_given)
{
    struct tw_error e;
    char text[512];
    cr_assert_eq(tw_fail(&e, TW_OUT_OF_RANGE, "vm web", "at most 4 GiB", "8 GiB", "too much of %s",
                         "memory"),
                 TW_OUT_OF_RANGE);
    cr_assert_str_eq(tw_error_text(&e, text, sizeof text),
                     "vm web: too much of memory (expected at most 4 GiB, given 8 GiB)");
    cr_assert_str_eq(tw_code_name(e.code), "OUT_OF_RANGE");
    cr_assert_eq(tw_fail_errno(&e, ENOSPC, "ram", "grow"), TW_RESOURCE_EXHAUSTED);
    cr_assert(strstr(e.what, "grow: "));
}

Test(crc32c, known_answers_and_pieces)
{
    cr_assert_eq(tw_crc32c(0, "123456789", 9), 0xe3069283u);
    uint8_t data[20000];
    struct tw_random r = {1};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)tw_random_next(&r);
    uint32_t whole = tw_crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut < sizeof data; cut += 997)
        cr_assert_eq(tw_crc32c(tw_crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
    data[12345] ^= 1;
    cr_assert_neq(tw_crc32c(0, data, sizeof data), whole);
}

Test(units, sizes)
{
    uint64_t v;
    cr_assert(tw_size_parse("256MiB", &v) && v == UINT64_C(256) << 20);
    cr_assert(tw_size_parse("1.5g", &v) && v == UINT64_C(3) << 29);
    cr_assert(tw_size_parse("128 MiB/s", &v) && v == UINT64_C(128) << 20);
    cr_assert(tw_size_parse("4096", &v) && v == 4096);
    const char *bad[] = {"", "-1", "MiB", "1Mx", "1e3", "0x10", "99999999P", "1 2", "1.2.3", "1Mi"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(tw_size_parse(bad[i], &v), "%s", bad[i]);
    char out[TW_SIZE_TEXT];
    cr_assert_str_eq(tw_size_format(1536, out), "1.5 KiB");
    cr_assert_str_eq(tw_size_format(UINT64_MAX, out), "16.0 EiB");
}

Test(units, durations)
{
    uint64_t v;
    char out[TW_SIZE_TEXT];
    cr_assert(tw_duration_parse("300ms", &v) && v == 300 * TW_MS);
    cr_assert(tw_duration_parse("1.5m", &v) && v == 90 * TW_SEC);
    cr_assert_not(tw_duration_parse("300", &v));
    cr_assert_not(tw_duration_parse("3 days", &v));
    cr_assert_str_eq(tw_duration_format(3400 * TW_US, out), "3.4 ms");
    cr_assert_eq(tw_after(TW_NEVER - 5, 10), TW_NEVER);
}

enum { IDLE, BUSY, DONE, COUNT };
static bool positive(const void *object)
{
    return *(const int *)object > 0;
}
static const struct tw_state states[COUNT] = {
    [IDLE] = {.name = "idle", .next = TW_MAY(BUSY)},
    [BUSY] = {.name = "busy", .next = TW_MAY(DONE) | TW_MAY(IDLE), .invariant = positive},
    [DONE] = {.name = "done"},
};
static const struct tw_machine_table table = {"toy", states, COUNT};

static void count_moves(void *ctx, const struct tw_machine *m, unsigned from, unsigned to,
                        const char *why)
{
    (void)m, (void)from, (void)to, (void)why;
    ++*(int *)ctx;
}

Test(machine, moves_along_the_table)
{
    int object = 1, moves = 0;
    struct tw_machine m;
    tw_machine_init(&m, &table, &object, count_moves, &moves);
    cr_assert_not(tw_machine_may(&m, DONE));
    tw_machine_move(&m, BUSY, "work");
    tw_machine_move(&m, DONE, "over");
    cr_assert(tw_machine_done(&m));
    cr_assert_eq(moves, 2);
    cr_assert_str_eq(tw_machine_state_name(&m), "done");
}

Test(machine, forbidden_move_aborts, .signal = SIGABRT)
{
    struct tw_machine m;
    tw_machine_init(&m, &table, NULL, NULL, NULL);
    tw_machine_move(&m, DONE, "jump");
}

Test(machine, broken_invariant_aborts, .signal = SIGABRT)
{
    int object = 0;
    struct tw_machine m;
    tw_machine_init(&m, &table, &object, NULL, NULL);
    tw_machine_move(&m, BUSY, "work");
}

Test(machine, prints_its_diagram)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    tw_machine_mermaid(&table, f);
    fclose(f);
    cr_assert(strstr(text, "busy --> done") && strstr(text, "done --> [*]"));
    free(text);
}

#ifdef TOWLINE_FAULTS
Test(fault, kills_at_the_named_state, .signal = SIGKILL)
{
    setenv("TOWLINE_FAULT", "other.point:kill,toy.busy:kill", 1);
    int object = 1;
    struct tw_machine m;
    tw_machine_init(&m, &table, &object, NULL, NULL);
    tw_machine_move(&m, BUSY, "work");
}

Test(fault, fails_once)
{
    setenv("TOWLINE_FAULT", "disk:fail", 1);
    cr_assert_not(tw_fault_fails("dis"));
    cr_assert(tw_fault_fails("disk"));
    cr_assert_not(tw_fault_fails("disk"));
}
#endif
