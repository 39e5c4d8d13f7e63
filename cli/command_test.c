/* The real program against a controller with canned answers: output and exit status. */
#include "cli/test_tow.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(command, .init = tow_setup, .fini = tow_teardown, .timeout = 60);

Test(command, status)
{
    fake.looks = 2;
    cr_assert_eq(TOW(&run, &fake, "status"), 0, "%s", run.err_text);
    cr_expect(said("controller  ready, version 0.1.0, up 1.0 min"), "%s", run.out_text);
    cr_expect(said("hosts       1 of 2 alive, 1.0 GiB of 2.0 GiB free"), "%s", run.out_text);
    cr_expect(said("paths       node-a -> node-c by tcp, in use by m-9: node-c offers no verbs\n"
                   "            node-a -> node-d by verbs: mlx5_0 port 1 is usable\n"),
              "%s", run.out_text);
    cr_expect(said("vms         2, 1 running, 1 failed"), "%s", run.out_text);
    cr_expect(said("migrations  1 running\n            m-1  vm web-1  node-a -> node-b  copying"),
              "%s", run.out_text);
}

Test(command, status_of_a_controller_that_is_not_ready)
{
    fake.not_ready = true;
    cr_assert_eq(TOW(&run, &fake, "status"), 1);
    cr_expect(said("not ready"));
    cr_expect(said("store: disk is full"));
}

Test(command, status_as_json)
{
    cr_assert_eq(TOW(&run, &fake, "-o", "json"), 0);
    json_t *root = json_output();
    cr_expect(json_is_true(json_object_get(json_object_get(root, "health"), "ready")));
    json_t *hosts = json_object_get(json_object_get(root, "hosts"), "hosts");
    cr_expect_eq(json_array_size(hosts), 2);
    json_t *description = json_object_get(json_array_get(hosts, 0), "description");
    json_t *path = json_array_get(json_object_get(description, "paths"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(path, "peer")), "node-c");
    cr_expect_str_eq(json_string_value(json_object_get(path, "fabric")), "tcp");
    cr_expect_str_eq(json_string_value(json_object_get(path, "reason")), "node-c offers no verbs");
    json_decref(root);
}

Test(command, host_list_and_show)
{
    cr_assert_eq(TOW(&run, &fake, "host", "list"), 0);
    cr_expect(said("NAME    STATE  VMS   MEMORY     FREE  CPUS  FABRIC  SEEN   VERSION\n"
                   "node-a  alive    1  2.0 GiB  1.0 GiB     2  verbs   never  -\n"
                   "node-b  dead     1  2.0 GiB  1.0 GiB     2  verbs   never  -\n"),
              "%s", run.out_text);
    cr_assert_eq(TOW(&run, &fake, "host", "show", "node-a"), 0);
    cr_expect(said("state          alive\n"));
    cr_expect(said("fabric         verbs: mlx5_0 port 1 (RoCE) is usable\n"
                   "by tcp         127.0.0.1:7202\n"
                   "by verbs       10.0.0.1:7203\n"),
              "%s", run.out_text);
    cr_expect(said("PEER    FABRIC  IN USE BY  REASON\n"
                   "node-c  tcp     m-9        node-c offers no verbs\n"
                   "node-d  verbs   -          mlx5_0 port 1 is usable\n"),
              "%s", run.out_text);
    cr_expect(said("4711"));
    cr_assert_eq(TOW(&run, &fake, "host", "show", "node-x"), 4);
    cr_expect_str_eq(run.err_text,
                     "tow: host: no such host (expected node-a or node-b, given node-x)\n");
    cr_expect_str_eq(run.out_text, "");
}

