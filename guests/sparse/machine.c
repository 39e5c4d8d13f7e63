#include "guests/sparse/machine.h"

#define SERIAL 0x3f8u
#define PIT_HZ 1193182u

extern const char timer_interrupt[], fault_interrupt[];
void guest_fault(void);

struct gate {
    uint16_t low, selector, type, high;
} __attribute__((packed));

static struct gate idt[33];

static void port_write(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t port_read(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void gate_set(unsigned vector, const char *handler)
{
    uint32_t address = (uint32_t)handler;
    idt[vector] = (struct gate){(uint16_t)address, 8, 0x8e00, (uint16_t)(address >> 16)};
}

static void interrupts_init(uint32_t timer_hz)
{
    for (unsigned i = 0; i < 32; i++)
        gate_set(i, fault_interrupt);
    gate_set(32, timer_interrupt);
    struct {
        uint16_t size;
        uint32_t address;
    } __attribute__((packed)) pointer = {sizeof idt - 1, (uint32_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));

    /* Interrupt controllers: vectors from 32, only the timer's line open. */
    static const struct {
        uint8_t port, value;
    } setup[] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 32}, {0xa1, 40},   {0x21, 4},
                 {0xa1, 2},    {0x21, 1},    {0xa1, 1},  {0x21, 0xfe}, {0xa1, 0xff}};
    for (unsigned i = 0; i < sizeof setup / sizeof setup[0]; i++)
        port_write(setup[i].port, setup[i].value);

    uint32_t count = PIT_HZ / timer_hz;
    port_write(0x43, 0x34);
    port_write(0x40, (uint8_t)count);
    port_write(0x40, (uint8_t)(count >> 8));
}

void machine_init(uint32_t timer_hz)
{
    port_write(SERIAL + 1, 0); /* no interrupts */
    port_write(SERIAL + 3, 3); /* 8 bits */
    interrupts_init(timer_hz);
}

/* Ticks of the time stamp counter in a millisecond, by 10 ms of the timer's second counter. That
 * the CPU is taken away meanwhile can only make it more. */
static uint32_t measure_tsc_khz(void)
{
    uint64_t start = machine_tsc();
    uint32_t passed;
    port_write(0x61, (uint8_t)((port_read(0x61) & ~2u) | 1)); /* counter on, speaker off */
    port_write(0x43, 0xb0);                                   /* counts down once */
    port_write(0x42, 0xff);
    port_write(0x42, 0xff);
    do {
        port_write(0x43, 0x80);
        uint32_t low = port_read(0x42), high = port_read(0x42);
        passed = 0xffff - (high << 8 | low);
    } while (passed < PIT_HZ / 100);
    return (uint32_t)machine_divide((machine_tsc() - start) * (PIT_HZ / 1000), passed);
}

uint32_t machine_tsc_khz(void)
{
    uint32_t least = UINT32_MAX;
    for (unsigned i = 0; i < 3; i++) {
        uint32_t khz = measure_tsc_khz();
        if (khz < least)
            least = khz;
    }
    return least;
}

uint64_t machine_divide(uint64_t value, uint32_t divisor)
{
    uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
    uint32_t quotient = high / divisor, rest = high % divisor;
    __asm__("divl %2" : "+a"(low), "+d"(rest) : "r"(divisor));
    return (uint64_t)quotient << 32 | low;
}

static void print_char(char c)
{
    while (!(port_read(SERIAL + 5) & 0x20))
        ;
    port_write(SERIAL, (uint8_t)c);
}

void machine_print(const char *text)
{
    while (*text)
        print_char(*text++);
}

void machine_print_number(const char *name, uint64_t value)
{
    char digits[21];
    unsigned at = sizeof digits - 1;
    digits[at] = 0;
    do {
        uint64_t tenth = machine_divide(value, 10);
        digits[--at] = (char)('0' + (uint32_t)(value - tenth * 10));
        value = tenth;
    } while (value);
    machine_print(name);
    machine_print(digits + at);
}

void guest_fault(void)
{
    machine_print("FAULT: the guest is damaged\n");
}
