/* The kernel and stdio write into the program's buffers; so do the allocator and qsort. All of it
 * is marked when it has happened. Where it would go to a region, it is written beside it first
 * (aside.c); what the kernel reads there is waited for. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define LARGE (64u << 10) /* bytes of an allocation that may come from the system as zeros */

static void wrote(const void *buffer, ssize_t count, uintptr_t pc)
{
    if (count > 0)
        tw_rt_stored((uintptr_t)buffer, (size_t)count, pc);
}

static void wrote_parts(const struct iovec *parts, size_t part_count, ssize_t count, uintptr_t pc)
{
    size_t rest = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < part_count && rest; i++) {
        const size_t here = parts[i].iov_len < rest ? parts[i].iov_len : rest;
        tw_rt_stored((uintptr_t)parts[i].iov_base, here, pc);
        rest -= here;
    }
}

/* Into `buffer`, or first into memory beside it. */
static ssize_t wrote_aside(void *into, void *buffer, ssize_t count, uintptr_t pc)
{
    if (into)
        tw_rt_aside_end(into, buffer, count > 0 ? (size_t)count : 0, pc);
    return count;
}

static bool any_moves(const struct iovec *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tw_rt_moves((uintptr_t)parts[i].iov_base, parts[i].iov_len))
            return true;
    return false;
}

static ssize_t refuse(void)
{
    errno = EFAULT;
    return -1;
}

TW_RT_EXPORT ssize_t read(int fd, void *buffer, size_t size)
{
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count = into || !size ? tw_real(read)(fd, into, size) : -1;
    return wrote_aside(into, buffer, count, TW_RT_PC);
}

TW_RT_EXPORT ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count = into || !size ? tw_real(pread)(fd, into, size, offset) : -1;
    return wrote_aside(into, buffer, count, TW_RT_PC);
}

TW_RT_EXPORT ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset)
{
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count = into || !size ? tw_real(pread64)(fd, into, size, offset) : -1;
    return wrote_aside(into, buffer, count, TW_RT_PC);
}

TW_RT_EXPORT ssize_t readv(int fd, const struct iovec *parts, int part_count)
{
    if (part_count > 0 && any_moves(parts, (size_t)part_count))
        return refuse();
    const ssize_t count = tw_real(readv)(fd, parts, part_count);
    wrote_parts(parts, part_count > 0 ? (size_t)part_count : 0, count, TW_RT_PC);
    return count;
}

TW_RT_EXPORT ssize_t preadv(int fd, const struct iovec *parts, int part_count, off_t offset)
{
    if (part_count > 0 && any_moves(parts, (size_t)part_count))
        return refuse();
    const ssize_t count = tw_real(preadv)(fd, parts, part_count, offset);
    wrote_parts(parts, part_count > 0 ? (size_t)part_count : 0, count, TW_RT_PC);
    return count;
}

TW_RT_EXPORT ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count = into || !size ? tw_real(recv)(fd, into, size, flags) : -1;
    /* With MSG_TRUNC the count may exceed what was written. */
    wrote_aside(into, buffer, count > 0 && (size_t)count > size ? (ssize_t)size : count, TW_RT_PC);
    return count;
}

TW_RT_EXPORT ssize_t recvfrom(int fd, void *restrict buffer, size_t size, int flags,
                              struct sockaddr *restrict from, socklen_t *restrict from_size)
{
    const socklen_t room = from_size ? *from_size : 0;
    if (tw_rt_moves((uintptr_t)from, room) || tw_rt_moves((uintptr_t)from_size, 1))
        return refuse();
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count =
        into || !size ? tw_real(recvfrom)(fd, into, size, flags, from, from_size) : -1;
    wrote_aside(into, buffer, count > 0 && (size_t)count > size ? (ssize_t)size : count, TW_RT_PC);
    if (count >= 0 && from && from_size) {
        wrote(from, (ssize_t)(*from_size < room ? *from_size : room), TW_RT_PC);
        wrote(from_size, sizeof *from_size, TW_RT_PC);
    }
    return count;
}

TW_RT_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    if (any_moves(message->msg_iov, message->msg_iovlen) ||
        tw_rt_moves((uintptr_t)message, sizeof *message))
        return refuse();
    const ssize_t count = tw_real(recvmsg)(fd, message, flags);
    if (count < 0)
        return count;
    wrote_parts(message->msg_iov, message->msg_iovlen, count, TW_RT_PC);
    wrote(message->msg_name, (ssize_t)message->msg_namelen, TW_RT_PC);
    wrote(message->msg_control, (ssize_t)message->msg_controllen, TW_RT_PC);
    wrote(message, sizeof *message, TW_RT_PC);
    return count;
}