Test(command, vm_list_and_show)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "list"), 0);
    cr_expect(said("web-1  running  node-a  256 MiB      1  none   -              3  -\n"), "%s",
              run.out_text);
    cr_expect(said("killed?[2J by signal 9"), "a reason cannot steer the terminal");
    cr_assert_eq(TOW(&run, &fake, "vm", "list", "--host", "node-b"), 0);
    cr_expect_str_eq(run.out_text, "none\n");
    cr_assert_eq(TOW(&run, &fake, "vm", "show", "web-1", "-ojson"), 0);
    json_t *root = json_output(), *vm = json_object_get(root, "vm");
    cr_expect_str_eq(json_string_value(json_object_get(vm, "state")), "running");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(vm, "spec"), "memory_bytes")),
                 256 << 20);
    json_decref(root);
    cr_assert_eq(TOW(&run, &fake, "vm", "show", "gone"), 4);
    cr_expect_str_eq(run.err_text, "tow: vm gone: no such VM\n");
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

Test(command, vm_create)
{
    char folder[] = "/tmp/tow-create-XXXXXX", path[64], kernel[96], expected[128];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/vm.yaml", folder);
    snprintf(kernel, sizeof kernel, "%s/images/vmlinuz", folder);
    write_file(path, "name: web-2\nmemory: 8MiB\nkernel: images/vmlinuz\n");
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path, "--host", "node-a"), 0);
    cr_expect_str_eq(run.out_text, "vm web-2: running on node-a\n");
    cr_expect_str_eq(fake.created_name, "web-2");
    cr_expect_str_eq(fake.created_kernel, kernel);
    cr_expect_str_eq(fake.created_host, "node-a");
    cr_expect_eq(fake.created_memory, 8 << 20);
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path, "--host", "ghost"), 4);

    write_file(path, "name: taken\nmemory: 8MiB\nkernel: k\n");
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path), 5);
    cr_expect_str_eq(run.err_text, "tow: vm taken: name is in use\n");
    write_file(path, "name: bad\nmemory: 8MiB\nkernel: k\n");
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path), 1);
    cr_expect_str_eq(run.out_text, "vm bad: failed on node-a: kernel not found\n");

    fake.created_name[0] = 0;
    write_file(path, "name: web-2\nmemory: 8MiB\nkernel: k\nmemroy: 9MiB\n");
    snprintf(expected, sizeof expected, "%s:4: unknown key", path);
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path), 2);
    cr_expect(complained(expected), "%s", run.err_text);
    unlink(path);
    cr_expect_eq(TOW(&run, &fake, "vm", "create", "-f", path), 2);
    cr_expect_eq(TOW(&run, &fake, "vm", "create"), 2);
    cr_expect_str_eq(fake.created_name, "", "nothing was asked of the controller");
    rmdir(folder);
}

Test(command, vm_stop_and_delete)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "stop", "web-1"), 0);
    cr_expect_str_eq(run.out_text, "vm web-1: stopped on node-a\n");
    cr_assert_eq(TOW(&run, &fake, "vm", "delete", "web-1"), 0);
    cr_expect_str_eq(run.out_text, "vm web-1: deleted\n");
    cr_expect_str_eq(fake.removed, "web-1");
    cr_assert_eq(TOW(&run, &fake, "vm", "delete", "gone"), 4);
}

Test(command, migrate_carries_every_limit)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--bandwidth", "128MiB/s",
                     "--downtime", "250ms", "--max-rounds", "7", "--on-no-convergence", "stop",
                     "--give-up-after", "2m", "--skip-verify", "--method", "hybrid", "--predictor",
                     "stride"),
                 0);
    cr_expect_str_eq(run.out_text, "m-1: started, vm web-1, node-a -> node-b; see: tow migration "
                                   "show m-1\n");
    cr_expect_str_eq(fake.migrated_vm, "web-1");
    cr_expect_str_eq(fake.migrated_to, "node-b");
    cr_expect_eq(fake.limits.bandwidth_bytes_per_s, 128u << 20);
    cr_expect_eq(fake.limits.downtime_ms, 250);
    cr_expect_eq(fake.limits.max_rounds, 7);
    cr_expect_eq(fake.limits.timeout_ms, 120000);
    cr_expect(fake.limits.skip_verify);
    cr_expect_eq(fake.limits.method, TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID);
    cr_expect_eq(fake.limits.predictor, TOWLINE__V1__PREDICTOR__PREDICTOR_STRIDE);
    cr_expect_eq(fake.limits.on_no_convergence,
                 TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP);
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--downtime-ms", "40"), 0);
    cr_expect_eq(fake.limits.downtime_ms, 40);
    cr_expect_eq(fake.limits.bandwidth_bytes_per_s, 0);
}

