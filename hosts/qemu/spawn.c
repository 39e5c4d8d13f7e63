/* The command line of a machine, and the start of its process. */
#include "hosts/qemu/qemu_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ARGUMENTS_MAX 64
#define HOLE_FROM     UINT64_C(0xb0000000) /* q35: more than this and RAM is split ... */
#define HOLE_LOW      UINT64_C(0x80000000) /* ... after this much of it */

extern char **environ;

uint64_t tw_spawn_low_memory(uint64_t memory_bytes)
{
    return memory_bytes >= HOLE_FROM ? HOLE_LOW : memory_bytes;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static enum tw_code check_file(const char *where, const char *what, const char *path,
                               struct tw_error *err)
{
    struct stat st;
    if (!path || !path[0])
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a path", "nothing", "no %s given", what);
    if (stat(path, &st) < 0 || access(path, R_OK) < 0)
        return tw_fail_errno(err, errno, where, "%s %s", what, path);
    if (!S_ISREG(st.st_mode))
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a regular file", path, "unusable %s",
                       what);
    return TW_OK;
}

static enum tw_code check_numbers(const struct tw_qemu_config *c, const char *where,
                                  struct tw_error *err)
{
    char given[40];
    snprintf(given, sizeof given, "%llu bytes", (unsigned long long)c->memory_bytes);
    if (c->memory_bytes % TW_QEMU_MEMORY_STEP)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a multiple of 8 KiB", given,
                       "memory size");
    if (c->memory_bytes < TW_QEMU_MEMORY_MIN || c->memory_bytes > TW_LINK_MEMORY_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "4 MiB to 1 TiB", given, "memory size");
    snprintf(given, sizeof given, "%u", c->vcpus);
    if (c->vcpus == 0 || c->vcpus > TW_LINK_VCPUS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "1 to 64", given, "number of vCPUs");
    if (c->cache && c->cache->cores < c->vcpus)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a core for each vCPU", given,
                       "cache model with %u cores", c->cache->cores);
    return c->cache ? tw_cache_config_check(c->cache, err) : TW_OK;
}

enum tw_code tw_spawn_check(const struct tw_qemu_config *config, const struct tw_qemu *q,
                            struct tw_error *err)
{
    struct sockaddr_un address;
    struct stat st;
    enum tw_code code = check_numbers(config, q->where, err);
    if (code == TW_OK && (stat(q->run_dir, &st) < 0 || !S_ISDIR(st.st_mode)))
        code = tw_fail(err, TW_NOT_FOUND, q->where, "a folder", q->run_dir, "run directory");
    if (code == TW_OK && strlen(q->guard_path) >= sizeof address.sun_path)
        code = tw_fail(err, TW_INVALID_ARGUMENT, q->where, "a path of at most 92 bytes", q->run_dir,
                       "run directory's path is too long for sockets");
    if (code == TW_OK && config->command_line && config->command_line[0] &&
        (!config->kernel || !config->kernel[0]))
        code = tw_fail(err, TW_INVALID_ARGUMENT, q->where, "a kernel", "nothing",
                       "command line without a kernel");
    return code;
}

static enum tw_code check_files(const struct tw_qemu_config *c, const char *where,
                                struct tw_error *err)
{
    enum tw_code code = check_file(where, "plugin", c->plugin, err);
    if (code == TW_OK)
        code = check_file(where, "kernel", c->kernel, err);
    if (code == TW_OK && c->initrd && c->initrd[0])
        code = check_file(where, "initrd", c->initrd, err);
    if (code == TW_OK && (!c->qemu_binary || !c->qemu_binary[0]))
        code = tw_fail(err, TW_INVALID_ARGUMENT, where, "a program", "nothing", "no QEMU given");
    return code;
}

/* ---- Arguments ------------------------------------------------------------------------------- */

struct arguments {
    char *list[ARGUMENTS_MAX + 1];
    unsigned count;
    bool failed;
};

static void add(struct arguments *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct arguments *a, const char *format, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, format);
    if (a->count == ARGUMENTS_MAX || vasprintf(&text, format, list) < 0)
        a->failed = true;
    else
        a->list[a->count++] = text;
    va_end(list);
}

/* In QEMU's key=value,... options a comma inside a value is written twice. */
static char *doubled(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; *text && n + 3 < size; text++) {
        if (*text == ',')
            out[n++] = ',';
        out[n++] = *text;
    }
    out[n] = 0;
    return out;
}

