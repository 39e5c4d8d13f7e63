/* What the programs ask the system for, in virtual time. The linker leads every call of these
 * functions here (--wrap, see CMakeLists.txt); outside of fibers the clock stands still and locks
 * are free. Mutexes and conditions keep what they need in the caller's own object. */
#include "tests/cluster/virtual/fiber.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WALL_BEGINS_S 1800000000 /* the wall clock of the simulation, seconds since 1970 */
#define TURN_NS       (10 * TW_US)

struct lock {
    bool held;
};
_Static_assert(sizeof(struct lock) <= sizeof(pthread_mutex_t), "a lock fits into a mutex");

/* Of the linker; there is no header for them. */
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);
int __wrap_usleep(useconds_t us);
int __wrap_nanosleep(const struct timespec *duration, struct timespec *left);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t size);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *cond);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    uint64_t now = vt_now();
    t->tv_sec = (time_t)(now / TW_SEC) + (id == CLOCK_REALTIME ? WALL_BEGINS_S : 0);
    t->tv_nsec = (long)(now % TW_SEC);
    return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags)
{
    uint8_t *to = buffer;
    (void)flags;
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)vt_below(256);
    return (ssize_t)size;
}

int __wrap_nanosleep(const struct timespec *duration, struct timespec *left)
{
    (void)left;
    vt_sleep((uint64_t)duration->tv_sec * TW_SEC + (uint64_t)duration->tv_nsec);
    return 0;
}

int __wrap_usleep(useconds_t us)
{
    vt_sleep(us * TW_US);
    return 0;
}

/* Only data threads wait so. One whose process was killed ends here: it holds nothing. */
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const void *mask)
{
    struct vt_node *node = vt_here();
    uint64_t wait = (uint64_t)limit->tv_sec * TW_SEC + (uint64_t)limit->tv_nsec;
    (void)fds, (void)count, (void)mask;
    if (wait < TURN_NS || node->poked)
        wait = TURN_NS;
    node->poked = false;
    node->polling = true;
    if (!node->dead)
        vt_sleep(wait);
    node->polling = false;
    if (node->dead)
        vt_exit();
    return 0;
}

/* Eight bytes are what wakes a data thread: the event descriptor of its mailbox. */
ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    if (size == sizeof(uint64_t) && vt_here())
        vt_poke(vt_here());
    return __real_write(fd, bytes, size);
}

/* ---- Threads --------------------------------------------------------------------------------- */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    (void)attr;
    *thread = (pthread_t)vt_spawn(vt_here(), fn, arg);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    void *got = vt_join((struct vt_fiber *)thread);
    if (result)
        *result = got;
    return 0;
}

/* ---- Locks ----------------------------------------------------------------------------------- */

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
    (void)attr;
    memset(mutex, 0, sizeof *mutex);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    if (((struct lock *)mutex)->held)
        abort(); /* a defect of the program */
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    struct lock *lock = (struct lock *)mutex;
    while (lock->held)
        vt_wait(mutex, TW_NEVER);
    lock->held = true;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    struct lock *lock = (struct lock *)mutex;
    if (!lock->held)
        abort();
    lock->held = false;
    vt_wake(mutex, 1);
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr)
{
    (void)attr;
    memset(cond, 0, sizeof *cond);
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *cond)
{
    (void)cond;
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    vt_wake(cond, 1);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    vt_wake(cond, ~0u);
    return 0;
}

static bool wait_on(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns)
{
    __wrap_pthread_mutex_unlock(mutex);
    bool woken = vt_wait(cond, until_ns);
    __wrap_pthread_mutex_lock(mutex);
    return woken;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    wait_on(cond, mutex, TW_NEVER);
    return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    uint64_t at = (uint64_t)until->tv_sec * TW_SEC + (uint64_t)until->tv_nsec;
    return wait_on(cond, mutex, at) ? 0 : ETIMEDOUT;
}
