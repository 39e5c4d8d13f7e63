/* The program that is tracked: one source, compiled as usual and by towline-cc. It prints the
 * address of its region, then carries out what it reads on standard input, and answers each order
 * with a byte. Between two orders every thread sleeps in read(2). */
#include "tests/attachments/program.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t *region;
static atomic_int storming;
static int kernel_pipe[2];
static int order_pipe[CONTRACT_THREADS][2], answer_pipe[CONTRACT_THREADS][2];

static void must(int ok)
{
    if (!ok)
        _exit(3);
}

static void copy_in(const struct contract_store *s)
{
    uint8_t bytes[256];
    for (uint32_t i = 0; i < s->size; i++)
        bytes[i] = (uint8_t)(s->value + i);
    if (s->kind == CONTRACT_COPY) {
        memcpy(region + s->offset, bytes, s->size);
        return;
    }
    must(write(kernel_pipe[1], bytes, s->size) == (ssize_t)s->size);
    must(read(kernel_pipe[0], region + s->offset, s->size) == (ssize_t)s->size);
}

/* Its end ends what it announced, in the instrumented program. */
__attribute__((noinline)) static void carry_out(const struct contract_store *s)
{
    if (s->kind == CONTRACT_SET)
        memset(region + s->offset, (int)(s->value & 0xff), s->size);
    else if (s->kind == CONTRACT_COPY || s->kind == CONTRACT_KERNEL)
        copy_in(s);
    else
        must(contract_perform(region, s));
}

__attribute__((noinline)) static void storm(uint32_t seed)
{
    uint32_t state = seed;
    while (atomic_load_explicit(&storming, memory_order_relaxed))
        for (unsigned i = 0; i < 64; i++)
            contract_storm(region, &state);
}

static void *serve(void *number)
{
    const uintptr_t me = (uintptr_t)number;
    struct program_order order;
    while (read(order_pipe[me][0], &order, sizeof order) == sizeof order) {
        if (order.verb == PROGRAM_STORM)
            storm((uint32_t)me * 7919 + 1);
        else
            carry_out(&order.store);
        must(write(answer_pipe[me][1], ".", 1) == 1);
    }
    return NULL;
}

static void tell(unsigned thread, const struct program_order *order)
{
    must(write(order_pipe[thread][1], order, sizeof *order) == sizeof *order);
}

static void await(unsigned thread)
{
    char answer;
    must(read(answer_pipe[thread][0], &answer, 1) == 1);
}

static void obey(const struct program_order *order)
{
    if (order->verb == PROGRAM_STORE) {
        tell(order->store.thread % CONTRACT_THREADS, order);
        await(order->store.thread % CONTRACT_THREADS);
        return;
    }
    atomic_store(&storming, order->verb == PROGRAM_STORM);
    for (unsigned i = 0; i < CONTRACT_THREADS; i++) {
        if (order->verb == PROGRAM_STORM)
            tell(i, order);
        else
            await(i);
    }
}

int main(void)
{
    struct program_order order;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char text[17];
    region = mmap(NULL, CONTRACT_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    must(region != MAP_FAILED && pipe(kernel_pipe) == 0);
    memset(region, CONTRACT_FILL, CONTRACT_BYTES);
    for (uintptr_t i = 0; i < CONTRACT_THREADS; i++) {
        pthread_t thread;
        must(pipe(order_pipe[i]) == 0 && pipe(answer_pipe[i]) == 0);
        must(pthread_create(&thread, NULL, serve, (void *)i) == 0);
    }
    snprintf(text, sizeof text, "%016lx", (unsigned long)region);
    must(write(1, text, 16) == 16);
    while (read(0, &order, sizeof order) == sizeof order) {
        obey(&order);
        must(write(1, ".", 1) == 1);
    }
    return 0;
}
