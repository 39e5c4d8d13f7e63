#include "bench/migration/machine.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_NS   (10 * TW_SEC)
#define COMMAND_NS (10 * TW_SEC)

static void on_event(void *ctx, const char *name, const json_t *data)
{
    struct bench_machine *m = ctx;
    (void)data;
    if (strcmp(name, "STOP") == 0)
        m->stopped_ns = bench_now_ns();
    if (strcmp(name, "RESUME") == 0)
        m->resumed_ns = bench_now_ns();
}

static void pump(struct bench_machine *m, int ms)
{
    struct epoll_event e;
    epoll_wait(m->epoll_fd, &e, 1, ms);
    tw_qmp_step(m->qmp);
    if (m->other && m->other->qmp)
        tw_qmp_step(m->other->qmp);
}

static enum tw_code spawn(struct bench_machine *m, const char *qemu,
                          const struct bench_guest *guest, const struct bench_files *files,
                          bool incoming, bool trace, struct tw_error *err)
{
    static char object[2 * BENCH_PATH], memory[32], serial[2 * BENCH_PATH], qmp[2 * BENCH_PATH];
    char log[2 * BENCH_PATH];
    const unsigned long long bytes = BENCH_MEMORY_BYTES;
    snprintf(object, sizeof object,
             "memory-backend-file,id=ram0,size=%llu,share=on,mem-path=%s/ram", bytes, m->dir);
    snprintf(memory, sizeof memory, "size=%lluK", bytes / 1024);
    snprintf(serial, sizeof serial, "file:%s/serial.log", m->dir);
    snprintf(qmp, sizeof qmp, "unix:%s/qmp.sock,server=on,wait=off", m->dir);
    snprintf(log, sizeof log, "%s/qemu.log", m->dir);
    const char *argv[40] = {qemu,
                            "-name",
                            "guest,debug-threads=on",
                            "-no-user-config",
                            "-nodefaults",
                            "-display",
                            "none",
                            "-machine",
                            "q35,memory-backend=ram0",
                            "-object",
                            object,
                            "-m",
                            memory,
                            "-accel",
                            "tcg,thread=multi",
                            "-smp",
                            "1",
                            "-serial",
                            serial,
                            "-qmp",
                            qmp,
                            "-append",
                            guest->command_line,
                            "-kernel",
                            bench_guest_kernel(guest, files)};
    size_t n = 25;
    if (bench_guest_initrd(guest, files)[0]) {
        argv[n++] = "-initrd";
        argv[n++] = bench_guest_initrd(guest, files);
    }
    if (incoming) {
        argv[n++] = "-incoming";
        argv[n++] = "defer";
    }
    if (trace) {
        argv[n++] = "-msg";
        argv[n++] = "timestamp=on";
        argv[n++] = "-trace";
        argv[n++] = "enable=postcopy_ram_fault_thread_request";
        argv[n++] = "-trace";
        argv[n++] = "enable=postcopy_place_page*";
    }
    return bench_process_start(&m->process, (char **)(uintptr_t)argv, log, err);
}

/* What QEMU said when it ended before QMP answered. */
static enum tw_code ended(struct bench_machine *m, struct tw_error *err)
{
    char path[2 * BENCH_PATH], said[128] = "";
    snprintf(path, sizeof path, "%s/qemu.log", m->dir);
    FILE *f = fopen(path, "r");
    if (f && fgets(said, sizeof said, f))
        said[strcspn(said, "\n")] = 0;
    if (f)
        fclose(f);
    return tw_fail(err, TW_UNAVAILABLE, m->dir, NULL, said, "QEMU ended before QMP answered");
}

enum tw_code bench_machine_start(struct bench_machine *machine, const char *qemu, const char *dir,
                                 const struct bench_guest *guest, const struct bench_files *files,
                                 bool incoming, bool trace, struct tw_error *err)
{
    struct bench_machine *m = machine;
    char path[2 * BENCH_PATH];
    *m = (struct bench_machine){.epoll_fd = -1};
    snprintf(m->dir, sizeof m->dir, "%s", dir);
    m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (m->epoll_fd < 0 || mkdir(dir, 0700) != 0)
        return tw_fail_errno(err, errno, dir, "cannot make the machine's folder");
    enum tw_code code = spawn(m, qemu, guest, files, incoming, trace, err);
    snprintf(path, sizeof path, "%s/qmp.sock", dir);
    const struct tw_qmp_config config = {.path = path,
                                         .clock = &tw_monotonic,
                                         .ready_deadline_ns = bench_now_ns() + READY_NS,
                                         .epoll_fd = m->epoll_fd,
                                         .event = on_event,
                                         .ctx = m};
    if (!code)
        code = tw_qmp_open(&config, &m->qmp, err);
    while (!code && tw_qmp_state_get(m->qmp) < TW_QMP_READY) {
        pump(m, 5);
        if (!bench_process_alive(&m->process))
            return ended(m, err);
        if (bench_interrupted())
            return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    }
    if (!code && tw_qmp_state_get(m->qmp) == TW_QMP_FAILED) {
        *err = *tw_qmp_error(m->qmp);
        code = err->code;
    }
    return code;
}

void bench_machine_end(struct bench_machine *machine)
{
    tw_qmp_close(machine->qmp);
    bench_process_stop(&machine->process, 0);
    if (machine->dir[0]) {
        close(machine->epoll_fd);
        bench_folder_remove(machine->dir);
    }
    *machine = (struct bench_machine){0};
}

enum tw_code bench_machine_do(struct bench_machine *machine, const char *command, json_t *arguments,
                              json_t **answer, struct tw_error *err)
{
    uint64_t id;
    json_t *result = NULL;
    enum tw_code code =
        tw_qmp_send(machine->qmp, command, arguments, bench_now_ns() + COMMAND_NS, &id, err);
    if (code)
        return code;
    while (!tw_qmp_take(machine->qmp, id, &result, &code, err))
        pump(machine, 5);
    if (answer && !code)
        *answer = result;
    else
        json_decref(result);
    return code;
}

void bench_machine_join(struct bench_machine *machine, struct bench_machine *other)
{
    struct epoll_event e = {.events = EPOLLIN};
    machine->other = other;
    epoll_ctl(machine->epoll_fd, EPOLL_CTL_ADD, other->epoll_fd, &e);
}

void bench_machine_wait(struct bench_machine *machine, unsigned ms)
{
    uint64_t end = bench_now_ns() + ms * TW_MS;
    for (uint64_t now; (now = bench_now_ns()) < end && !bench_interrupted();)
        pump(machine, (int)((end - now + TW_MS - 1) / TW_MS));
}
