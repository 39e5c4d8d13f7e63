/* Machines under QEMU: what starts, what does not, how one moves, stops, is adopted, dies. What the
 * link reports is link_guest_test.c's. */
#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOME_TIME (150 * TW_MS)

TestSuite(qemu, .timeout = 60);

static void expect_progress(struct test_vm *vm)
{
    const uint64_t before = vm->control->writes;
    test_vm_run(vm, SOME_TIME);
    cr_assert_gt(vm->control->writes, before, "%s stands still", vm->config.name);
    cr_assert_eq(vm->control->bad, 0, "%s found wrong data", vm->config.name);
}

static void expect_standstill(struct test_vm *vm)
{
    const uint64_t before = vm->control->writes;
    test_vm_run(vm, SOME_TIME);
    cr_assert_eq(vm->control->writes, before, "%s runs", vm->config.name);
}

/* ---- Start and end --------------------------------------------------------------------------- */

Test(qemu, runs_and_leaves_nothing_behind)
{
    struct test_vm vm;
    test_vm_init(&vm, "plain");
    test_vm_spawn(&vm);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_STARTING);
    test_vm_await_ready(&vm);
    expect_progress(&vm);
    const pid_t pid = tw_qemu_pid(vm.qemu);
    cr_assert_eq(getsid(pid), pid, "a session of its own");
    test_vm_destroy(&vm);
    cr_assert(kill(pid, 0) < 0 && errno == ESRCH, "the process is gone and reaped");
    cr_assert_lt(access(vm.dir, F_OK), 0, "the run directory is gone");
}

Test(qemu, commas_and_blanks_in_paths_and_names)
{
    struct test_vm vm;
    char dir[80];
    test_vm_init(&vm, "a, b");
    snprintf(dir, sizeof dir, "%s/x, y=z", vm.dir);
    cr_assert_eq(mkdir(dir, 0700), 0);
    vm.config.run_dir = dir;
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    struct tw_qemu_link_stats stats;
    tw_qemu_link_stats_get(vm.qemu, &stats);
    cr_assert_str_neq(stats.address_mode, "api", "the RAM file was not recognised");
    test_vm_destroy(&vm);
}

Test(qemu, bad_configurations_are_refused)
{
    struct test_vm vm;
    struct tw_error err;
    char text[512];
    test_vm_init(&vm, "bad");
    const struct tw_qemu_config good = vm.config;
    const struct tw_cache_config narrow = {.cores = 1, .l1 = {4096, 4}};
    struct {
        struct tw_qemu_config config;
        enum tw_code code;
        const char *says;
    } cases[] = {
        {good, TW_NOT_FOUND, "kernel"},           {good, TW_NOT_FOUND, "initrd"},
        {good, TW_NOT_FOUND, "plugin"},           {good, TW_NOT_FOUND, "cannot start"},
        {good, TW_INVALID_ARGUMENT, "8 KiB"},     {good, TW_INVALID_ARGUMENT, "4 MiB"},
        {good, TW_INVALID_ARGUMENT, "1 to 64"},   {good, TW_INVALID_ARGUMENT, "1 to 64"},
        {good, TW_NOT_FOUND, "run directory"},    {good, TW_INVALID_ARGUMENT, "core for each"},
        {good, TW_INVALID_ARGUMENT, "a regular"}, {good, TW_INVALID_ARGUMENT, "name"},
    };
    cases[0].config.kernel = "/nowhere/vmlinuz";
    cases[1].config.initrd = "/nowhere/initrd";
    cases[2].config.plugin = "/nowhere/plugin.so";
    cases[3].config.qemu_binary = "/nowhere/qemu";
    cases[4].config.memory_bytes += 4096;
    cases[5].config.memory_bytes = 1 << 20;
    cases[6].config.vcpus = 0;
    cases[7].config.vcpus = 65;
    cases[8].config.run_dir = "/nowhere";
    cases[9].config.cache = &narrow;
    cases[9].config.vcpus = 2;
    cases[10].config.kernel = "/dev";
    cases[11].config.name = "";
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(tw_qemu_spawn(&cases[i].config, &vm.qemu, &err), cases[i].code, "case %u", i);
        tw_error_text(&err, text, sizeof text);
        cr_assert_neq(strstr(text, cases[i].says), NULL, "case %u: %s", i, text);
    }
    cr_assert_eq(rmdir(vm.dir), 0, "nothing was left in the run directory");
}