TW_RT_EXPORT ssize_t getrandom(void *buffer, size_t size, unsigned flags)
{
    void *into = tw_rt_aside(buffer, size);
    const ssize_t count = into || !size ? tw_real(getrandom)(into, size, flags) : -1;
    return wrote_aside(into, buffer, count, TW_RT_PC);
}

/* ---- What the kernel and stdio read ---------------------------------------------------------- */

/* What they took was loaded; by whom, nobody announces. */
static ssize_t took(const void *buffer, ssize_t count)
{
    if (count > 0)
        tw_rt_load((uintptr_t)buffer, (size_t)count);
    return count;
}

static void await_parts(const struct iovec *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tw_rt_await((uintptr_t)parts[i].iov_base, parts[i].iov_len);
}

static ssize_t took_parts(const struct iovec *parts, size_t part_count, ssize_t count)
{
    size_t rest = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < part_count && rest; i++) {
        const size_t here = parts[i].iov_len < rest ? parts[i].iov_len : rest;
        tw_rt_load((uintptr_t)parts[i].iov_base, here);
        rest -= here;
    }
    return count;
}

static size_t parts_of(int part_count)
{
    return part_count > 0 ? (size_t)part_count : 0;
}

TW_RT_EXPORT ssize_t write(int fd, const void *buffer, size_t size)
{
    tw_rt_await((uintptr_t)buffer, size);
    return took(buffer, tw_real(write)(fd, buffer, size));
}

TW_RT_EXPORT ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    tw_rt_await((uintptr_t)buffer, size);
    return took(buffer, tw_real(pwrite)(fd, buffer, size, offset));
}

TW_RT_EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t offset)
{
    tw_rt_await((uintptr_t)buffer, size);
    return took(buffer, tw_real(pwrite64)(fd, buffer, size, offset));
}

TW_RT_EXPORT ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    tw_rt_await((uintptr_t)buffer, size);
    return took(buffer, tw_real(send)(fd, buffer, size, flags));
}

TW_RT_EXPORT ssize_t sendto(int fd, const void *buffer, size_t size, int flags,
                            const struct sockaddr *to, socklen_t to_size)
{
    tw_rt_await((uintptr_t)buffer, size);
    return took(buffer, tw_real(sendto)(fd, buffer, size, flags, to, to_size));
}

TW_RT_EXPORT ssize_t writev(int fd, const struct iovec *parts, int part_count)
{
    await_parts(parts, parts_of(part_count));
    return took_parts(parts, parts_of(part_count), tw_real(writev)(fd, parts, part_count));
}

TW_RT_EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int part_count, off_t offset)
{
    await_parts(parts, parts_of(part_count));
    return took_parts(parts, parts_of(part_count), tw_real(pwritev)(fd, parts, part_count, offset));
}

TW_RT_EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    tw_rt_await((uintptr_t)message, sizeof *message);
    await_parts(message->msg_iov, message->msg_iovlen);
    return took_parts(message->msg_iov, message->msg_iovlen, tw_real(sendmsg)(fd, message, flags));
}

TW_RT_EXPORT size_t fwrite(const void *restrict buffer, size_t size, size_t count,
                           FILE *restrict file)
{
    tw_rt_await((uintptr_t)buffer, size * count);
    const size_t done = tw_real(fwrite)(buffer, size, count, file);
    took(buffer, (ssize_t)(done * size));
    return done;
}

/* Of a text, where somebody wants to know; waits for it. */
static size_t text_length(const char *string)
{
    return tw_rt_loads() == TW_RT_LOADS_IGNORED ? 0 : tw_rt_length(string, SIZE_MAX);
}

TW_RT_EXPORT int fputs(const char *restrict string, FILE *restrict file)
{
    const size_t length = text_length(string);
    const int result = tw_real(fputs)(string, file);
    if (result >= 0)
        took(string, (ssize_t)length);
    return result;
}

TW_RT_EXPORT int puts(const char *string)
{
    const size_t length = text_length(string);
    const int result = tw_real(puts)(string);
    if (result >= 0)
        took(string, (ssize_t)length);
    return result;
}

/* ---- stdio ----------------------------------------------------------------------------------- */

TW_RT_EXPORT size_t fread(void *restrict buffer, size_t size, size_t count, FILE *restrict file)
{
    void *into = tw_rt_aside(buffer, size * count);
    const size_t got = into || !size ? tw_real(fread)(into, size, count, file) : 0;
    /* Part of one more may have been written: it is not told. */
    const size_t bytes = into == buffer && got < count ? (got + 1) * size : got * size;
    wrote_aside(into, buffer, (ssize_t)bytes, TW_RT_PC);
    return got;
}

