/* Why an epoch of line states needs a barrier in the program's threads, and where: a store whose
 * announcement is still in the store buffer when the line is taken away. The program plays the
 * buffer (subjects/buffered.c), this test the barrier: the linker leads membarrier(2) here. */
#include "hosts/instrumented/test_subject.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE (64u + 7u)

static uint8_t dirty[SUBJECT_LINES];
static struct subject s;
static bool buffering; /* the program's announcement waits for a barrier */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

static void empty_the_buffer(void)
{
    buffering = false;
    subject_poke(&s, 1, 1);
    subject_await(&s, 2, 2);
}

long __wrap_syscall(long number, ...)
{
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (unsigned i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_membarrier && buffering)
        empty_the_buffer();
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Closes the epoch between the program's look at the line's state and its store; returns whether
 * the store is told of afterwards. */
static bool is_told(struct tw_instrumented_mutations mutations)
{
    const struct tw_instrumented_config owned = {.mode = TW_INST_OWNED,
                                                 .cache = {.cores = 2, .last = {65536, 8}}};
    subject_open(&s, TEST_SUBJECTS "buffered-gcc", &owned);
    tw_instrumented_mutate(s.program, mutations);
    subject_tell(&s, 'a');
    subject_await(&s, 2, 1); /* looked, not announced */
    buffering = true;
    subject_collect(&s, dirty);
    cr_expect(dirty[LINE], "it was made writable in this epoch");
    cr_expect_eq(subject_peek(&s, LINE), 4713, "what a reader of this epoch gets");
    if (buffering)
        empty_the_buffer(); /* by itself, too late */
    subject_poke(&s, 1, 2);
    subject_await(&s, 2, 3);
    subject_wait(&s);
    cr_expect_eq(subject_peek(&s, LINE), 4714);
    subject_collect(&s, dirty);
    const bool told = dirty[LINE];
    subject_close(&s);
    return told;
}

Test(barrier, a_store_whose_announcement_was_not_visible_is_in_the_next_epoch)
{
    cr_expect(is_told((struct tw_instrumented_mutations){0}));
}

/* The mutation: without the barrier the store is lost, so the test above can fail. */
Test(barrier, without_it_the_store_is_lost)
{
    cr_expect_not(is_told((struct tw_instrumented_mutations){.skip_barrier = true}));
}
