/* Every way to store that the attachment claims to see. Each scenario keeps to pages of its own:
 * page(n) is the n-th. */
#include "subject.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t *page(unsigned n)
{
    return region + n * 4096u;
}

static void scalars(void) /* a */
{
    uint8_t *p = page(1);
    *(uint8_t *)(p + 1) = 1;
    *(uint16_t *)(p + 64 * 2) = 2;
    *(uint32_t *)(p + 64 * 4) = 3;
    *(uint64_t *)(p + 64 * 6) = 4;
    *(float *)(p + 64 * 8) = 1.5f;
    *(double *)(p + 64 * 10) = 2.5;
    *(void **)(p + 64 * 12) = p;
    *(volatile int *)(p + 64 * 14) = 5;
    *(int *)(p + 64 * 16) += 6;
    (*(long *)(p + 64 * 18))++;
    *(unsigned __int128 *)(p + 64 * 20) = 7;
}

struct __attribute__((packed)) odd {
    char c;
    uint64_t wide;
    uint16_t narrow;
};

struct bits {
    unsigned a : 3;
    unsigned b : 17;
};

static void odd_places(void) /* b: across lines and pages, bit-fields */
{
    ((struct odd *)(page(2) + 60))->wide = 1;
    ((struct odd *)(page(2) + 4092))->wide = 2;
    ((struct odd *)(page(2) + 1023 - 9))->narrow = 3;
    ((struct bits *)(page(2) + 512))->b = 99;
}

struct big {
    char bytes[200];
};

static void structures(void) /* c: assigned, copied, cleared; constant sizes too */
{
    static struct big one;
    for (size_t i = 0; i < sizeof one.bytes; i++)
        one.bytes[i] = (char)i;
    *(struct big *)page(5) = one;
    memcpy(page(5) + 1024, one.bytes, 40);
    memcpy(page(5) + 1400, one.bytes, 8);
    __builtin_memcpy(page(5) + 1536, one.bytes, 48);
    memset(page(5) + 2048, 0, 100);
    __builtin_memset(page(5) + 2560, 0, 96);
    memcpy(page(5) + 3000, one.bytes, 70);
    memmove(page(5) + 3064, page(5) + 3000, 70);
    memmove(page(5) + 3500, one.bytes, 130);
}

static void strings(void) /* d */
{
    char *p = (char *)page(6);
    strcpy(p, "a text");
    strncpy(p + 256, "another", 100);
    p[512] = 0;
    strcat(p + 512, "appended to nothing, but for longer than one line of sixty-four");
    stpcpy(p + 1024, "pointed");
    snprintf(p + 1280, 200, "%s %d", "formatted", 4711);
    sprintf(p + 1536, "%080d", 5);
    bzero(p + 2048, 65);
    p[3071] = 0;
    strncat(p + 3071, "ends", 2);
}

static void loops(void) /* e: what a compiler makes vectors of */
{
    int *p = (int *)page(8);
    for (int i = 0; i < 500; i++)
        p[i] = i;
    double *d = (double *)page(10);
    for (int i = 0; i < 77; i++)
        d[i] = d[i] + i;
}

#define ATOMICS(type, at)                                                                          \
    do {                                                                                           \
        _Atomic type *p = (_Atomic type *)(page(12) + (at));                                       \
        type expected = 5;                                                                         \
        atomic_store(p, 1);                                                                        \
        atomic_fetch_add(p + 64, 2);                                                               \
        atomic_exchange(p + 128, 3);                                                               \
        atomic_fetch_or(p + 192, 0x5a);                                                            \
        atomic_fetch_sub_explicit(p + 256, 1, memory_order_relaxed);                               \
        atomic_compare_exchange_strong(p + 320, &expected, 6); /* fails: stores nothing */         \
        if (atomic_compare_exchange_strong(p, &expected, 7))                                       \
            abort();                                                                               \
        expected = atomic_load(p + 384);                                                           \
        if (!atomic_compare_exchange_strong(p + 384, &expected, 8))                                \
            abort();                                                                               \
    } while (0)

static void atomics(void) /* f */
{
    ATOMICS(uint8_t, 0);
    ATOMICS(uint16_t, 512);
    ATOMICS(uint32_t, 2048);
    ATOMICS(uint64_t, 4096);
    atomic_thread_fence(memory_order_seq_cst);
}

