/* Program counters for people. The object comes from /proc/PID/maps, its names from addr2line. */
#include "base/symbol.h"

#include "base/clock.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS (2 * TW_SEC)
#define MAPS_MAX    (1u << 20) /* bytes that are looked at */

extern char **environ;

struct place {
    char object[512];
    uint64_t offset; /* of the file */
};

static bool parse_mapping(const char *line, uint64_t pc, struct place *place)
{
    uint64_t start, end, offset;
    int path_at = 0;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %*s %n", &start, &end, &offset,
               &path_at) < 3 ||
        pc < start || pc >= end || path_at == 0 || line[path_at] != '/')
        return false;
    snprintf(place->object, sizeof place->object, "%.*s", (int)strcspn(line + path_at, "\n"),
             line + path_at);
    place->offset = pc - start + offset;
    return true;
}

static bool find_object(const char *maps, uint64_t pc, struct place *place)
{
    for (const char *line = maps; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (parse_mapping(line, pc, place))
            return true;
    }
    return false;
}

char *tw_symbol_maps(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(MAPS_MAX);
    size_t size = 0;
    ssize_t got = 1;
    while (text && got > 0 && size < MAPS_MAX - 1) {
        got = read(fd, text + size, MAPS_MAX - 1 - size);
        size += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (text)
        text[size] = 0;
    if (size)
        return text;
    free(text); /* it has ended */
    return NULL;
}

/* The address that the linker gave to what lies at this offset of the file. */
static uint64_t link_address(const struct place *place)
{
    enum { SEGMENTS_MAX = 64 };
    Elf64_Ehdr header;
    uint64_t address = place->offset;
    const int fd = open(place->object, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return address;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        header.e_phnum = 0;
    for (unsigned i = 0; i < header.e_phnum && i < SEGMENTS_MAX; i++) {
        Elf64_Phdr s;
        if (pread(fd, &s, sizeof s, (off_t)(header.e_phoff + i * sizeof s)) != (ssize_t)sizeof s)
            break;
        if (s.p_type == PT_LOAD && place->offset - s.p_offset < s.p_filesz)
            address = place->offset - s.p_offset + s.p_vaddr;
    }
    close(fd);
    return address;
}

/* Reads what the child writes until it ends or the deadline passes. */
static size_t read_output(int fd, char *output, size_t size)
{
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), PATIENCE_NS);
    size_t length = 0;
    while (length + 1 < size && tw_now(&tw_monotonic) < deadline) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) <= 0)
            continue;
        const ssize_t got = read(fd, output + length, size - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    output[length] = 0;
    return length;
}

static bool run(char *const argv[], char *output, size_t size)
{
    int pipe_fds[2];
    posix_spawn_file_actions_t actions;
    pid_t child;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    const int failed = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[1]);
    size_t length = 0;
    if (!failed) {
        length = read_output(pipe_fds[0], output, size);
        kill(child, SIGKILL); /* has said all, or had its time */
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(pipe_fds[0]);
    return length > 0;
}

/* addr2line's two lines, function and file:line, as one. Unknown ones begin with '?'. */
static bool join_lines(char *output, char *buffer, size_t size)
{
    char *second = strchr(output, '\n');
    if (second == NULL || output[0] == '?')
        return false;
    *second++ = 0;
    second[strcspn(second, "\n (")] = 0; /* without "(discriminator 4)" */
    const char *name = strrchr(second, '/');
    snprintf(buffer, size, "%s at %s", output, name ? name + 1 : second);
    return true;
}

const char *tw_symbol(const char *maps, uint64_t pc, char *buffer, size_t size)
{
    struct place place;
    char offset[32], output[2048];
    if (pc == 0 || !find_object(maps, pc, &place)) {
        snprintf(buffer, size, "%#" PRIx64, pc);
        return buffer;
    }
    /* The return address may belong to the next line: the call is just before it. */
    snprintf(offset, sizeof offset, "%#" PRIx64, link_address(&place) - 1);
    char tool[] = "addr2line", names[] = "-f", plain[] = "-C", object[] = "-e";
    char *const argv[] = {tool, names, plain, object, place.object, offset, NULL};
    if (!run(argv, output, sizeof output) || !join_lines(output, buffer, size))
        snprintf(buffer, size, "%s+%#" PRIx64, place.object, place.offset);
    return buffer;
}
