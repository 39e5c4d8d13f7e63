/* The little of a PC that the small guest uses: serial port, timer, interrupts, time stamps. */
#ifndef TOWLINE_GUESTS_SPARSE_MACHINE_H
#define TOWLINE_GUESTS_SPARSE_MACHINE_H

#include <stdint.h>

/* The timer counts 16 bits of its clock of 1.19 MHz. */
#define MACHINE_TIMER_HZ_MIN 19u
#define MACHINE_TIMER_HZ_MAX 1000u

/* Sets up the serial port, the interrupt table and a timer of so many interrupts a second. */
void machine_init(uint32_t timer_hz);

/* Measures the time stamp counter against the timer: ticks in a millisecond. Takes 30 ms. */
uint32_t machine_tsc_khz(void);

/* Waits for the next timer interrupt without using the CPU. */
static inline void machine_wait(void)
{
    __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
}

static inline uint64_t machine_tsc(void)
{
    uint64_t tsc;
    __asm__ volatile("rdtsc" : "=A"(tsc));
    return tsc;
}

/* value / divisor; the compiler would call a library for it that a 32-bit guest may not have. */
uint64_t machine_divide(uint64_t value, uint32_t divisor);

void machine_print(const char *text);
void machine_print_number(const char *name, uint64_t value);

#endif