TW_RT_EXPORT char *fgets(char *restrict buffer, int size, FILE *restrict file)
{
    char *into = tw_rt_aside(buffer, size > 0 ? (size_t)size : 0);
    const char *got = into || size <= 0 ? tw_real(fgets)(into, size, file) : NULL;
    wrote_aside(into, buffer, got ? (ssize_t)tw_real(strlen)(into) + 1 : 0, TW_RT_PC);
    return got ? buffer : NULL;
}

static ssize_t get_until(char **restrict line, size_t *restrict size, int stop, FILE *restrict file,
                         uintptr_t pc)
{
    tw_rt_await((uintptr_t)line, sizeof *line);
    tw_rt_await((uintptr_t)size, sizeof *size);
    char *text = *line;
    size_t room = *size;
    const ssize_t count = tw_real(getdelim)(&text, &room, stop, file);
    tw_rt_store_begin((uintptr_t)line, sizeof *line);
    *line = text;
    tw_rt_store_end((uintptr_t)line, sizeof *line, pc);
    tw_rt_store_begin((uintptr_t)size, sizeof *size);
    *size = room;
    tw_rt_store_end((uintptr_t)size, sizeof *size, pc);
    if (count > 0)
        wrote(text, count + 1, pc);
    return count;
}

TW_RT_EXPORT ssize_t getdelim(char **restrict line, size_t *restrict size, int stop,
                              FILE *restrict file)
{
    return get_until(line, size, stop, file, TW_RT_PC);
}

TW_RT_EXPORT ssize_t getline(char **restrict line, size_t *restrict size, FILE *restrict file)
{
    return get_until(line, size, '\n', file, TW_RT_PC);
}

/* ---- The allocator's writes of contents (not its bookkeeping), and sorting ------------------- */

/* An allocator that gets its memory as zeros from the system does not write them: pages that are
 * not there were not written. */
static void stored_where_present(uintptr_t address, size_t size, uintptr_t pc)
{
    enum { PAGES = 256 };
    unsigned char present[PAGES];
    const uintptr_t end = address + size;
    const int saved_errno = errno;
    while (address < end) {
        const uintptr_t first = address & ~((uintptr_t)TW_PAGE_SIZE - 1);
        const uintptr_t rest = (end - first + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE;
        const uintptr_t pages = rest < PAGES ? rest : PAGES;
        const bool known = mincore((void *)first, pages * TW_PAGE_SIZE, present) == 0;
        for (uintptr_t i = 0; i < pages; i++) {
            const uintptr_t next = first + (i + 1) * TW_PAGE_SIZE;
            const uintptr_t stop = next < end ? next : end;
            if (!known || (present[i] & 1))
                tw_rt_stored(address, stop - address, pc);
            address = stop;
        }
    }
    errno = saved_errno;
}

TW_RT_EXPORT void *calloc(size_t count, size_t size)
{
    void *memory = tw_real(calloc)(count, size);
    if (memory && count * size < LARGE)
        tw_rt_stored((uintptr_t)memory, count * size, TW_RT_PC);
    else if (memory && tw_rt_mode() != TW_INST_DETACHED)
        stored_where_present((uintptr_t)memory, count * size, TW_RT_PC);
    return memory;
}

TW_RT_EXPORT void *realloc(void *memory, size_t size)
{
    const size_t usable = memory ? malloc_usable_size(memory) : 0;
    const uintptr_t before = (uintptr_t)memory;
    void *moved = tw_real(realloc)(memory, size);
    if (moved && (uintptr_t)moved != before)
        tw_rt_stored((uintptr_t)moved, usable < size ? usable : size, TW_RT_PC);
    return moved;
}

TW_RT_EXPORT void *reallocarray(void *memory, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return tw_real(reallocarray)(memory, count, size); /* which says so */
    return realloc(memory, bytes);
}

TW_RT_EXPORT void qsort(void *base, size_t count, size_t size,
                        int (*compare)(const void *, const void *))
{
    void *into = tw_rt_aside(base, count * size);
    if (into == NULL && count > 0 && size > 0)
        abort(); /* it cannot say so */
    if (into != base) {
        tw_rt_await((uintptr_t)base, count * size);
        tw_real(memcpy)(into, base, count * size);
    }
    tw_real(qsort)(into, count, size, compare);
    tw_rt_aside_end(into, base, count * size, TW_RT_PC);
}