Test(qemu, a_kernel_that_is_none_ends_with_qemus_words)
{
    struct test_vm vm;
    char kernel[80];
    test_vm_init(&vm, "no kernel");
    snprintf(kernel, sizeof kernel, "%s/kernel", vm.dir);
    const int fd = open(kernel, O_WRONLY | O_CREAT, 0600);
    cr_assert_eq(write(fd, "not a kernel", 12), 12);
    close(fd);
    vm.config.kernel = kernel;
    test_vm_spawn(&vm);
    test_vm_while(&vm, TW_QEMU_STARTING);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_EXITED);
    cr_assert_neq(strstr(tw_qemu_exit_reason(vm.qemu), "exit status 1: qemu"), NULL, "%s",
                  tw_qemu_exit_reason(vm.qemu));
    cr_assert_not(vm.host->ops->alive(vm.host->ctx));
    struct pollfd p = {.fd = tw_qemu_fd(vm.qemu), .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 20), 0, "an ended machine does not wake its owner for ever");
    test_vm_destroy(&vm);
}

static void write_program(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CREAT, 0700);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* One that works gets more time than its first, but not for ever. */
Test(qemu, a_qemu_that_is_slow_to_answer_is_waited_for)
{
    struct test_vm vm;
    char program[80];
    test_vm_init(&vm, "slow");
    snprintf(program, sizeof program, "%s/slow", vm.dir);
    write_program(program, "#!/bin/sh\nwhile :; do :; done\n");
    vm.config.qemu_binary = program;
    vm.config.start_timeout_ns = TW_SEC;
    const uint64_t before = tw_now(&tw_monotonic);
    test_vm_spawn(&vm);
    test_vm_while(&vm, TW_QEMU_STARTING);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_EXITED);
    cr_assert_gt(tw_now(&tw_monotonic) - before, 2 * TW_SEC, "its first time, and more");
    cr_assert_neq(strstr(tw_qemu_exit_reason(vm.qemu), "QMP did not answer"), NULL);
    test_vm_destroy(&vm);
}

Test(qemu, a_qemu_that_never_answers_is_ended)
{
    struct test_vm vm;
    char program[80];
    test_vm_init(&vm, "mute");
    snprintf(program, sizeof program, "%s/mute", vm.dir);
    write_program(program, "#!/bin/sh\nexec sleep 30\n");
    vm.config.qemu_binary = program;
    vm.config.start_timeout_ns = 200 * TW_MS;
    test_vm_spawn(&vm);
    test_vm_while(&vm, TW_QEMU_STARTING);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_EXITED);
    cr_assert_neq(strstr(tw_qemu_exit_reason(vm.qemu), "QMP did not answer"), NULL);
    cr_assert_lt(kill(tw_qemu_pid(vm.qemu), 0), 0);
    test_vm_destroy(&vm);
}

Test(qemu, a_killed_qemu_is_noticed_and_named)
{
    struct test_vm vm;
    struct tw_error err;
    test_vm_init(&vm, "killed");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    cr_assert(vm.host->ops->alive(vm.host->ctx));
    cr_assert_str_eq(tw_qemu_exit_reason(vm.qemu), "");
    kill(tw_qemu_pid(vm.qemu), SIGKILL);
    struct pollfd p = {.fd = tw_qemu_fd(vm.qemu), .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 5000), 1);
    test_vm_while(&vm, TW_QEMU_RUNNING);
    cr_assert_not(vm.host->ops->alive(vm.host->ctx));
    cr_assert_neq(strstr(tw_qemu_exit_reason(vm.qemu), "killed by signal 9"), NULL);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_STOP, NULL, &err), TW_UNAVAILABLE);
    test_vm_destroy(&vm);
}

Test(qemu, a_qemu_killed_in_the_middle_of_an_operation_ends_it)
{
    struct test_vm vm;
    struct tw_error err;
    struct tw_host_state state = {0};
    enum tw_code code = TW_OK;
    test_vm_init(&vm, "killed");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    kill(tw_qemu_pid(vm.qemu), SIGSTOP); /* so that the operation cannot be over before */
    cr_assert_eq(vm.host->ops->begin(vm.host->ctx, TW_HOST_SAVE_STATE, NULL,
                                     tw_after(tw_now(&tw_monotonic), 10 * TW_SEC), &err),
                 TW_OK);
    cr_assert_not(vm.host->ops->poll(vm.host->ctx, &state, &code, &err));
    kill(tw_qemu_pid(vm.qemu), SIGKILL);
    const uint64_t end = tw_after(tw_now(&tw_monotonic), 5 * TW_SEC);
    while (!vm.host->ops->poll(vm.host->ctx, &state, &code, &err)) {
        cr_assert_lt(tw_now(&tw_monotonic), end);
        test_vm_run(&vm, TW_MS);
    }
    cr_assert_eq(code, TW_UNAVAILABLE);
    cr_assert_eq(state.data, NULL);
    test_vm_destroy(&vm);
}

