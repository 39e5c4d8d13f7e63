#include "rpc/tls_shake.h"

#include "rpc/transport.h"

#include "base/clock.h"
#include "base/log.h"

#include <nng/nng.h>
#include <string.h>

/* In the order of their deadlines, which is that of their beginnings. The lock is never held while
 * nng is called, and nng may hold a connection's lock when it is taken. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t work; /* the list has become another one */
    pthread_cond_t left; /* `closing` of one has ended */
    struct tw_rpc_shake *first, *last;
    unsigned count;
    bool runs;
} shakes = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void unlist(struct tw_rpc_shake *shake)
{
    if (!shake->listed)
        return;
    shake->listed = false;
    shakes.count--;
    if (shake->previous)
        shake->previous->next = shake->next;
    else
        shakes.first = shake->next;
    if (shake->next)
        shake->next->previous = shake->previous;
    else
        shakes.last = shake->previous;
}

/* Has nng take one more step with the connection, in which the engine gives up: nng then ends the
 * negotiation of the pipe with the engine's error. Closing the stream would end it with ECLOSED,
 * which nng's listener takes for its own end. What an engine is given as its stream is, in every
 * nng 1.5, an nng_stream: the only handle to a connection that has not come up yet. */
static void fail_now(struct tw_rpc_shake *shake, nng_aio *aio)
{
    static char byte;
    nng_iov iov = {.iov_buf = &byte, .iov_len = 1};
    atomic_store(&shake->expired, true);
    nng_aio_set_iov(aio, 1, &iov);
    nng_stream_send(shake->stream, aio);
    nng_aio_wait(aio);
}

static void *shakes_main(void *arg)
{
    nng_aio *aio = arg;
    pthread_mutex_lock(&shakes.lock);
    for (;;) {
        struct tw_rpc_shake *shake = shakes.first;
        if (!shake || tw_now(&tw_monotonic) < shake->deadline_ns) {
            tw_cond_wait_until(&shakes.work, &shakes.lock, shake ? shake->deadline_ns : TW_NEVER);
            continue;
        }
        unlist(shake);
        shake->closing = true;
        pthread_mutex_unlock(&shakes.lock);
        fail_now(shake, aio);
        pthread_mutex_lock(&shakes.lock);
        shake->closing = false;
        pthread_cond_broadcast(&shakes.left);
    }
    return NULL;
}

static void shakes_start(void)
{
    pthread_t thread;
    nng_aio *aio;
    if (strncmp(nng_version(), "1.5.", 4) != 0) {
        tw_log(TW_LOG_ERROR, "rpc.tls", "TLS is not known to work with this nng", "version=%s",
               nng_version());
        return;
    }
    tw_cond_init(&shakes.work);
    tw_cond_init(&shakes.left);
    if (nng_aio_alloc(&aio, NULL, NULL) != 0)
        return;
    if (tw_thread_start(&thread, "tls-handshakes", shakes_main, aio) != 0) {
        nng_aio_free(aio);
        return;
    }
    pthread_detach(thread);
    shakes.runs = true;
}

bool tw_rpc_shake_begin(struct tw_rpc_shake *shake, void *stream)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, shakes_start);
    pthread_mutex_lock(&shakes.lock);
    bool taken = shakes.runs && shakes.count < 2 * TW_RPC_HANDSHAKES_MAX;
    if (taken) {
        shake->stream = stream;
        shake->deadline_ns = tw_after(tw_now(&tw_monotonic), TW_RPC_HANDSHAKE_MS * TW_MS);
        shake->listed = true;
        shake->previous = shakes.last;
        if (shakes.last)
            shakes.last->next = shake;
        else
            shakes.first = shake;
        shakes.last = shake;
        if (++shakes.count > TW_RPC_HANDSHAKES_MAX)
            shakes.first->deadline_ns = 0;
        pthread_cond_signal(&shakes.work);
    }
    pthread_mutex_unlock(&shakes.lock);
    return taken;
}

void tw_rpc_shake_end(struct tw_rpc_shake *shake)
{
    pthread_mutex_lock(&shakes.lock);
    unlist(shake);
    pthread_mutex_unlock(&shakes.lock);
}

void tw_rpc_shake_leave(struct tw_rpc_shake *shake)
{
    pthread_mutex_lock(&shakes.lock);
    unlist(shake);
    while (shake->closing)
        pthread_cond_wait(&shakes.left, &shakes.lock);
    pthread_mutex_unlock(&shakes.lock);
}
