#include "agentd/mailbox.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum phase { WAITING, RUNNING, FINISHED };

struct letter {
    tw_mailbox_fn fn;
    void *arg;
    struct tw_error *err;
    enum tw_code code;
    enum phase phase;
    struct letter *next;
};

struct tw_mailbox {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct letter *first;
    struct letter **last;
    unsigned count, capacity;
    bool shut;
    int fd;
};

struct tw_mailbox *tw_mailbox_open(unsigned capacity)
{
    struct tw_mailbox *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->fd < 0) {
        free(m);
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, &attr);
    pthread_condattr_destroy(&attr);
    m->capacity = capacity;
    m->last = &m->first;
    return m;
}

void tw_mailbox_close(struct tw_mailbox *mailbox)
{
    if (!mailbox)
        return;
    close(mailbox->fd);
    pthread_cond_destroy(&mailbox->changed);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

int tw_mailbox_fd(const struct tw_mailbox *mailbox)
{
    return mailbox->fd;
}

static void unlink_letter(struct tw_mailbox *m, struct letter *l)
{
    for (struct letter **p = &m->first; *p; p = &(*p)->next) {
        if (*p == l) {
            *p = l->next;
            if (m->last == &l->next)
                m->last = p;
            m->count--;
            return;
        }
    }
}

/* With the lock held: waits until the letter is finished, or takes it back at the deadline. Once
 * it runs, it is waited for: its argument lives in the caller's frame, and runs are short. */
static enum tw_code await(struct tw_mailbox *m, struct letter *l, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / TW_SEC),
                             .tv_nsec = (long)(deadline_ns % TW_SEC)};
    while (l->phase != FINISHED) {
        if (l->phase == RUNNING) {
            pthread_cond_wait(&m->changed, &m->lock);
        } else if (pthread_cond_timedwait(&m->changed, &m->lock, &until) != 0 &&
                   l->phase == WAITING && tw_now(&tw_monotonic) >= deadline_ns) {
            unlink_letter(m, l);
            return tw_fail(l->err, TW_DEADLINE_EXCEEDED, "agent", NULL, NULL,
                           "the data thread was busy until the call's deadline");
        }
    }
    return l->code;
}

enum tw_code tw_mailbox_call(struct tw_mailbox *mailbox, tw_mailbox_fn fn, void *arg,
                             uint64_t deadline_ns, struct tw_error *err)
{
    struct letter l = {.fn = fn, .arg = arg, .err = err};
    enum tw_code code;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->shut) {
        code = tw_fail(err, TW_UNAVAILABLE, "agent", NULL, NULL, "the agent is stopping");
    } else if (mailbox->count == mailbox->capacity) {
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, "agent", NULL, NULL,
                       "%u commands are waiting already", mailbox->count);
    } else {
        *mailbox->last = &l;
        mailbox->last = &l.next;
        mailbox->count++;
        uint64_t one = 1;
        ssize_t n = write(mailbox->fd, &one, sizeof one);
        (void)n; /* a full eventfd is readable all the same */
        code = await(mailbox, &l, deadline_ns);
    }
    pthread_mutex_unlock(&mailbox->lock);
    return code;
}

void tw_mailbox_run(struct tw_mailbox *mailbox, void *owner)
{
    uint64_t ignored;
    ssize_t n = read(mailbox->fd, &ignored, sizeof ignored);
    (void)n;
    pthread_mutex_lock(&mailbox->lock);
    for (struct letter *l; (l = mailbox->first);) {
        unlink_letter(mailbox, l);
        l->phase = RUNNING;
        pthread_mutex_unlock(&mailbox->lock);
        enum tw_code code = l->fn(owner, l->arg, l->err);
        pthread_mutex_lock(&mailbox->lock);
        l->code = code;
        l->phase = FINISHED;
        pthread_cond_broadcast(&mailbox->changed);
    }
    pthread_mutex_unlock(&mailbox->lock);
}

void tw_mailbox_shut(struct tw_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    mailbox->shut = true;
    for (struct letter *l; (l = mailbox->first);) {
        unlink_letter(mailbox, l);
        l->code = tw_fail(l->err, TW_UNAVAILABLE, "agent", NULL, NULL, "the agent is stopping");
        l->phase = FINISHED;
    }
    pthread_cond_broadcast(&mailbox->changed);
    pthread_mutex_unlock(&mailbox->lock);
}
