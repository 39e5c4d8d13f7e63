/* tow doctor through a real controller and a real agent; and what the agent's log says at its
 * start. */
#include "tests/cluster/cluster.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct tw_cluster c;
static char output[65536];

TestSuite(doctor, .timeout = 200);

/* Runs the real program; its exit status, its output in `output`. */
static int tow(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "'%s' --insecure --controller '%s' %s 2>&1", TOWLINE_TOW,
             c.controller_url, arguments);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define SAID(text) cr_expect(strstr(output, text), "no \"%s\" in %s", text, output)

/* Waits until the log of that process has the text. */
static bool logged(const char *process, const char *text)
{
    static char log[65536];
    char path[128];
    snprintf(path, sizeof path, "%s/%s.log", c.dir, process);
    for (unsigned ms = 0; ms < 60000; ms += 100) {
        FILE *f = fopen(path, "r");
        size_t n = f ? fread(log, 1, sizeof log - 1, f) : 0;
        log[n] = 0;
        if (f)
            fclose(f);
        if (strstr(log, text))
            return true;
        tw_sleep_ms(100);
    }
    return false;
}

/* node-a is as good as this machine is; node-b has a QEMU that is none. */
Test(doctor, of_hosts_through_their_agents)
{
    tw_cluster_open(&c);
    strcpy(c.settings[TW_AGENT_A], "memory: 16MiB\n");
    strcpy(c.settings[TW_AGENT_B], "memory: 16MiB\nqemu: /bin/true\n");
    tw_cluster_start(&c);
    int status = tow("doctor --host node-a");
    cr_expect(status == 0 || status == 9 || status == 10, "%d: %s", status, output);
    SAID("node-a: ");
    SAID("\nmemory                ok       ");
    SAID("loads Towline's plugin");
    SAID("\ndata-thread           ");
    SAID("\nclock-host            ok       node-a against the controller: ");
    SAID("\nclock-controller      ok       ");
    cr_expect_eq(tow("doctor --host node-b"), 10);
    SAID("\nqemu                  fail     ");
    SAID("apt-get install qemu-system-x86");
    cr_expect_eq(tow("doctor --all -o json"), 10);
    SAID("{\"host\": \"node-a\", \"worst\": ");
    SAID("{\"host\": \"node-b\", \"worst\": \"fail\"");
    cr_expect(logged("node-b", "doctor \"fails\" probe=qemu"), "logs in %s", c.dir);
    tw_cluster_kill(&c, TW_AGENT_B);
    cr_expect_eq(tow("doctor --host node-b"), 3);
    cr_expect_eq(tow("doctor --all"), 10);
    SAID("node-b: 1 fail\n");
    cr_expect_eq(tow("doctor --host node-x"), 4);
    tw_cluster_close(&c);
}

/* The agent ends at once even while a QEMU hangs that it wanted to know of. */
Test(doctor, a_hanging_qemu_does_not_hold_the_agent)
{
    char script[160], yaml[320];
    tw_cluster_open(&c);
    snprintf(script, sizeof script, "%s/hangs", c.dir);
    FILE *f = fopen(script, "w");
    cr_assert_not_null(f);
    fputs("#!/bin/sh\nexec sleep 1000\n", f);
    fchmod(fileno(f), 0700);
    fclose(f);
    snprintf(yaml, sizeof yaml, "qemu: %s\n", script);
    strcpy(c.settings[TW_AGENT_B], yaml);
    tw_cluster_start(&c);
    cr_assert_eq(kill(c.processes[TW_AGENT_B].pid, SIGTERM), 0);
    unsigned ms = 0;
    for (; ms < 60000 && !tw_cluster_process_ended(&c, TW_AGENT_B); ms += 10)
        tw_sleep_ms(10);
    cr_expect_lt(ms, 60000);
    cr_expect(logged("node-b", "\"stopped\""), "logs in %s", c.dir);
    tw_cluster_close(&c);
}