Test(command, migrate_refuses_unusable_limits)
{
    static const char *const bad[][3] = {
        {"--bandwidth", "fast", "a rate above 0, as 128MiB/s"},
        {"--bandwidth", "0", "a rate above 0, as 128MiB/s"},
        {"--downtime", "300", "a duration of at least 1ms"},
        {"--downtime-ms", "0", "a number from 1 to 4294967295"},
        {"--max-rounds", "-3", "a number from 1 to 1000"},
        {"--on-no-convergence", "hope", "abort or stop"},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", bad[i][0], bad[i][1]), 2);
        cr_expect(complained(bad[i][0]) && complained(bad[i][2]), "%s", run.err_text);
    }
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--downtime", "1s",
                     "--downtime-ms", "5"),
                 2);
    cr_expect_eq(fake.starts, 0);
}

Test(command, plan_and_migrate_by_it)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "plan", "web-1", "--to", "auto", "--for", "200ms",
                     "--total", "1m", "--slow-down", "20"),
                 0);
    cr_expect_eq(fake.planned_for_ms, 200);
    cr_expect_eq(fake.limits.total_ms, 60000);
    cr_expect_eq(fake.limits.slow_down_percent, 20);
    cr_expect_str_eq(fake.migrated_to, "");
    cr_expect(said("p-1  vm web-1  node-a -> node-b\n"), "%s", run.out_text);
    cr_expect(said("path           512 MiB/s, as in m-9\n"));
    cr_expect(said("tow vm migrate --plan p-1\n"));
    cr_expect(said("because of the test"));
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "--plan", "p-1"), 0);
    cr_expect_str_eq(fake.migrated_plan, "p-1");
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "--plan", "p-1", "web-1"), 2);
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "--plan", "p-1", "--downtime", "1s"), 2);
    fake.plan_refused = true;
    cr_expect_eq(TOW(&run, &fake, "vm", "plan", "web-1", "node-b"), 6);
    cr_expect(said("refused: see the reasons\n"));
}

Test(command, migrate_to_any_host)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "--to", "auto", "--method", "auto"), 0);
    cr_expect_str_eq(fake.migrated_to, "");
    cr_expect_eq(fake.limits.method, TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO);
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1"), 2);
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate"), 2);
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--to", "node-b"), 2);
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--slow-down", "91"), 2);
}

Test(command, a_mirror_is_asked_for)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b", "--method", "postcopy",
                     "--mirror", "node-c"),
                 0);
    cr_expect_str_eq(fake.mirror, "node-c");
    cr_assert_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-b"), 0);
    cr_expect_str_eq(fake.mirror, "");
    cr_assert_eq(TOW(&run, &fake, "migration", "reconnect", "m-1"), 0);
    cr_expect_not(fake.from_mirror);
    cr_assert_eq(TOW(&run, &fake, "migration", "reconnect", "m-1", "--from-mirror"), 0);
    cr_expect(fake.from_mirror);
}

