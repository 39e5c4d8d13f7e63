/* Records of threads: given at a thread's first access, returned at its end. */
#include "hosts/instrumented/runtime/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_key_t key;
static bool key_ready;

static struct tw_inst_thread *records(void)
{
    return (struct tw_inst_thread *)(void *)(tw_rt.base + TW_INST_THREADS_AT);
}

static struct tw_inst_header *header(void)
{
    return (struct tw_inst_header *)(void *)tw_rt.base;
}

static uint32_t own_tid(void)
{
    return (uint32_t)syscall(SYS_gettid);
}

/* The agent looks at no record beyond. */
static void raise_top(const struct tw_inst_thread *record)
{
    const uint32_t needed = tw_rt_index(record) + 1;
    uint32_t top = __atomic_load_n(&header()->threads_top, __ATOMIC_RELAXED);
    while (top < needed && !__atomic_compare_exchange_n(&header()->threads_top, &top, needed, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

static bool has_ended(uint32_t tid)
{
    return syscall(SYS_tgkill, getpid(), tid, 0) < 0 && errno == ESRCH;
}

static bool take(struct tw_inst_thread *record, uint32_t from, uint32_t tid)
{
    return __atomic_compare_exchange_n(&record->tid, &from, tid, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

/* A free one, or one whose thread ended without returning it. With TW_INST_SHARING rather one that
 * nobody had before: what ended threads have written stays apart from what others write. */
static struct tw_inst_thread *find_record(uint32_t tid)
{
    struct tw_inst_thread *all = records();
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX && tw_rt_mode() == TW_INST_SHARING; i++) {
        if (__atomic_load_n(&all[i].used, __ATOMIC_RELAXED) == 0 && take(&all[i], 0, tid))
            return &all[i];
    }
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        if (__atomic_load_n(&all[i].tid, __ATOMIC_RELAXED) == 0 && take(&all[i], 0, tid))
            return &all[i];
    }
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        const uint32_t holder = __atomic_load_n(&all[i].tid, __ATOMIC_RELAXED);
        if (holder && has_ended(holder) && take(&all[i], holder, tid))
            return &all[i];
    }
    return NULL;
}

struct tw_inst_thread *tw_rt_register(void)
{
    const int saved_errno = errno;
    const uint32_t generation = tw_rt.generation;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* a handler's accesses wait for the record */
    if (tw_rt_self.generation != generation) {
        tw_rt_self.record = find_record(own_tid());
        if (tw_rt_self.record) {
            __atomic_store_n(&tw_rt_self.record->used, 1, __ATOMIC_RELAXED);
            __atomic_store_n(&tw_rt_self.record->want_lines, 0, __ATOMIC_RELAXED);
            raise_top(tw_rt_self.record);
            tw_rt_announce(tw_rt_self.record, 0);
        } else {
            __atomic_add_fetch(&header()->threads_refused, 1, __ATOMIC_RELAXED);
        }
        tw_rt_self.marking = tw_rt_self.record ? generation : TW_RT_NEVER_MARKING;
        tw_rt_self.generation = generation;
        if (key_ready)
            pthread_setspecific(key, &tw_rt_self);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved_errno;
    return tw_rt_self.record;
}

static void give_back(void *self)
{
    (void)self;
    if (tw_rt_self.record && tw_rt_self.generation == tw_rt.generation) {
        tw_rt_announce(tw_rt_self.record, 0);
        __atomic_store_n(&tw_rt_self.record->tid, 0, __ATOMIC_RELEASE);
    }
    tw_rt_self.marking = TW_RT_NEVER_MARKING;
    tw_rt_self.record = NULL;
    tw_rt_self.generation = 0;
}

void tw_rt_threads_init(void)
{
    key_ready = pthread_key_create(&key, give_back) == 0;
}

/* ---- After an attachment in mid-flight ------------------------------------------------------- */

/* Is the thread in a system call, so not between an access's check and its store? */
static bool is_in_syscall(const char *tid)
{
    char path[64], text[32];
    size_t n = 0;
    for (const char *part = "/proc/self/task/"; *part;)
        path[n++] = *part++;
    while (*tid && n < sizeof path - 16)
        path[n++] = *tid++;
    for (const char *part = "/syscall"; *part;)
        path[n++] = *part++;
    path[n] = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT; /* it has ended */
    const ssize_t got = read(fd, text, sizeof text);
    close(fd);
    return got > 0 && text[0] >= '0' && text[0] <= '9';
}

static bool has_record(uint32_t tid)
{
    const struct tw_inst_thread *all = records();
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        if (__atomic_load_n(&all[i].tid, __ATOMIC_ACQUIRE) == tid)
            return true;
    }
    return false;
}

uint32_t tw_rt_threads_unsettled(void)
{
    uint32_t unsettled = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL)
        return 1;
    for (const struct dirent *entry; (entry = readdir(tasks));) {
        const uint32_t tid = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (tid && tid != own_tid() && !has_record(tid) && !is_in_syscall(entry->d_name))
            unsettled++;
    }
    closedir(tasks);
    return unsettled;
}
