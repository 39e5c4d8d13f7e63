/* Inside QEMU: makes a userfaultfd and hands it to the agent (guard.h). */
#include "hosts/qemu/guard.h"
#include "hosts/qemu/ram_base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static struct {
    int listener, userfaultfd, error;
    char ram_path[PATH_MAX];
    uint64_t ram_inode, ram_size;
} g = {.listener = -1, .userfaultfd = -1};

/* The device comes first: who may open it needs no other right. */
static int make_userfaultfd(void)
{
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;
    if (device >= 0)
        close(device);
    if (fd < 0)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    return fd;
}

static struct tw_guard_hello hello_now(void)
{
    struct tw_guard_hello h = {
        .magic = TW_GUARD_MAGIC, .size = g.ram_size, .error = (uint32_t)g.error};
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps || !tw_ram_base_find(maps, g.ram_path, g.ram_inode, g.ram_size, &h.base))
        h.error = ENXIO;
    if (maps)
        fclose(maps);
    return h;
}

static int send_hello(int to, struct tw_guard_hello *h)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec io = {.iov_base = h, .iov_len = sizeof *h};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (h->error == 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &g.userfaultfd, sizeof(int));
    }
    return sendmsg(to, &m, MSG_NOSIGNAL) == (ssize_t)sizeof *h ? 0 : -1;
}

/* Memory is for nobody but whoever could read it anyway. */
static bool is_agent(int peer)
{
    struct ucred who = {0};
    socklen_t size = sizeof who;
    return getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

/* What QEMU has mapped already would be touched without a wait. The file keeps its contents. */
static void attend(int agent)
{
    struct tw_guard_hello h = hello_now();
    char byte;
    if (!is_agent(agent) || send_hello(agent, &h) < 0 || h.error)
        return;
    while (read(agent, &byte, 1) == 1) {
        if (madvise((void *)(uintptr_t)h.base, h.size, MADV_DONTNEED) < 0 ||
            send(agent, &byte, 1, MSG_NOSIGNAL) != 1)
            return;
    }
}

static void *run(void *unused)
{
    (void)unused;
    for (;;) {
        const int agent = accept4(g.listener, NULL, NULL, SOCK_CLOEXEC);
        if (agent < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (agent < 0)
            return NULL;
        attend(agent);
        close(agent);
    }
}

/* QEMU's signals are for QEMU's threads. */
static int start_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int number = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (number == 0)
        pthread_detach(thread);
    return number;
}

int tw_guard_serve(const char *socket_path, const char *ram_path, uint64_t ram_inode,
                   uint64_t ram_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path || strlen(ram_path) >= sizeof g.ram_path)
        return ENAMETOOLONG;
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    strcpy(g.ram_path, ram_path);
    g.ram_inode = ram_inode;
    g.ram_size = ram_size;
    g.userfaultfd = make_userfaultfd();
    g.error = g.userfaultfd < 0 ? errno : 0;
    g.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(socket_path);
    if (g.listener < 0 || bind(g.listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(g.listener, 1) < 0)
        return errno;
    return start_thread();
}