Test(command, a_mirror_that_is_none_is_shown_with_the_reason)
{
    fake.mirror_state = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_WITHOUT;
    fake.mirror_reason = "node-c: it has taken nothing";
    cr_assert_eq(TOW(&run, &fake, "migration", "show", "m-1"), 0);
    cr_expect(said("mirror         none: the VM moves without one") &&
              said("node-c: it has taken nothing\n"));
    fake.mirror_state = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_HOLDING;
    fake.mirror_reason = NULL;
    cr_assert_eq(TOW(&run, &fake, "migration", "show", "m-1"), 0);
    cr_expect(said("mirror         holds all that follows"));
    /* What the service says of it is what is said. */
    fake.risk = "the destination runs the VM and goes on with what its mirror keeps";
    cr_expect_eq(TOW(&run, &fake, "migration", "resolve", "m-1", "--lost", "node-b"), 2);
    cr_expect(said("goes on with what its mirror keeps\n") && complained("again with --yes"));
}

Test(command, migration_set_pause_why)
{
    cr_assert_eq(TOW(&run, &fake, "migration", "set", "m-1", "--bandwidth", "64MiB/s"), 0);
    cr_expect(fake.adjusted.set_bandwidth && !fake.adjusted.set_downtime);
    cr_expect_eq(fake.adjusted.bandwidth_bytes_per_s, 64u << 20);
    cr_assert_eq(TOW(&run, &fake, "migration", "set", "m-1", "--bandwidth", "unlimited",
                     "--downtime", "80ms"),
                 0);
    cr_expect_eq(fake.adjusted.bandwidth_bytes_per_s, 0);
    cr_expect_eq(fake.adjusted.downtime_ms, 80);
    cr_assert_eq(TOW(&run, &fake, "migration", "pause", "m-1"), 0);
    cr_expect(fake.adjusted.set_paused && fake.adjusted.paused);
    cr_assert_eq(TOW(&run, &fake, "migration", "resume", "m-1"), 0);
    cr_expect(fake.adjusted.set_paused && !fake.adjusted.paused);
    cr_expect_eq(TOW(&run, &fake, "migration", "set", "m-1"), 2);
    cr_expect_eq(TOW(&run, &fake, "migration", "set", "m-1", "--bandwidth", "0"), 2);
    cr_assert_eq(TOW(&run, &fake, "migration", "set", "m-1", "--slow-down", "35"), 0);
    cr_expect(fake.adjusted.set_slow_down && !fake.adjusted.set_downtime);
    cr_expect_eq(fake.adjusted.slow_down_percent, 35);
    cr_assert_eq(TOW(&run, &fake, "migration", "set", "m-1", "--slow-down", "none"), 0);
    cr_expect(fake.adjusted.set_slow_down && fake.adjusted.slow_down_percent == 0);
    cr_expect_eq(TOW(&run, &fake, "migration", "set", "m-1", "--slow-down", "0"), 2);
    cr_expect_eq(TOW(&run, &fake, "migration", "set", "m-1", "--slow-down", "91"), 2);
    cr_expect_eq(TOW(&run, &fake, "migration", "set", "m-1", "--slow-down", "much"), 2);
    cr_expect_eq(fake.adjusts, 6);
    cr_assert_eq(TOW(&run, &fake, "migration", "why", "r-1"), 0);
    cr_expect(said("r-1: vm web-1, to any host: refused\n"), "%s", run.out_text);
    cr_expect(said("64.0 MiB"));
    cr_expect_eq(TOW(&run, &fake, "migration", "why", "r-2"), 4);
}

Test(command, migrate_that_is_refused)
{
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "web-1", "node-a"), 5);
    cr_expect_str_eq(
        run.err_text,
        "tow: vm web-1: the VM runs there already (expected another host, given node-a)\n");
    cr_expect_eq(TOW(&run, &fake, "vm", "migrate", "gone", "node-a", "--wait"), 4);
}

