#include "bench/tracking/amplification/subject/subject.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const struct subject *const subjects[] = {
    &subject_pattern, &subject_sort,  &subject_pagerank,
    &subject_labels,  &subject_btree, &subject_sqlite,
};

static const void *memory_start;
static size_t memory_bytes;

void subject_memory(const void *start, size_t bytes)
{
    memory_start = start;
    memory_bytes = bytes;
}

_Noreturn void subject_die(const char *what)
{
    fprintf(stderr, "towline-bench-subject: %s\n", what);
    exit(1);
}

void *subject_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL)
        subject_die("no memory");
    return memory;
}

/* Not by stdio, whose buffers would be changed memory, too. */
static void say(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        exit(1);
}

static bool asked(void)
{
    char byte;
    return read(STDIN_FILENO, &byte, 1) == 1;
}

int main(int argc, char **argv)
{
    const struct subject *subject = NULL;
    char line[64];
    for (size_t i = 0; argc == 4 && i < sizeof subjects / sizeof subjects[0]; i++) {
        if (strcmp(argv[1], subjects[i]->name) == 0)
            subject = subjects[i];
    }
    const uint64_t size = subject ? strtoull(argv[2], NULL, 10) : 0;
    const unsigned steps = subject ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    if (size == 0 || steps == 0)
        subject_die("expected NAME SIZE STEPS");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    subject->begin(size);
    snprintf(line, sizeof line, "ready %lx %lx\n", (unsigned long)(uintptr_t)memory_start,
             (unsigned long)memory_bytes);
    say(line);
    for (unsigned step = 0; step < steps; step++) {
        if (!asked())
            return 1;
        subject->step(step, steps);
        say("step\n");
    }
    if (!asked())
        return 1;
    return subject->right() ? 0 : 1;
}