#define DOUBLED(text) doubled(text, (char[2 * PATH_MAX]){0}, 2 * PATH_MAX)

static void machine_arguments(struct arguments *a, const struct tw_qemu_config *c,
                              const struct tw_qemu *q)
{
    const unsigned long long bytes = c->memory_bytes;
    add(a, "%s", c->qemu_binary);
    add(a, "-name");
    add(a, "guest=%s,debug-threads=on",
        DOUBLED(q->name)); /* names the vCPU threads for top and ps */
    add(a, "-no-user-config");
    add(a, "-nodefaults");
    add(a, "-display");
    add(a, "none");
    add(a, "-machine");
    add(a, "q35,memory-backend=ram0");
    add(a, "-object");
    add(a, "memory-backend-file,id=ram0,size=%llu,share=on,mem-path=%s", bytes,
        DOUBLED(q->ram_path));
    add(a, "-m");
    add(a, "size=%lluK", bytes / 1024);
    add(a, "-accel");
    add(a, "tcg,thread=multi");
    add(a, "-smp");
    add(a, "%u", c->vcpus);
    add(a, "-chardev");
    add(a, "file,id=serial0,append=on,path=%s", DOUBLED(q->serial_path));
    add(a, "-serial");
    add(a, "chardev:serial0");
    add(a, "-qmp");
    add(a, "unix:%s,server=on,wait=off", DOUBLED(q->qmp_path));
    const char *more = c->plugin_options ? c->plugin_options : "";
    add(a, "-plugin");
    add(a, "file=%s,link=%s,ram=%s%s%s%s%s", DOUBLED(c->plugin), DOUBLED(q->link_path),
        DOUBLED(q->ram_path), c->incoming ? ",guard=" : "",
        c->incoming ? DOUBLED(q->guard_path) : "", more[0] ? "," : "", more);
}

static void guest_arguments(struct arguments *a, const struct tw_qemu_config *c)
{
    add(a, "-kernel");
    add(a, "%s", c->kernel);
    if (c->initrd && c->initrd[0]) {
        add(a, "-initrd");
        add(a, "%s", c->initrd);
    }
    if (c->command_line && c->command_line[0]) {
        add(a, "-append");
        add(a, "%s", c->command_line);
    }
    if (c->incoming) {
        add(a, "-incoming");
        add(a, "defer");
        add(a, "-S"); /* whatever the stream says, only CONTINUE lets it run */
    }
}

/* ---- Start ----------------------------------------------------------------------------------- */

/* Nothing of this process may go on in the child: no descriptor, no blocked or ignored signal. */
static int spawn_with(const struct tw_qemu *q, char **list, posix_spawn_file_actions_t *files,
                      posix_spawnattr_t *attributes, pid_t *pid)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    int number = posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDONLY, 0);
    if (!number)
        number = posix_spawn_file_actions_addopen(files, 1, q->log_path,
                                                  O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (!number)
        number = posix_spawn_file_actions_adddup2(files, 1, 2);
    if (!number)
        number = posix_spawn_file_actions_addclosefrom_np(files, 3);
    if (!number)
        number = posix_spawnattr_setsigdefault(attributes, &all);
    if (!number)
        number = posix_spawnattr_setsigmask(attributes, &none);
    if (!number)
        number = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF |
                                                          POSIX_SPAWN_SETSIGMASK);
    return number ? number : posix_spawnp(pid, list[0], files, attributes, list, environ);
}

enum tw_code tw_spawn_process(const struct tw_qemu_config *config, const struct tw_qemu *q,
                              pid_t *pid, struct tw_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    struct arguments a = {0};
    enum tw_code code = check_files(config, q->where, err);
    if (code)
        return code;
    machine_arguments(&a, config, q);
    guest_arguments(&a, config);
    if (a.failed) {
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, q->where, NULL, NULL, "out of memory");
    } else {
        posix_spawn_file_actions_init(&files);
        posix_spawnattr_init(&attributes);
        const int number = spawn_with(q, a.list, &files, &attributes, pid);
        posix_spawn_file_actions_destroy(&files);
        posix_spawnattr_destroy(&attributes);
        if (number)
            code = tw_fail_errno(err, number, q->where, "cannot start %s", config->qemu_binary);
    }
    for (unsigned i = 0; i < a.count; i++)
        free(a.list[i]);
    return code;
}
