/* Calls that may wait in the kernel, in threads of their own, so that poll keeps its deadline.
 *
 * On iWARP a connection begins with one of TCP, and Soft-iWARP makes that in blocking mode: as long
 * as TCP repeats its SYN, rdma_connect() stays in the kernel. Whoever frees a queue pair that has
 * connected waits there for the peer's answer, 10 s at most. The fabric's thread gives such a queue
 * pair away and touches it no more until it has joined the thread. */
#include "fabric/verbs_parts.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

/* No signal of the process is for these threads. */
static int start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int number = pthread_create(thread, NULL, body, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number;
}

/* ---- Connect --------------------------------------------------------------------------------- */

static void *connect_body(void *arg)
{
    struct verbs_queue *q = arg;
    q->call.number = rdma_connect(q->id, &q->call.param) ? errno : 0;
    __atomic_store_n(&q->call.done, true, __ATOMIC_RELEASE);
    verbs_wake(q->link->fabric);
    return NULL;
}

int verbs_connect_begin(struct verbs_queue *q)
{
    struct verbs_call *call = &q->call;
    call->param.private_data = &call->priv;
    if (!q->link->fabric->iwarp)
        return rdma_connect(q->id, &call->param) ? errno : 0;
    call->done = false;
    const int number = start(&call->thread, connect_body, q);
    call->running = number == 0;
    return number;
}

bool verbs_connect_ended(struct verbs_queue *q, int *number)
{
    struct verbs_call *call = &q->call;
    if (!call->running || !__atomic_load_n(&call->done, __ATOMIC_ACQUIRE))
        return false;
    pthread_join(call->thread, NULL);
    call->running = false;
    *number = call->number;
    return true;
}

/* The write in which rdma_connect() waits is a place at which a thread can be cancelled, and the
 * kernel gives up connecting then. */
static void connect_stop(struct verbs_queue *q)
{
    if (!q->call.running)
        return;
    pthread_cancel(q->call.thread);
    pthread_join(q->call.thread, NULL);
    q->call.running = false;
}

/* ---- Farewell -------------------------------------------------------------------------------- */

static void queues_free(struct verbs_link *link)
{
    for (unsigned i = 0; i <= VERBS_QUEUES_MAX; i++) {
        struct verbs_queue *q = i ? &link->bulk[i - 1] : &link->urgent;
        if (!q->id)
            continue;
        connect_stop(q);
        if (q->id->qp)
            rdma_destroy_qp(q->id);
        rdma_destroy_id(q->id);
        q->id = NULL;
        q->state = VERBS_IDLE;
    }
}

static void *retire_body(void *arg)
{
    struct verbs_link *link = arg;
    queues_free(link);
    __atomic_store_n(&link->retired, true, __ATOMIC_RELEASE);
    verbs_wake(link->fabric);
    return NULL;
}

/* What the queue pairs may use stays until they are gone. */
static void keep_memory(struct verbs_link *link)
{
    struct verbs_conn *conn = link->conn;
    if (!conn)
        return;
    link->conn = NULL;
    if ((link->memory = conn->memory))
        link->memory->uses++;
    if ((link->domain = conn->domain))
        link->domain->uses++;
}

void verbs_link_free(struct verbs_link *link)
{
    if (!link)
        return;
    struct verbs_fabric *f = link->fabric;
    keep_memory(link);
    if (f->iwarp && !start(&link->farewell, retire_body, link)) {
        link->next = f->retiring;
        f->retiring = link;
        return;
    }
    queues_free(link);
    verbs_link_end(link);
}

void verbs_retired_end(struct verbs_fabric *f, bool wait)
{
    for (struct verbs_link **at = &f->retiring; *at;) {
        struct verbs_link *link = *at;
        if (!wait && !__atomic_load_n(&link->retired, __ATOMIC_ACQUIRE)) {
            at = &link->next;
            continue;
        }
        pthread_join(link->farewell, NULL);
        *at = link->next;
        verbs_link_end(link);
    }
}
