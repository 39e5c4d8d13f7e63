/* A machine for tests that answers what the test wants: files below a folder of its own, and the
 * outcome of every call. As it opens, it is a host on which everything works. */
#ifndef TOWLINE_HOSTS_PROBE_FIXTURE_H
#define TOWLINE_HOSTS_PROBE_FIXTURE_H

#include "hosts/probe/probe.h"

struct fixture {
    char root[64];
    struct tw_probe_system system;
    struct tw_probe_settings settings;
    uint64_t soft, hard;
    int memlock_error;
    struct tw_probe_space run_space, state_space;
    int space_error;
    int outcomes[TW_PROBE_CALLS];
    struct tw_probe_uffd uffd;
    int uffd_error;
    const char *said; /* by QEMU that was started with a plugin */
    int run_error;
    const char *verbs_why;     /* libibverbs cannot use it; NULL: it can */
    int64_t certificate_end_s; /* 0: cannot be read */
    bool certificate_revoked, list_unusable;
    struct tw_probe_result result;
};

void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
/* Writes a file below the root, with its folders; NULL removes it. */
void fixture_file(struct fixture *f, const char *path, const char *text);
/* An RDMA device "rxe0" whose port is in that state ("4: ACTIVE"). */
void fixture_rdma(struct fixture *f, const char *state, const char *gid);
/* Runs one probe and keeps its result. */
enum tw_probe_verdict fixture_run(struct fixture *f, const char *name);

#endif