Test(qemu, an_operation_keeps_its_deadline)
{
    struct test_vm vm;
    struct tw_error err;
    enum tw_code code = TW_OK;
    test_vm_init(&vm, "hung");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    kill(tw_qemu_pid(vm.qemu), SIGSTOP);
    const uint64_t begun = tw_now(&tw_monotonic);
    cr_assert_eq(vm.host->ops->begin(vm.host->ctx, TW_HOST_STOP, NULL, begun + 100 * TW_MS, &err),
                 TW_OK);
    cr_assert_eq(vm.host->ops->begin(vm.host->ctx, TW_HOST_STOP, NULL, TW_NEVER, &err),
                 TW_FAILED_PRECONDITION, "one at a time");
    while (!vm.host->ops->poll(vm.host->ctx, NULL, &code, &err)) {
        struct pollfd p = {.fd = tw_qemu_fd(vm.qemu), .events = POLLIN};
        cr_assert_eq(poll(&p, 1, 2000), 1, "the deadline itself wakes the owner");
    }
    cr_assert_eq(code, TW_DEADLINE_EXCEEDED);
    cr_assert_lt(tw_now(&tw_monotonic) - begun, TW_SEC);
    /* It goes on, the late answer is no longer ours, and it can be stopped after all. */
    kill(tw_qemu_pid(vm.qemu), SIGCONT);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    expect_standstill(&vm);
    test_vm_destroy(&vm);
}

/* ---- State ----------------------------------------------------------------------------------- */

Test(qemu, operations_need_the_right_state)
{
    struct test_vm vm, receiver;
    struct tw_error err;
    struct tw_host_state state = {0};
    uint8_t byte = 0;
    test_vm_init(&vm, "source");
    test_vm_spawn(&vm);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_STOP, NULL, &err), TW_UNAVAILABLE, "not ready yet");
    test_vm_await_ready(&vm);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_SAVE_STATE, &state, &err), TW_FAILED_PRECONDITION);
    state = (struct tw_host_state){&byte, 1};
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_LOAD_STATE, &state, &err), TW_FAILED_PRECONDITION);
    test_vm_init(&receiver, "receiver");
    receiver.config.incoming = true;
    test_vm_spawn(&receiver);
    test_vm_while(&receiver, TW_QEMU_STARTING);
    cr_assert_eq(tw_qemu_status_get(receiver.qemu), TW_QEMU_PAUSED);
    cr_assert_eq(test_vm_operate(&receiver, TW_HOST_CONTINUE, NULL, &err), TW_FAILED_PRECONDITION);
    cr_assert_eq(test_vm_operate(&receiver, TW_HOST_LOAD_STATE, NULL, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_AWAIT_STATE, NULL, &err), TW_FAILED_PRECONDITION);
    test_vm_must(&receiver, TW_HOST_AWAIT_STATE, NULL);
    cr_assert_eq(test_vm_operate(&receiver, TW_HOST_AWAIT_STATE, NULL, &err),
                 TW_FAILED_PRECONDITION);
    cr_assert_eq(test_vm_operate(&receiver, TW_HOST_CONTINUE, NULL, &err), TW_FAILED_PRECONDITION);
    test_vm_destroy(&vm);
    test_vm_destroy(&receiver);
}

Test(qemu, stops_and_continues)
{
    struct test_vm vm;
    test_vm_init(&vm, "vm");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    for (int i = 0; i < 3; i++) {
        test_vm_must(&vm, TW_HOST_STOP, NULL);
        cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_PAUSED);
        expect_standstill(&vm);
        test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
        cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_RUNNING);
        expect_progress(&vm);
    }
    test_vm_destroy(&vm);
}

