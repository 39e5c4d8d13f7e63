#include "hosts/qemu/fault_crew.h"

#include "base/clock.h"
#include "base/thread.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* More than there are threads in QEMU: each waits for one page. */
#define QUEUE    1024u
#define AHEAD    64u /* complete pages that are opened together */
#define PAUSE_MS 1

struct tw_fault_crew {
    struct tw_guarded guarded;
    unsigned workers; /* that run */
    pthread_t threads[TW_FAULT_WORKERS_MAX];
    int stop, bell; /* eventfds */
    _Atomic uint64_t opened;

    pthread_rwlock_t view_lock; /* a worker that looks holds it shared */
    struct tw_host_fault_view view;

    pthread_mutex_t queue_lock;
    struct tw_host_fault queue[QUEUE];
    unsigned first, count;
};

/* ---- Pages that are complete ------------------------------------------------------------------
 */

static bool is_watched(const struct tw_host_fault_view *v, uint64_t page)
{
    return __atomic_load_n(&v->watched[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

static bool is_complete(const struct tw_host_fault_view *v, uint64_t page)
{
    return __atomic_load_n(&v->to_come[page], __ATOMIC_ACQUIRE) == 0;
}

static void note_watched(const struct tw_host_fault_view *v, uint64_t page)
{
    const uint64_t bit = UINT64_C(1) << (page % 64);
    if (__atomic_fetch_and(&v->watched[page / 64], ~bit, __ATOMIC_RELAXED) & bit)
        __atomic_fetch_add(v->touched, 1, __ATOMIC_RELAXED);
}

/* True when the touch need not wait any more. What cannot be opened is the data thread's to tell.
 */
static bool let_go(struct tw_fault_crew *c, uint64_t page)
{
    const struct tw_host_fault_view *v = &c->view;
    pthread_rwlock_rdlock(&c->view_lock);
    bool opened = page < v->pages && is_complete(v, page);
    if (opened) {
        uint64_t end = page + 1;
        note_watched(v, page);
        while (end < v->pages && end < page + AHEAD && is_complete(v, end) && !is_watched(v, end))
            end++;
        opened = tw_guard_open(&c->guarded, page, end - page, NULL) == TW_OK;
    }
    c->opened += opened;
    pthread_rwlock_unlock(&c->view_lock);
    return opened;
}

/* ---- The queue to the data thread -------------------------------------------------------------
 */

static bool put(struct tw_fault_crew *c, const struct tw_host_fault *f)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&c->queue_lock);
    const bool fits = c->count < QUEUE;
    if (fits)
        c->queue[(c->first + c->count++) % QUEUE] = *f;
    pthread_mutex_unlock(&c->queue_lock);
    if (fits && write(c->bell, &one, sizeof one) < 0)
        return true; /* the counter is full: it rings already */
    return fits;
}

size_t tw_fault_crew_take(struct tw_fault_crew *c, struct tw_host_fault *out, size_t max)
{
    uint64_t rung;
    size_t n = 0;
    if (max == 0)
        return 0;
    if (read(c->bell, &rung, sizeof rung) < 0 && errno != EAGAIN)
        return 0;
    pthread_mutex_lock(&c->queue_lock);
    for (; n < max && c->count; c->count--) {
        out[n++] = c->queue[c->first];
        c->first = (c->first + 1) % QUEUE;
    }
    const bool more = c->count > 0;
    pthread_mutex_unlock(&c->queue_lock);
    rung = 1;
    if (more && write(c->bell, &rung, sizeof rung) < 0)
        return n; /* it rings already */
    return n;
}

/* ---- A worker ---------------------------------------------------------------------------------
 */

/* False when it is to end. */
static bool await(const struct tw_fault_crew *c, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = c->stop, .events = POLLIN},
                            {.fd = timeout_ms < 0 ? c->guarded.fd : -1, .events = POLLIN}};
    const int n = poll(fds, 2, timeout_ms);
    if (fds[0].revents || (n < 0 && errno != EINTR))
        return false;
    /* POLLERR: the process has ended, or its memory was let go. */
    return !(fds[1].revents & (POLLERR | POLLHUP | POLLNVAL));
}

static void serve(struct tw_fault_crew *c, const struct uffd_msg *m)
{
    const struct tw_guarded *g = &c->guarded;
    const uint64_t address = m->arg.pagefault.address - g->base;
    if (m->event != UFFD_EVENT_PAGEFAULT || address >= g->size)
        return;
    const struct tw_host_fault f = {.address = address, .since_ns = tw_now(&tw_monotonic)};
    if (let_go(c, tw_page_of(address)))
        return;
    while (!put(c, &f) && await(c, PAUSE_MS))
        ;
}

static void *work(void *arg)
{
    struct tw_fault_crew *c = arg;
    struct uffd_msg m;
    tw_thread_slice_ask(TW_THREAD_SHORT_SLICE);
    while (await(c, -1))
        while (read(c->guarded.fd, &m, sizeof m) == (ssize_t)sizeof m)
            serve(c, &m);
    return NULL;
}

/* ---- Made and ended ----------------------------------------------------------------------------
 */

static int start_thread(struct tw_fault_crew *c)
{
    sigset_t all, before; /* signals are for the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int number = pthread_create(&c->threads[c->workers], NULL, work, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->workers += number == 0;
    return number;
}

enum tw_code tw_fault_crew_open(const struct tw_guarded *guarded, unsigned workers,
                                struct tw_fault_crew **crew, struct tw_error *err)
{
    struct tw_fault_crew *c = calloc(1, sizeof *c);
    *crew = NULL;
    if (!c)
        return tw_fail_errno(err, ENOMEM, guarded->where, "no memory for its fault workers");
    c->guarded = *guarded;
    pthread_rwlock_init(&c->view_lock, NULL);
    pthread_mutex_init(&c->queue_lock, NULL);
    c->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int number = c->stop < 0 || c->bell < 0 ? errno : 0;
    if (workers == 0)
        workers = TW_FAULT_WORKERS_DEFAULT;
    while (number == 0 && c->workers < workers && c->workers < TW_FAULT_WORKERS_MAX)
        number = start_thread(c);
    if (number) {
        tw_fault_crew_close(c);
        return tw_fail_errno(err, number, guarded->where, "cannot start its fault workers");
    }
    *crew = c;
    return TW_OK;
}

void tw_fault_crew_close(struct tw_fault_crew *c)
{
    const uint64_t one = 1;
    if (!c)
        return;
    bool told = c->stop >= 0 && write(c->stop, &one, sizeof one) == (ssize_t)sizeof one;
    for (unsigned i = 0; told && i < c->workers; i++)
        pthread_join(c->threads[i], NULL);
    if (c->stop >= 0)
        close(c->stop);
    if (c->bell >= 0)
        close(c->bell);
    pthread_rwlock_destroy(&c->view_lock);
    pthread_mutex_destroy(&c->queue_lock);
    free(c);
}

void tw_fault_crew_view(struct tw_fault_crew *c, const struct tw_host_fault_view *view)
{
    pthread_rwlock_wrlock(&c->view_lock);
    c->view = view ? *view : (struct tw_host_fault_view){0};
    pthread_rwlock_unlock(&c->view_lock);
}

int tw_fault_crew_fd(const struct tw_fault_crew *c)
{
    return c->bell;
}

uint64_t tw_fault_crew_opened(const struct tw_fault_crew *c)
{
    return c->opened;
}