Test(command, migration_list_show_cancel)
{
    fake.looked = 2;
    cr_assert_eq(TOW(&run, &fake, "migration", "list", "-n", "5"), 0);
    cr_expect(said("m-1  web-1  node-a  node-b  completed       3  10.0 MiB   200 MiB   12.3 ms  "
                   "4.20 s  2026-09-21 14:13:20  -\n"),
              "%s", run.out_text);
    cr_assert_eq(TOW(&run, &fake, "migration", "show", "m-1"), 0);
    cr_expect(said("2 (stopped)"));
    cr_expect(said("as pages       200 MiB (20.0 times as much)\n"));
    cr_expect(said("memory         compared, equal\n"));
    cr_assert_eq(TOW(&run, &fake, "migration", "show", "m-9"), 4);
    fake.looked = 0;
    cr_assert_eq(TOW(&run, &fake, "migration", "cancel", "m-1"), 0);
    cr_expect_str_eq(run.out_text, "m-1: copying (cancel asked for), vm web-1, node-a -> node-b\n");
    cr_expect_str_eq(fake.cancelled, "m-1");
    cr_assert_eq(TOW(&run, &fake, "migration", "switch", "m-1"), 0);
    cr_expect_str_eq(fake.switched, "m-1");
    cr_assert_eq(TOW(&run, &fake, "migration", "list", "--limit", "2000"), 2);
}

Test(command, migration_recover_needs_a_side_and_a_word)
{
    cr_expect_eq(TOW(&run, &fake, "migration", "recover", "m-1", "--to", "source"), 2);
    cr_expect(complained("--fenced"));
    cr_expect_eq(TOW(&run, &fake, "migration", "recover", "m-1", "--fenced"), 2);
    cr_expect_str_eq(fake.recovered, "");
    cr_assert_eq(TOW(&run, &fake, "migration", "recover", "m-1", "--to", "destination", "--fenced"),
                 0);
    cr_expect_str_eq(fake.recovered, "m-1");
    cr_expect_eq(fake.recovered_to, TOWLINE__V1__RECOVER_TO__RECOVER_TO_DESTINATION);
}

Test(command, migration_resolve_says_what_is_at_risk_before_it_decides)
{
    cr_expect_eq(TOW(&run, &fake, "migration", "resolve", "m-1"), 2);
    cr_expect(complained("--lost HOST"));
    cr_expect_eq(TOW(&run, &fake, "migration", "resolve", "m-1", "--lost", "node-b"), 2);
    cr_expect(said("the VM is lost") && complained("again with --yes"));
    cr_expect_str_eq(fake.lost, "");
    cr_expect_neq(TOW(&run, &fake, "migration", "resolve", "m-1", "--lost", "node-a", "--yes"), 0);
    cr_expect_str_eq(fake.lost, "");
    cr_assert_eq(TOW(&run, &fake, "migration", "resolve", "m-1", "--lost", "node-b", "--yes"), 0);
    cr_expect_str_eq(fake.lost, "node-b");
    cr_expect(said("m-1: copying") && said("the VM is lost"));
}

Test(command, mistakes_of_typing)
{
    cr_expect_eq(TOW(&run, &fake, "vm", "lits"), 2);
    cr_expect_str_eq(run.err_text, "tow: vm lits: no such command; did you mean \"vm list\"?\n");
    cr_expect_eq(TOW(&run, &fake, "vm", "list", "--follow"), 2);
    cr_expect_eq(TOW(&run, &fake, "-o", "yaml", "vm", "list"), 2);
    cr_expect_eq(TOW(&run, &fake, "--timeout", "soon", "vm", "list"), 2);
    cr_expect_eq(TOW(&run, &fake, "--controller", "node-a", "vm", "list"), 2);
}

Test(command, nobody_at_the_controllers_address)
{
    cr_assert_eq(
        TOW(&run, &fake, "--controller", "tcp://127.0.0.1:1", "--timeout", "300ms", "vm", "list"),
        3);
    cr_expect(complained("tow: controller tcp://127.0.0.1:1: no connection"), "%s", run.err_text);
    cr_expect(complained("Connection refused"), "%s", run.err_text);
}