/* The source saves, changes its mind and goes on, several times; then it moves, and moves on. */
Test(qemu, moves_after_aborted_moves_and_moves_on)
{
    struct test_vm vm[3];
    struct tw_host_state state = {0};
    static const char *const names[] = {"first", "second", "third"};
    test_vm_init(&vm[0], names[0]);
    test_vm_spawn(&vm[0]);
    test_vm_await_ready(&vm[0]);
    for (int i = 0; i < 3; i++) {
        test_vm_must(&vm[0], TW_HOST_STOP, NULL);
        test_vm_must(&vm[0], TW_HOST_SAVE_STATE, &state);
        cr_assert_gt(state.size, 1000);
        free(state.data);
        test_vm_must(&vm[0], TW_HOST_CONTINUE, NULL);
        expect_progress(&vm[0]);
    }
    for (int i = 1; i < 3; i++) {
        test_vm_init(&vm[i], names[i]);
        vm[i].config.incoming = true;
        test_vm_spawn(&vm[i]);
        test_vm_while(&vm[i], TW_QEMU_STARTING);
        if (i == 1) /* optional */
            test_vm_must(&vm[i], TW_HOST_AWAIT_STATE, NULL);
        test_vm_must(&vm[i - 1], TW_HOST_STOP, NULL);
        test_vm_must(&vm[i - 1], TW_HOST_SAVE_STATE, &state);
        test_vm_copy_memory(&vm[i - 1], &vm[i]);
        const uint64_t writes = vm[i - 1].control->writes;
        test_vm_must(&vm[i], TW_HOST_LOAD_STATE, &state);
        cr_assert_eq(vm[i].control->writes, writes, "it begins where the other stopped");
        free(state.data);
        cr_assert_eq(tw_qemu_status_get(vm[i].qemu), TW_QEMU_PAUSED);
        expect_standstill(&vm[i]);
        test_vm_must(&vm[i], TW_HOST_CONTINUE, NULL);
        expect_progress(&vm[i]);
    }
    /* A save that was not followed by its load: the source may take the guest back. */
    test_vm_must(&vm[0], TW_HOST_CONTINUE, NULL);
    expect_progress(&vm[0]);
    for (int i = 0; i < 3; i++)
        test_vm_destroy(&vm[i]);
}

Test(qemu, a_broken_state_is_refused_without_a_running_copy)
{
    struct test_vm vm;
    struct tw_error err;
    uint8_t *junk = malloc(100000);
    memset(junk, 0x5a, 100000);
    struct tw_host_state state = {.data = junk, .size = 100000};
    test_vm_init(&vm, "receiver");
    vm.config.incoming = true;
    test_vm_spawn(&vm);
    test_vm_while(&vm, TW_QEMU_STARTING);
    const enum tw_code code = test_vm_operate(&vm, TW_HOST_LOAD_STATE, &state, &err);
    cr_assert(code == TW_UNAVAILABLE || code == TW_ABORTED, "code %d", (int)code);
    cr_assert_neq(tw_qemu_status_get(vm.qemu), TW_QEMU_RUNNING);
    free(junk);
    test_vm_destroy(&vm);
}

Test(qemu, a_state_cut_short_is_refused)
{
    struct test_vm vm, receiver;
    struct tw_error err;
    struct tw_host_state state = {0};
    test_vm_init(&vm, "source");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    test_vm_must(&vm, TW_HOST_SAVE_STATE, &state);
    test_vm_init(&receiver, "receiver");
    receiver.config.incoming = true;
    test_vm_spawn(&receiver);
    test_vm_while(&receiver, TW_QEMU_STARTING);
    test_vm_copy_memory(&vm, &receiver);
    state.size /= 2;
    cr_assert_neq(test_vm_operate(&receiver, TW_HOST_LOAD_STATE, &state, &err), TW_OK);
    cr_assert_neq(tw_qemu_status_get(receiver.qemu), TW_QEMU_RUNNING);
    free(state.data);
    test_vm_destroy(&receiver);
    test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    expect_progress(&vm);
    test_vm_destroy(&vm);
}

/* ---- Adoption -------------------------------------------------------------------------------- */

static void adopt(struct test_vm *vm, pid_t pid, uint64_t ticks)
{
    struct tw_error err;
    char text[512];
    cr_assert_eq(tw_qemu_adopt(&vm->config, pid, ticks, &vm->qemu, &err), TW_OK, "%s",
                 tw_error_text(&err, text, sizeof text));
    vm->host = tw_qemu_host(vm->qemu);
    vm->control = (const volatile void *)(vm->host->memory + TW_SPARSE_CONTROL);
    test_vm_while(vm, TW_QEMU_STARTING);
}

