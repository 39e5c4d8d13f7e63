/* Child processes and the folder they live in: nothing of them is left behind. */
#ifndef TOWLINE_BENCH_MIGRATION_PROCESS_H
#define TOWLINE_BENCH_MIGRATION_PROCESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_PATH 256u

/* From then on SIGINT and SIGTERM make bench_interrupted() true; every wait here looks at it. */
void bench_signals_install(void);
bool bench_interrupted(void);

struct bench_process {
    pid_t pid; /* 0 = none */
};

/* `argv[0]` is searched in PATH; output goes to `log`. The child dies with us. */
enum tw_code bench_process_start(struct bench_process *process, char *const argv[], const char *log,
                                 struct tw_error *err);
bool bench_process_alive(struct bench_process *process);
/* SIGTERM, and SIGKILL when it has not ended after `grace_ms`. Reaps. */
void bench_process_stop(struct bench_process *process, unsigned grace_ms);

/* The process whose command line names a path under `dir` (other than this one); 0 = none. */
pid_t bench_process_find(const char *dir);
/* SIGKILL to every such process, until there is none. `dir` is a folder that we made. */
void bench_process_kill_all(const char *dir);

/* A new folder in `parent`. */
enum tw_code bench_folder_make(const char *parent, char path[BENCH_PATH], struct tw_error *err);
void bench_folder_remove(const char *path);

/* False when it was interrupted. */
bool bench_sleep_ms(unsigned ms);
uint64_t bench_now_ns(void);

#endif
