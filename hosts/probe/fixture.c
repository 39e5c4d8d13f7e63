#include "hosts/probe/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)
#define NOW UINT64_C(1790000000) /* seconds since 1970 */

static struct fixture *current; /* for the functions without a context */

static int memlock(void *ctx, uint64_t *soft, uint64_t *hard)
{
    const struct fixture *f = ctx;
    *soft = f->soft;
    *hard = f->hard;
    return f->memlock_error;
}

static int space(void *ctx, const char *path, struct tw_probe_space *out)
{
    const struct fixture *f = ctx;
    *out = strcmp(path, "/var/lib/towline") == 0 ? f->state_space : f->run_space;
    return f->space_error;
}

static int attempt(void *ctx, enum tw_probe_call call)
{
    return ((const struct fixture *)ctx)->outcomes[call];
}

static int uffd(void *ctx, struct tw_probe_uffd *out)
{
    const struct fixture *f = ctx;
    *out = f->uffd;
    return f->uffd_error;
}

static int run(void *ctx, char *const argv[], unsigned timeout_ms, char *output, size_t size,
               int *status)
{
    const struct fixture *f = ctx;
    bool version = strcmp(argv[1], "--version") == 0;
    cr_assert_gt(timeout_ms, 0);
    snprintf(output, size, "%s", version ? "QEMU emulator version 9.9.9 (of a test)\n" : f->said);
    *status = version ? 0 : 1;
    return f->run_error;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return NOW * 1000;
}

static enum tw_code certificate_end(const char *path, int64_t *unix_s, struct tw_error *err)
{
    *unix_s = current->certificate_end_s;
    return *unix_s ? TW_OK : tw_fail(err, TW_INVALID_ARGUMENT, path, "PEM", "noise", "not usable");
}

static enum tw_code certificate_revoked(const char *list, const char *certificate, bool *revoked,
                                        struct tw_error *err)
{
    (void)certificate;
    *revoked = current->certificate_revoked;
    return current->list_unusable
               ? tw_fail(err, TW_INVALID_ARGUMENT, list, "a list", "noise", "not usable")
               : TW_OK;
}

static bool verbs_usable(char *why, size_t size)
{
    snprintf(why, size, "%s", current->verbs_why ? current->verbs_why : "");
    return !current->verbs_why;
}

void fixture_file(struct fixture *f, const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", f->root, path);
    if (!text) {
        unlink(whole);
        return;
    }
    for (char *slash = whole + strlen(f->root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    cr_assert_not_null(file, "%s", whole);
    fputs(text, file);
    fclose(file);
}

void fixture_rdma(struct fixture *f, const char *state, const char *gid)
{
    fixture_file(f, "/sys/class/infiniband/rxe0/ports/1/state", state);
    fixture_file(f, "/sys/class/infiniband/rxe0/ports/1/gids/0", gid);
    fixture_file(f, "/sys/class/infiniband_verbs/uverbs3/ibdev", "rxe0\n");
    fixture_file(f, "/dev/infiniband/uverbs3", "");
    fixture_file(f, "/dev/infiniband/rdma_cm", "");
}

static void files(struct fixture *f)
{
    fixture_file(f, "/proc/meminfo",
                 "MemTotal:       16777216 kB\nMemAvailable:   12582912 kB\n"); /* 16 and 12 GiB */
    fixture_file(f, "/proc/self/status", "CapEff:\t0000000000080000\nSeccomp:\t0\n");
    fixture_file(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    fixture_file(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    fixture_file(f, "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
                 "always within_size [advise] never\n");
}

void fixture_open(struct fixture *f)
{
    *f = (struct fixture){
        .system = {.memlock = memlock,
                   .space = space,
                   .attempt = attempt,
                   .uffd = uffd,
                   .run = run,
                   .wall_ms = wall_ms},
        .settings = {.run_dir = "/dev/shm/towline",
                     .state_dir = "/var/lib/towline",
                     .plugin = "/usr/lib/towline-plugin.so",
                     .certificate = "/etc/towline/tls.crt",
                     .certificate_end = certificate_end,
                     .certificate_revoked = certificate_revoked,
                     .verbs_usable = verbs_usable,
                     .memory_bytes = 8 * GIB},
        .soft = TW_PROBE_NO_LIMIT,
        .hard = TW_PROBE_NO_LIMIT,
        .run_space = {TW_PROBE_FS_TMPFS, true, 16 * GIB, 16 * GIB},
        .state_space = {TW_PROBE_FS_OTHER, true, 16 * GIB, 8 * GIB},
        .uffd = {0x1ffff, 0x1ffff, 7},
        .said = "towline-plugin: (none): cannot find the RAM file (ram=FILE)\n"
                "qemu: Could not load plugin /usr/lib/towline-plugin.so: qemu_plugin_install "
                "returned error code -1\n",
        .certificate_end_s = (int64_t)NOW + 90 * 86400,
    };
    strcpy(f->root, "/tmp/towline-probe-XXXXXX");
    cr_assert_not_null(mkdtemp(f->root));
    f->system.ctx = f;
    f->system.root = f->root;
    current = f;
    files(f);
    fixture_rdma(f, "4: ACTIVE\n", "fe80:0000:0000:0000:0000:00ff:fe00:0001\n");
}

void fixture_close(struct fixture *f)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf -- '%s'", f->root);
    cr_expect_eq(system(command), 0);
}

enum tw_probe_verdict fixture_run(struct fixture *f, const char *name)
{
    cr_assert(tw_probe_named(name, &f->settings, &f->system, &f->result), "no probe %s", name);
    cr_expect_str_eq(f->result.name, name);
    cr_expect(f->result.found[0], "%s found nothing", name);
    if (f->result.verdict >= TW_PROBE_WARN) {
        cr_expect(f->result.needed[0], "%s does not say what is needed", name);
        cr_expect(f->result.mend[0], "%s does not say how to mend it", name);
    } else {
        cr_expect_str_eq(f->result.mend, "", "%s mends what is not broken", name);
    }
    return f->result.verdict;
}
