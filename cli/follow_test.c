/* Following a migration and events with the real program. */
#include "cli/test_tow.h"

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

TestSuite(follow, .init = tow_setup, .fini = tow_teardown, .timeout = 60);

#define START(terminal, ...)                                                                       \
    run_start(&run, fake.url, (const char *const[]){__VA_ARGS__, NULL}, terminal)

static void sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

Test(follow, migration_to_its_end)
{
    fake.looks = 3;
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--wait"), 0, "%s",
                 run.err_text);
    cr_expect(said("m-1  vm web-1  node-a -> node-b  completed\n"), "%s", run.out_text);
    cr_expect(said("ROUND          LINES  ZERO  PAGES     BYTES    TIME\n"
                   "0 (full copy)   1000     0    500  70.3 KiB  1.5 ms\n"
                   "1                500     0    250  35.2 KiB  1.5 ms\n"
                   "2 (stopped)      250     0    125  17.6 KiB  1.5 ms\n"),
              "%s", run.out_text);
    cr_expect(said("downtime       12.3 ms"));
    cr_expect(said("total          4.20 s"));
    cr_expect(complained("m-1: copying, round, full copy 50 %, 2 rounds"), "%s", run.err_text);
    cr_expect_not(complained("\033["), "no drawing where no terminal is");
    cr_expect_geq(fake.looked, 3);
}

Test(follow, migration_that_does_not_move_the_vm)
{
    fake.end_state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED;
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "-w"), 6);
    cr_expect(complained("tow: vm web-1: the rounds did not converge (expected 2 MiB, given 9 "
                         "MiB)\n"),
              "%s", run.err_text);
    fake.looked = 0;
    fake.end_state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_CANCELLED;
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "-w"), 6);
    cr_expect(said("cancelled"));
}

Test(follow, json_at_the_end)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "-w", "-o", "json"), 0);
    json_t *root = json_loads(run.out_text, 0, NULL);
    cr_assert_not_null(root, "%s", run.out_text);
    json_t *m = json_object_get(root, "migration");
    cr_expect_str_eq(json_string_value(json_object_get(m, "state")), "completed");
    json_decref(root);
}

Test(follow, block_on_a_terminal)
{
    fake.looks = 4;
    fake.eta_up_at = 2;
    START(true, "vm", "migrate", "web-1", "node-b", "--wait");
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    cr_expect(complained("full copy  [###############---------------]  50 %  128 MiB of 256 MiB"),
              "%s", run.err_text);
    cr_expect(complained("sent       10.0 MiB; pages would have cost 200 MiB (20.0 times)"));
    cr_expect(complained("switch-over in 9.00 s (longer than thought)"), "%s", run.err_text);
    cr_expect(complained("\033[A\r\033[K"), "drawn in place");
    cr_expect(said("completed"), "the summary goes to standard output");
}

Test(follow, controller_restarts_meanwhile)
{
    fake.looks = 1000;
    START(true, "vm", "migrate", "web-1", "node-b", "--wait", "--timeout", "15s");
    cr_assert(run_wait_for(&run, "full copy"));
    fake_controller_stop(&fake);
    cr_assert(run_wait_for(&run, "controller has not answered for"), "%s", run.err_text);
    fake.looks = 0;
    fake_controller_restart(&fake);
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    cr_expect(said("completed"));
    cr_expect_eq(fake.starts, 1, "started once, whatever happened");
}

Test(follow, controller_stays_away)
{
    fake.looks = 1000;
    START(false, "vm", "migrate", "web-1", "node-b", "--wait", "--timeout", "500ms");
    cr_assert(run_wait_for(&run, "copying"));
    fake_controller_stop(&fake);
    cr_assert_eq(run_finish(&run), 3, "%s", run.err_text);
    fake_controller_restart(&fake);
}

Test(follow, interruption_leaves_the_migration_alone)
{
    fake.looks = 1000;
    START(false, "vm", "migrate", "web-1", "node-b", "--wait");
    cr_assert(run_wait_for(&run, "copying"));
    run_interrupt(&run);
    cr_assert_eq(run_finish(&run), 130);
    cr_expect(complained("the migration goes on: tow migration show m-1"), "%s", run.err_text);
    cr_expect_str_eq(fake.cancelled, "");
}

Test(follow, events_that_are_kept)
{
    cr_assert_eq(TOW(&run, &fake, "events"), 0);
    cr_expect(said("       1  2026-09-21 14:13:20  vm.running          web-1             event "
                   "number 1\n"),
              "%s", run.out_text);
    cr_expect(said("event number 5\n"), "over several answers");
    cr_assert_eq(TOW(&run, &fake, "events", "--after", "3", "--subject", "m-1"), 0);
    cr_expect(said("event number 5\n"));
    cr_expect_not(said("event number 4\n"));
    cr_expect_not(said("event number 2\n"));
}

Test(follow, gap_in_the_events_is_told)
{
    fake.events_oldest = 4;
    cr_assert_eq(TOW(&run, &fake, "events", "--after", "1"), 0);
    cr_expect_str_eq(run.err_text, "tow: events 2 to 3 are no longer kept\n");
    cr_expect(said("event number 4\n"));
}

Test(follow, events_as_json_are_lines)
{
    cr_assert_eq(TOW(&run, &fake, "events", "-o", "json", "--after", "2"), 0);
    unsigned lines = 0;
    for (char *line = strtok(run.out_text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        json_t *event = json_loads(line, 0, NULL);
        cr_assert_not_null(event, "%s", line);
        cr_expect_eq(json_integer_value(json_object_get(event, "revision")), 3 + lines);
        json_decref(event);
    }
    cr_expect_eq(lines, 3);
}

Test(follow, events_until_interrupted_and_over_a_restart)
{
    START(false, "events", "--follow", "--after", "3");
    cr_assert(run_wait_for(&run, "event number 5"));
    fake_controller_stop(&fake);
    sleep_ms(300);
    fake_controller_restart(&fake);
    sleep_ms(800);
    run_interrupt(&run);
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    unsigned fives = 0;
    for (const char *p = run.out_text; (p = strstr(p, "event number 5")); p++)
        fives++;
    cr_expect_eq(fives, 1, "resumed, not repeated");
    cr_expect_not(said("event number 3"));
}