Test(command, color_only_when_wanted)
{
    cr_assert_eq(TOW(&run, &fake, "vm", "list"), 0);
    cr_expect_not(said("\033["));
    cr_assert_eq(TOW(&run, &fake, "vm", "list", "--color", "always"), 0);
    cr_expect(said("\033[32mrunning\033[0m"));
    cr_assert_eq(TOW(&run, &fake, "vm", "show", "gone", "--color=always"), 4);
    cr_expect(complained("\033[31mtow:\033[0m"));
}

static void expect_fits_a_terminal(const char *what)
{
    for (const char *line = run.out_text; *line;) {
        size_t length = strcspn(line, "\n");
        cr_expect_leq(length, 80, "%s: %.*s", what, (int)length, line);
        line += length + (line[length] == '\n');
    }
}

Test(command, help_fits_a_terminal)
{
    static const char *const commands[][2] = {
        {"vm", "create"},         {"vm", "migrate"}, {"vm", "list"},          {"host", "show"},
        {"migration", "recover"}, {"pki", "issue"},  {"migration", "resolve"}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        cr_assert_eq(TOW(&run, &fake, "help", commands[i][0], commands[i][1]), 0);
        expect_fits_a_terminal(commands[i][1]);
    }
    cr_assert_eq(TOW(&run, &fake, "help", "doctor"), 0);
    expect_fits_a_terminal("doctor");
    cr_assert_eq(TOW(&run, &fake, "help"), 0);
    expect_fits_a_terminal("help");
}

Test(command, help_and_version)
{
    cr_assert_eq(TOW(&run, &fake, "help"), 0);
    cr_expect(said("vm migrate [VM [HOST]]") && said("--controller URL"));
    cr_assert_eq(TOW(&run, &fake, "vm", "create", "--help"), 0);
    cr_expect(said("kind: mesi"));
    cr_assert_eq(TOW(&run, &fake, "help", "vm", "migrate"), 0);
    cr_expect(said("--on-no-convergence"));
    cr_assert_eq(TOW(&run, &fake, "help", "exit-codes"), 0);
    cr_expect(said("  6  the migration ended and the VM did not move\n"));
    cr_assert_eq(TOW(&run, &fake, "help", "nothing"), 2);
    cr_assert_eq(TOW(&run, &fake, "version"), 0);
    cr_expect(said("tow 0.1.0, protocol 1\n"));
}

/* What bash offers behind `words`, with the last one being typed. */
static void complete(const char *script, const char *words, char *offered, size_t size)
{
    char command[512];
    size_t length = 0;
    snprintf(command, sizeof command,
             "bash -c 'source %s; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tow; "
             "echo ${COMPREPLY[@]}'",
             script, words);
    FILE *p = popen(command, "r");
    cr_assert_not_null(p);
    length = fread(offered, 1, size - 1, p);
    offered[length] = 0;
    cr_assert_eq(pclose(p), 0, "%s", command);
}

Test(command, completion_in_a_real_bash)
{
    static const struct {
        const char *words, *offered;
    } cases[] = {
        {"tow mi", "migration\n"},
        {"tow vm mi", "migrate\n"},
        {"tow -o json vm st", "stop\n"},
        {"tow -o \"\"", "table json\n"},
        {"tow vm migrate --on-no-convergence \"\"", "abort stop\n"},
        {"tow vm migrate web-1 node-b --down", "--downtime --downtime-ms\n"},
        {"tow migration recover m-1 --to s", "source\n"},
        {"tow events --f", "--follow\n"},
        {"tow completion \"\"", "bash"},
        {"tow pki issue a", "agent\n"},
        {"tow pki issue \"\"", "operator viewer controller agent"},
        {"tow pki issue agent a", "\n"},
    };
    char path[] = "/tmp/tow-completion-XXXXXX", offered[512];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(TOW(&run, &fake, "completion", "bash"), 0);
    write_file(path, run.out_text);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        complete(path, cases[i].words, offered, sizeof offered);
        cr_expect(strncmp(offered, cases[i].offered, strlen(cases[i].offered)) == 0, "%s gives %s",
                  cases[i].words, offered);
    }
    unlink(path);
}