static void input(void) /* g: what the kernel and stdio write */
{
    static char bytes[300];
    int ends[2], pair[2];
    memset(bytes, 'x', sizeof bytes);
    struct iovec parts[] = {{page(17) + 512, 10}, {page(17) + 1000, 100}};
    if (pipe(ends) || write(ends[1], bytes, 200) != 200 || read(ends[0], page(17), 90) != 90 ||
        readv(ends[0], parts, 2) != 110)
        abort();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || send(pair[0], bytes, 130, 0) != 130 ||
        recv(pair[1], page(17) + 2048, 130, 0) != 130)
        abort();
    close(ends[0]);
    close(ends[1]);
    close(pair[0]);
    close(pair[1]);
    FILE *file = tmpfile();
    if (file == NULL || fwrite(bytes, 1, 300, file) != 300)
        abort();
    rewind(file);
    if (fread(page(18), 1, 300, file) != 300)
        abort();
    rewind(file);
    if (fgets((char *)page(18) + 1024, 80, file) == NULL)
        abort();
    fclose(file);
}

static int descending(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

static void sorting(void) /* h */
{
    int *p = (int *)page(20);
    for (int i = 0; i < 300; i++)
        p[i] = i;
    qsort(p, 300, sizeof *p, descending);
}

static void store_all(int count, ...)
{
    va_list list;
    va_start(list, count);
    for (int i = 0; i < count; i++)
        page(22)[i * 100] = (uint8_t)va_arg(list, int);
    va_end(list);
}

static jmp_buf jump;

static void jump_back(void)
{
    page(23)[0] = 1;
    longjmp(jump, 1);
}

static void control_flow(void) /* i: varargs, setjmp */
{
    store_all(5, 1, 2, 3, 4, 5);
    if (setjmp(jump) == 0)
        jump_back();
    page(23)[128] = 2;
}

static void on_plain(int number)
{
    page(24)[number * 64 % 4096] = 1;
}

static void on_info(int number, siginfo_t *info, void *context)
{
    (void)context;
    page(25)[number * 64 % 4096] = (uint8_t)(info->si_pid == getpid());
}

static void signals(void) /* j */
{
    struct sigaction action = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO}, old;
    if (signal(SIGUSR1, on_plain) == SIG_ERR || sigaction(SIGUSR2, &action, NULL))
        abort();
    raise(SIGUSR1);
    raise(SIGUSR2);
    /* What was asked for is what is told. */
    if (sigaction(SIGUSR1, NULL, &old) || old.sa_handler != on_plain ||
        (old.sa_flags & SA_SIGINFO) || sigaction(SIGUSR2, NULL, &old) ||
        old.sa_sigaction != on_info || signal(SIGUSR1, SIG_DFL) != on_plain)
        abort();
}

static void forks(void) /* k: the child's stores are not the parent's */
{
    page(26)[0] = 1;
    const pid_t child = fork();
    if (child == 0) {
        memset(page(27), 1, 4096);
        page(28)[5] = 2;
        _exit(7);
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
        abort();
    page(26)[4095] = 1;
}

static void *write_stripe(void *number)
{
    const size_t n = (size_t)number;
    for (size_t line = n; line < 64 * 16; line += 4)
        page(30)[line * 64 + n] = (uint8_t)n;
    return NULL;
}

static void threads(void) /* l */
{
    pthread_t thread[4];
    for (size_t i = 0; i < 4; i++) {
        if (pthread_create(&thread[i], NULL, write_stripe, (void *)i))
            abort();
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}

struct pair {
    long x, y;
};

__attribute__((noinline)) static struct pair make_pair(long x)
{
    return (struct pair){x, x + 1};
}

static void returned(void) /* m: gcc does not see this one */
{
    *(struct pair *)page(48) = make_pair(3);
}

static void foreign(void) /* n: an object without instrumentation */
{
    void *library = dlopen(getenv("SUBJECT_FOREIGN"), RTLD_NOW);
    if (library == NULL)
        abort();
    void (*store)(uint8_t *) = (void (*)(uint8_t *))dlsym(library, "foreign_store");
    if (store == NULL)
        abort();
    store(page(49)); /* at 0 by hand, at 1024 by memcpy */
}

static void same_values(void) /* o: nothing changes, and all of it is stored */
{
    for (int i = 0; i < 10; i++)
        page(52)[i * 64] = 0xa5;
}

int main(void)
{
    static void (*const scenarios[])(void) = {
        scalars,      odd_places, structures, strings, loops,    atomics, input,      sorting,
        control_flow, signals,    forks,      threads, returned, foreign, same_values};
    return subject_main(scenarios, sizeof scenarios / sizeof scenarios[0]);
}
