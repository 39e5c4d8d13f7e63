/* tow doctor, the real program: of this machine, and through a controller with canned answers. */
#include "cli/test_tow.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(doctor, .init = tow_setup, .fini = tow_teardown, .timeout = 120);

#define SAID(text) cr_expect(strstr(run.out_text, text), "no \"%s\" in %s", text, run.out_text)
#define COMPLAINED(text)                                                                           \
    cr_expect(strstr(run.err_text, text), "no \"%s\" in %s", text, run.err_text)

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    cr_assert_not_null(text, "%s", name);
    return text;
}

/* The result of that name of the first diagnosis. */
static const json_t *result_of(const json_t *root, const char *name)
{
    const json_t *first = json_array_get(json_object_get(root, "diagnoses"), 0), *result;
    size_t i;
    json_array_foreach(json_object_get(first, "results"), i, result)
    {
        if (strcmp(text_of(result, "name"), name) == 0)
            return result;
    }
    cr_assert_fail("no result %s in %s", name, run.out_text);
    return NULL;
}

Test(doctor, a_good_host)
{
    cr_assert_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 0, "%s%s", run.err_text,
                 run.out_text);
    SAID("node-a: 3 ok, 1 skipped\n\nPROBE             VERDICT  FOUND\n");
    SAID("memlock           ok       8.0 MiB ?[2J\n");
    SAID("clock-host        ok       node-a against the controller: 0 ns ahead");
    SAID("clock-controller  ok       the controller against this machine: ");
    cr_expect_null(strstr(run.out_text, "mend"));
}

Test(doctor, exit_status_by_the_worst_verdict)
{
    fake.memlock_verdict = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_WARN;
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 9);
    SAID("node-a: 1 warn, 2 ok, 1 skipped\n");
    SAID("\nmemlock\n  found   8.0 MiB ?[2J\n  needed  what the test needs\n"
         "  mend    ulimit -l unlimited\n");
    fake.memlock_verdict = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_FAIL;
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 10);
    fake.memlock_verdict = (Towline__V1__ProbeVerdict)99;
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 10, "unknown is not good");
}

Test(doctor, clocks)
{
    fake.host_clock_ahead_us = 5000000;
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 9);
    SAID("node-a against the controller: 5.00 s ahead");
    SAID("timedatectl set-ntp true");
    fake.host_clock_ahead_us = 120000000;
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-a"), 10);
}

Test(doctor, json)
{
    fake.memlock_verdict = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_WARN;
    cr_assert_eq(TOW(&run, &fake, "doctor", "--host", "node-a", "-o", "json"), 9);
    json_t *root = json_output();
    cr_expect_str_eq(text_of(root, "worst"), "warn");
    const json_t *memlock = result_of(root, "memlock");
    cr_expect_str_eq(text_of(memlock, "verdict"), "warn");
    cr_expect_str_eq(text_of(memlock, "found"), "8.0 MiB \033[2J", "as it came");
    cr_expect_str_eq(text_of(memlock, "needed"), "what the test needs");
    cr_expect_str_eq(text_of(memlock, "mend"), "ulimit -l unlimited");
    cr_expect_str_eq(text_of(result_of(root, "rdma"), "verdict"), "skipped");
    json_decref(root);
}

Test(doctor, all_hosts_and_one_is_silent)
{
    cr_assert_eq(TOW(&run, &fake, "doctor", "--all"), 10);
    SAID("node-a: 3 ok, 1 skipped\n");
    SAID("node-b: 1 fail\n");
    SAID("agent  fail     host node-b: does not answer\n");
    cr_assert_eq(TOW(&run, &fake, "doctor", "--all", "-ojson"), 10);
    json_t *root = json_output();
    cr_expect_eq(json_array_size(json_object_get(root, "diagnoses")), 2);
    json_decref(root);
}

Test(doctor, hosts_that_cannot_be_asked)
{
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-x"), 4);
    COMPLAINED("no such host");
    cr_expect_eq(TOW(&run, &fake, "doctor", "--host", "node-b"), 3);
    cr_expect_str_eq(run.out_text, "");
    fake_controller_stop(&fake);
    cr_expect_eq(TOW(&run, &fake, "doctor", "--all"), 3);
    fake_controller_restart(&fake);
}

Test(doctor, wrong_use)
{
    cr_expect_eq(TOW(&run, &fake, "doctor", "--all", "--host", "node-a"), 2);
    cr_expect_eq(TOW(&run, &fake, "doctor", "--all", "--qemu", "/bin/true"), 2);
    COMPLAINED("tow: --qemu: only for this machine");
    cr_expect_eq(TOW(&run, &fake, "doctor", "--memory", "much"), 2);
    COMPLAINED("a size, as 8GiB");
}

/* What a machine has differs; what this test gives it does not. */
Test(doctor, this_machine_needs_no_controller)
{
    fake_controller_stop(&fake);
    cr_assert_eq(TOW(&run, &fake, "doctor", "--memory", "1024TiB", "--qemu", "/bin/true",
                     "--state-dir", "/proc/self/nothing", "-ojson"),
                 10, "%s", run.err_text);
    fake_controller_restart(&fake);
    json_t *root = json_output();
    cr_expect_str_eq(text_of(root, "worst"), "fail");
    cr_expect_str_eq(text_of(result_of(root, "memory"), "verdict"), "fail");
    cr_expect(strstr(text_of(result_of(root, "memory"), "needed"), "1.0 PiB"));
    cr_expect_str_eq(text_of(result_of(root, "qemu"), "verdict"), "fail");
    cr_expect_str_eq(text_of(result_of(root, "state-dir"), "verdict"), "fail");
    cr_expect_str_eq(text_of(result_of(root, "certificate"), "verdict"), "skipped");
    json_decref(root);
}

Test(doctor, this_machine_with_what_there_is)
{
    int status = TOW(&run, &fake, "doctor", "--memory", "64MiB", "--color", "always");
    cr_expect(status == 0 || status == 9 || status == 10, "%d %s", status, run.err_text);
    SAID("\033[1mthis machine\033[0m: ");
    SAID("qemu");
    SAID("\033[32mok\033[0m");
    TOW(&run, &fake, "doctor", "--memory", "64MiB");
    cr_expect_null(strchr(run.out_text, '\033'), "no colour into a pipe");
}
