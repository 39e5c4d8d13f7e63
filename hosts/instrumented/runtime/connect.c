/* Finding the agent, being tracked by it, losing it again.
 *
 * One thread of the runtime's own holds the connection. Without an agent it looks for one now and
 * then; the program runs on. With one it does what it is told. The file is mapped at a place that
 * is never given up: a thread that has read the mode may store a little later. */
#include "hosts/instrumented/runtime/runtime.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS   500
#define SETTLE_MS  100
#define STACK_SIZE (128u << 10)

static char socket_path[sizeof((struct sockaddr_un *)NULL)->sun_path];
static int connection = -1;

static int connect_to_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, sizeof address.sun_path);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool readable_within(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0 && (p.revents & POLLIN);
}

/* The descriptor that came with a message; -1: none. */
static int descriptor_of(struct msghdr *message)
{
    int file = -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(message);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&file, CMSG_DATA(c), sizeof file);
    return file;
}

static bool is_usable(const struct tw_inst_order *order, int file)
{
    struct stat st;
    if (order->magic != TW_INST_MAGIC || order->version != TW_INST_VERSION)
        return false;
    if (order->mode == TW_INST_DETACHED || (order->flags & TW_INST_GO))
        return file < 0;
    return order->mode <= TW_INST_MOVING && order->file_bytes == TW_INST_FILE_BYTES && file >= 0 &&
           fstat(file, &st) == 0 && (uint64_t)st.st_size == TW_INST_FILE_BYTES;
}

/* The next order, which is there, and its file. False: the agent has gone, or is none. */
static bool receive(int fd, struct tw_inst_order *order, int *file)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = order, .iov_len = sizeof *order};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    const ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    *file = got < 0 ? -1 : descriptor_of(&message);
    if (got == (ssize_t)sizeof *order && is_usable(order, *file))
        return true;
    if (*file >= 0)
        close(*file);
    return false;
}

static bool map_file(int file)
{
    const int fixed = tw_rt.base ? MAP_FIXED : 0;
    void *at = mmap(tw_rt.base, TW_INST_FILE_BYTES, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE | fixed, file, 0);
    if (at == MAP_FAILED)
        return false;
    madvise(at, TW_INST_FILE_BYTES, MADV_DONTDUMP);
    tw_rt.base = at;
    tw_rt.summary = tw_rt.base + TW_INST_SUMMARY_AT;
    tw_rt.marks = tw_rt.base + TW_INST_MARKS_AT;
    tw_rt.lines = tw_rt.base + TW_INST_LINES_AT;
    return true;
}

/* Threads that read the mode before it changed may have a store under way that nobody announced.
 * Each is waited for until it has entered the runtime again or sleeps in a system call. */
static uint32_t settle(void)
{
    uint32_t unsettled = tw_rt_threads_unsettled();
    for (int waited_ms = 0; unsettled && waited_ms < SETTLE_MS; waited_ms++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        unsettled = tw_rt_threads_unsettled();
    }
    return unsettled;
}

/* Memory of nobody takes the file's place: its pages go back to the system. Not while a line of a
 * region is absent or held: who touches it must go on waiting, and nobody else can bring it. */
static void untrack(void)
{
    if (tw_rt_mode() == TW_INST_DETACHED || !tw_rt_regions_ready())
        return;
    __atomic_store_n(&tw_rt.marking, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&tw_rt.mode, TW_INST_DETACHED, __ATOMIC_SEQ_CST);
    mmap(tw_rt.base, TW_INST_FILE_BYTES, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static bool track(int fd, const struct tw_inst_order *order, int file)
{
    untrack();
    if (tw_rt_mode() != TW_INST_DETACHED || !map_file(file))
        return false;
    struct tw_inst_header *header = (struct tw_inst_header *)(void *)tw_rt.base;
    const bool barrier =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
    __atomic_store_n(&header->barrier_ready, barrier, __ATOMIC_RELAXED);
    __atomic_store_n(&tw_rt.generation, tw_rt.generation + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&tw_rt.marking, order->mode == TW_INST_MARK ? tw_rt.generation : 0,
                     __ATOMIC_SEQ_CST);
    __atomic_store_n(&tw_rt.mode, order->mode, __ATOMIC_SEQ_CST);
    tw_rt_regions_tell();
    tw_rt_objects_scan();
    __atomic_store_n(&header->threads_unsettled, settle(), __ATOMIC_RELAXED);
    __atomic_store_n(&header->attached, 1, __ATOMIC_RELEASE);
    const struct tw_inst_ready ready = {.magic = TW_INST_MAGIC};
    return send(fd, &ready, sizeof ready, MSG_NOSIGNAL) == (ssize_t)sizeof ready;
}

/* Does what the agent says. False: the connection is of no more use. */
static bool obey(int fd, struct tw_inst_order *order)
{
    int file;
    if (!receive(fd, order, &file))
        return false;
    if (order->flags & TW_INST_GO)
        return true;
    if (order->mode == TW_INST_DETACHED) {
        untrack();
        return true;
    }
    const bool tracked = track(fd, order, file);
    close(file);
    return tracked;
}

static void detach(void)
{
    untrack();
    if (connection >= 0)
        close(connection);
    connection = -1;
}

/* Makes the program known. The first order is waited for, and where it says so the one to go. */
static void meet_agent(void)
{
    const struct tw_inst_hello hello = {
        .magic = TW_INST_MAGIC, .version = TW_INST_VERSION, .pid = (uint32_t)getpid()};
    struct tw_inst_order order = {0};
    connection = connect_to_agent();
    if (connection < 0)
        return;
    bool good = send(connection, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello;
    if (good && readable_within(connection, TW_INST_ANSWER_MS))
        good = obey(connection, &order);
    if (good && (order.flags & TW_INST_HOLD) && readable_within(connection, TW_INST_HOLD_MS))
        good = obey(connection, &order);
    if (!good)
        detach();
}

/* True when there is an order; false when the agent has gone. */
static bool wait_for_order(void)
{
    struct pollfd p = {.fd = connection, .events = POLLIN | POLLRDHUP};
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    return (p.revents & POLLIN) != 0;
}

static void *keep_connected(void *unused)
{
    struct tw_inst_order order;
    (void)unused;
    pthread_setname_np(pthread_self(), "towline");
    for (;;) {
        while (connection >= 0) {
            if (!wait_for_order() || !obey(connection, &order))
                detach();
        }
        nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
        meet_agent();
    }
    return NULL;
}

static bool choose_socket(void)
{
    const char *path = getenv(TW_INST_SOCKET_ENV);
    if (path == NULL || *path == 0)
        path = TW_INST_SOCKET_DEFAULT;
    if (strcmp(path, "off") == 0 || strlen(path) >= sizeof socket_path)
        return false;
    strncpy(socket_path, path, sizeof socket_path - 1);
    return true;
}

static void start_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, &attributes, keep_connected, NULL) != 0)
        detach(); /* nobody would notice the agent's end */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
}

/* The child has the parent's marks mapped: its stores are not the parent's. It is another program,
 * which makes itself known in a while: most children execute something before that. */
static void leave_in_child(void)
{
    tw_rt_regions_forget();
    detach();
    start_thread();
}

void tw_rt_connect_init(void)
{
    if (!choose_socket())
        return;
    pthread_atfork(NULL, NULL, leave_in_child);
    meet_agent();
    start_thread();
}
