/* Stores whose amplification is known; SIZE is a number of big pages. By step:
 *   0  8 bytes in each page        1  the same bytes with the same values
 *   2  8 bytes across two lines of each page        3  every byte of the first big page */
#include "bench/tracking/amplification/subject/subject.h"

#include <stdlib.h>
#include <string.h>

#define PAGE     4096u
#define BIG_PAGE (UINT64_C(2) << 20)

static uint8_t *memory;
static uint64_t bytes;

static void begin(uint64_t size)
{
    bytes = size * BIG_PAGE;
    memory = aligned_alloc(BIG_PAGE, bytes);
    if (memory == NULL)
        subject_die("no memory");
    for (uint64_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)i;
    subject_memory(memory, bytes);
}

/* Every bit turns, so every byte differs. */
static void turn(uint8_t *at, size_t count, uint8_t mask)
{
    for (size_t i = 0; i < count; i++)
        *(volatile uint8_t *)&at[i] = at[i] ^ mask;
}

static void step(unsigned step, unsigned steps)
{
    (void)steps;
    if (step == 3) {
        turn(memory, BIG_PAGE, 0xff);
        return;
    }
    for (uint64_t page = 0; page < bytes; page += PAGE)
        turn(memory + page + (step == 2 ? 60 : 128), 8, step == 1 ? 0 : 0xff);
}

static bool right(void)
{
    return memory[128] == 128 && memory[BIG_PAGE + 60] == (uint8_t)~60;
}

const struct subject subject_pattern = {"pattern", begin, step, right};
