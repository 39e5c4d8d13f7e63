/* The program that is tracked in the client's tests: it does what a letter on its standard input
 * says, and answers with a line. An ordinary program, without sanitizers; made
 * by towline-cc as well.
 *
 *   (start)  prints the address of its arena of 64 pages
 *   s N      stores to line N of the arena
 *   w N      stores to it what it holds
 *   l N      loads from it
 *   u        unmaps the arena's second half
 *   f        forks; the child stores to line 0 and ends
 *   x        executes itself anew
 *   c        forks a child that lives on and does what it is told instead; the parent waits for it
 *   t        two threads store to the two halves of line 100, and both to line 101
 *   W        goes on rewriting lines with what they hold, the same
 *   h        goes on storing at random, without an answer, until killed
 *   T        four threads store to lines of their own in every page, all at once
 *   d        gives its arena's memory back
 *   b        maps big pages and stores to them; answers with their address
 *   B N      stores to line N of them
 *   q        ends
 *
 * With a number as its argument it stores to so many lines of its own data and ends with 3. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARENA (64u * 4096u)

static volatile uint64_t *arena, *big;

static void store(unsigned line)
{
    arena[(line * 8) % (ARENA / 8)] += line + 1;
}

static void rewrite(unsigned line)
{
    uint64_t held = arena[(line * 8) % (ARENA / 8)];
    arena[(line * 8) % (ARENA / 8)] = held;
}

static void load(unsigned line)
{
    const uint64_t held = arena[(line * 8) % (ARENA / 8)];
    __asm__ volatile("" : : "r"(held));
}

static void run_hot(void)
{
    for (uint64_t seed = 1;;) {
        for (unsigned i = 0; i < 1000; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            store((unsigned)(seed >> 40));
        }
        usleep(1000);
    }
}

static void run_rewriting(void)
{
    for (unsigned line = 0;; line++) {
        rewrite(line % 256);
        if (line % 256 == 0)
            usleep(1000);
    }
}

static void *run_thread(void *number)
{
    const unsigned first = (unsigned)(uintptr_t)number;
    for (unsigned round = 0; round < 100; round++)
        for (unsigned page = 0; page < ARENA / 4096; page++)
            store(page * 64 + first * 8 + round % 8);
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, run_thread, (void *)i) != 0)
            abort();
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* Two of 2 MiB, if the kernel has them to give. */
static volatile uint64_t *map_big(void)
{
    const uintptr_t size = 2u << 20;
    char *at = mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        abort();
    at += (size - (uintptr_t)at % size) % size;
    madvise(at, 2 * size, MADV_HUGEPAGE);
    memset(at, 7, 2 * size);
    return (volatile uint64_t *)(void *)at;
}

static void do_fork(void)
{
    pid_t child = fork();
    if (child == 0) {
        store(0);
        _exit(0);
    }
    int status = 0;
    if (child > 0)
        waitpid(child, &status, 0);
}

/* Part of the program from its first instruction on. */
static volatile uint64_t data[512 * 1024];

static void store_own(unsigned lines)
{
    for (unsigned i = 0; i < lines && i < sizeof data / 64; i++)
        data[i * 8] = UINT64_MAX;
}

/* The answer is the child's pid. */
static void do_leave_child(void)
{
    pid_t child = fork();
    int status;
    if (child > 0) {
        waitpid(child, &status, 0);
        _exit(0);
    }
    printf("%d ", (int)getpid());
}

static void *half(void *offset)
{
    for (unsigned i = 0; i < 1000; i++) {
        arena[100 * 8 + (uintptr_t)offset]++;
        arena[101 * 8]++;
    }
    return NULL;
}

static void do_threads(void)
{
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, half, (void *)(i * 4)))
            _exit(1);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    char line[64];
    if (argc > 1) {
        store_own((unsigned)strtoul(argv[1], NULL, 10));
        return 3;
    }
    arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((const void *)arena == MAP_FAILED)
        return 1;
    setvbuf(stdin, NULL, _IONBF, 0);
    printf("%p\n", (const void *)arena);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        switch (line[0]) {
        case 's':
            store((unsigned)strtoul(line + 1, NULL, 10));
            break;
        case 'w':
            rewrite((unsigned)strtoul(line + 1, NULL, 10));
            break;
        case 'l':
            load((unsigned)strtoul(line + 1, NULL, 10));
            break;
        case 'u':
            munmap((void *)((uintptr_t)arena + ARENA / 2), ARENA / 2);
            break;
        case 'f':
            do_fork();
            break;
        case 'c':
            do_leave_child();
            break;
        case 't':
            do_threads();
            break;
        case 'x':
            execl("/proc/self/exe", argv[0], (char *)NULL);
            return 1;
        case 'h':
            run_hot();
            break;
        case 'W':
            run_rewriting();
            break;
        case 'T':
            run_threads();
            break;
        case 'd':
            madvise((void *)(uintptr_t)arena, ARENA, MADV_DONTNEED);
            break;
        case 'b':
            big = map_big();
            printf("%p\n", (const void *)(uintptr_t)big);
            fflush(stdout);
            continue;
        case 'B':
            big[strtoul(line + 1, NULL, 10) * 8] += 1;
            break;
        case 'q':
            return 0;
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