Test(qemu, an_adopted_machine_is_as_good_as_an_own_one)
{
    struct test_vm vm;
    struct tw_host_state state = {0};
    test_vm_init(&vm, "adopted");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    const pid_t pid = tw_qemu_pid(vm.qemu);
    const uint64_t ticks = tw_qemu_start_ticks(vm.qemu);
    tw_qemu_release(vm.qemu);
    adopt(&vm, pid, ticks);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_RUNNING);
    expect_progress(&vm);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    tw_qemu_release(vm.qemu);
    adopt(&vm, pid, ticks);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_PAUSED);
    test_vm_must(&vm, TW_HOST_SAVE_STATE, &state);
    free(state.data);
    test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    expect_progress(&vm);
    kill(pid, SIGKILL);
    test_vm_while(&vm, TW_QEMU_RUNNING);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_EXITED);
    test_vm_destroy(&vm);
    cr_assert_lt(access(vm.dir, F_OK), 0);
}

/* An agent that dies at any moment of a save leaves QEMU with one: the next agent can let the
 * guest run, stop it and save anew. */
Test(qemu, a_machine_adopted_in_the_middle_of_a_save)
{
    struct test_vm vm;
    struct tw_error err;
    struct tw_host_state state = {0};
    test_vm_init(&vm, "adopted");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    const pid_t pid = tw_qemu_pid(vm.qemu);
    const uint64_t ticks = tw_qemu_start_ticks(vm.qemu);
    for (uint64_t moment = 0; moment < 5; moment++) {
        test_vm_must(&vm, TW_HOST_STOP, NULL);
        cr_assert_eq(vm.host->ops->begin(vm.host->ctx, TW_HOST_SAVE_STATE, NULL, TW_NEVER, &err),
                     TW_OK);
        test_vm_run(&vm, moment * 2 * TW_MS);
        tw_qemu_release(vm.qemu);
        adopt(&vm, pid, ticks);
        cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_PAUSED);
        test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
        expect_progress(&vm);
        test_vm_must(&vm, TW_HOST_STOP, NULL);
        test_vm_must(&vm, TW_HOST_SAVE_STATE, &state);
        cr_assert_gt(state.size, 1000);
        free(state.data);
        test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    }
    test_vm_destroy(&vm);
}

/* A save whose deadline passes: the guest can run on at once, and be saved later. */
Test(qemu, a_save_that_is_broken_off_does_not_hold_the_guest)
{
    struct test_vm vm;
    struct tw_error err;
    struct tw_host_state state = {0};
    enum tw_code code = TW_OK;
    test_vm_init(&vm, "broken off");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    for (uint64_t moment = 0; moment < 5; moment++) {
        test_vm_must(&vm, TW_HOST_STOP, NULL);
        const uint64_t deadline = tw_after(tw_now(&tw_monotonic), (1 + 2 * moment) * TW_MS);
        cr_assert_eq(vm.host->ops->begin(vm.host->ctx, TW_HOST_SAVE_STATE, NULL, deadline, &err),
                     TW_OK);
        while (!vm.host->ops->poll(vm.host->ctx, &state, &code, &err))
            test_vm_run(&vm, TW_MS / 2);
        if (code == TW_OK)
            free(state.data);
        else
            cr_assert_eq(code, TW_DEADLINE_EXCEEDED, "%s", err.what);
        test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
        expect_progress(&vm);
    }
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    test_vm_must(&vm, TW_HOST_SAVE_STATE, &state);
    free(state.data);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_SAVE_STATE, &state, &err), TW_FAILED_PRECONDITION,
                 "once until it runs again");
    test_vm_destroy(&vm);
}

