/* A plain QEMU: the machine that our agents start too, without plugin and link. */
#ifndef TOWLINE_BENCH_MIGRATION_MACHINE_H
#define TOWLINE_BENCH_MIGRATION_MACHINE_H

#include "base/error.h"
#include "bench/migration/guest.h"
#include "bench/migration/process.h"
#include "hosts/qemu/qmp.h"

struct bench_machine {
    char dir[BENCH_PATH]; /* ram, serial.log, qemu.log, qmp.sock */
    struct bench_process process;
    struct tw_qmp *qmp;
    int epoll_fd;
    struct bench_machine *other;     /* whose events are taken as well; may be NULL */
    uint64_t stopped_ns, resumed_ns; /* when the last STOP and RESUME events came; 0 = none */
};

/* With `trace` qemu.log tells of each wait for memory in post-copy. Makes `dir`, starts QEMU and
 * waits until QMP answers. */
enum tw_code bench_machine_start(struct bench_machine *machine, const char *qemu, const char *dir,
                                 const struct bench_guest *guest, const struct bench_files *files,
                                 bool incoming, bool trace, struct tw_error *err);
/* Kills QEMU and removes the folder. Harmless on a machine that never started (all zero). */
void bench_machine_end(struct bench_machine *machine);

/* A command and its answer (released with json_decref; NULL when nobody wants it). `arguments` may
 * be NULL and is taken over. */
enum tw_code bench_machine_do(struct bench_machine *machine, const char *command, json_t *arguments,
                              json_t **answer, struct tw_error *err);
/* From now on waiting for `machine` takes events of `other` as well. */
void bench_machine_join(struct bench_machine *machine, struct bench_machine *other);
/* Takes events until the time is over. */
void bench_machine_wait(struct bench_machine *machine, unsigned ms);

#endif