Test(qemu, an_adopted_receiver_still_waits_for_its_state)
{
    struct test_vm vm, receiver;
    struct tw_error err;
    struct tw_host_state state = {0};
    test_vm_init(&receiver, "receiver");
    receiver.config.incoming = true;
    test_vm_spawn(&receiver);
    test_vm_while(&receiver, TW_QEMU_STARTING);
    test_vm_must(&receiver, TW_HOST_AWAIT_STATE, NULL);
    const pid_t pid = tw_qemu_pid(receiver.qemu);
    const uint64_t ticks = tw_qemu_start_ticks(receiver.qemu);
    tw_qemu_release(receiver.qemu);
    adopt(&receiver, pid, ticks);
    cr_assert_eq(test_vm_operate(&receiver, TW_HOST_CONTINUE, NULL, &err), TW_FAILED_PRECONDITION);
    test_vm_init(&vm, "source");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    test_vm_must(&vm, TW_HOST_SAVE_STATE, &state);
    test_vm_copy_memory(&vm, &receiver);
    test_vm_must(&receiver, TW_HOST_LOAD_STATE, &state);
    free(state.data);
    test_vm_destroy(&vm);
    tw_qemu_release(receiver.qemu);
    adopt(&receiver, pid, ticks); /* loaded, not yet running: as after "prepared" */
    cr_assert_eq(tw_qemu_status_get(receiver.qemu), TW_QEMU_PAUSED);
    test_vm_must(&receiver, TW_HOST_CONTINUE, NULL);
    expect_progress(&receiver);
    test_vm_destroy(&receiver);
}

/* QEMU serves one client at a time and may drop it: the machine runs on and is found again. */
static void drop_qmp(const char *dir)
{
    char path[120];
    snprintf(path, sizeof path, "%s/qmp.sock", dir);
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_un peer;
        socklen_t size = sizeof peer;
        memset(&peer, 0, sizeof peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && peer.sun_family == AF_UNIX &&
            strcmp(peer.sun_path, path) == 0)
            shutdown(fd, SHUT_RDWR);
    }
}

Test(qemu, a_lost_qmp_connection_comes_back)
{
    struct test_vm vm;
    struct tw_error err;
    test_vm_init(&vm, "dropped");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    drop_qmp(vm.dir);
    test_vm_run(&vm, 10 * TW_MS);
    cr_assert_eq(test_vm_operate(&vm, TW_HOST_STOP, NULL, &err), TW_UNAVAILABLE);
    expect_progress(&vm);
    test_vm_run(&vm, 300 * TW_MS);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    drop_qmp(vm.dir);
    test_vm_run(&vm, 500 * TW_MS);
    cr_assert_eq(tw_qemu_status_get(vm.qemu), TW_QEMU_PAUSED);
    test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    expect_progress(&vm);
    test_vm_destroy(&vm);
}

Test(qemu, logs_keep_their_last_part)
{
    struct test_vm vm;
    struct stat st;
    char path[80], text[6] = {0};
    test_vm_init(&vm, "talkative");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    snprintf(path, sizeof path, "%s/serial.log", vm.dir);
    const int fd = open(path, O_RDWR | O_APPEND);
    cr_assert_eq(ftruncate(fd, 20 << 20), 0);
    cr_assert_eq(write(fd, "last!", 5), 5);
    test_vm_run(&vm, 1500 * TW_MS);
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_lt(st.st_size, 2 << 20);
    cr_assert_gt(st.st_size, 5);
    bool found = false;
    for (off_t at = st.st_size; at >= 0 && !found; at--)
        found = pread(fd, text, 5, at) == 5 && strcmp(text, "last!") == 0;
    cr_assert(found);
    const off_t before = st.st_size;
    test_vm_run(&vm, 1200 * TW_MS); /* the guest prints once a second */
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_gt(st.st_size, before, "QEMU goes on appending");
    close(fd);
    test_vm_destroy(&vm);
}

Test(qemu, only_the_very_process_is_adopted)
{
    struct test_vm vm;
    struct tw_error err;
    struct tw_qemu *other;
    test_vm_init(&vm, "adopted");
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    const pid_t pid = tw_qemu_pid(vm.qemu);
    const uint64_t ticks = tw_qemu_start_ticks(vm.qemu);
    cr_assert_eq(tw_qemu_adopt(&vm.config, pid, ticks + 1, &other, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_qemu_adopt(&vm.config, -1, ticks, &other, &err), TW_NOT_FOUND);
    struct tw_qemu_config larger = vm.config;
    larger.memory_bytes *= 2;
    cr_assert_eq(tw_qemu_adopt(&larger, pid, ticks, &other, &err), TW_FAILED_PRECONDITION);
    expect_progress(&vm);
    test_vm_destroy(&vm);
    cr_assert_eq(tw_qemu_adopt(&vm.config, pid, ticks, &other, &err), TW_NOT_FOUND);
}
