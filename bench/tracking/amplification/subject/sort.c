/* Quicksort in place of SIZE random numbers of 8 bytes. The steps look at equally many numbers, but
 * the last one goes on to the end. */
#include "bench/tracking/amplification/subject/subject.h"

#define SHORT      24u /* sorted by insertion */
#define STACK_SIZE 64u /* the longer part waits, so the depth is that of a halving */

struct part {
    uint64_t first, count;
};

static uint64_t *numbers, total, sum;
static struct part stack[STACK_SIZE];
static unsigned depth;

static void begin(uint64_t size)
{
    total = size;
    numbers = subject_alloc(size * sizeof *numbers);
    for (uint64_t i = 0; i < size; i++) {
        numbers[i] = subject_scramble(i);
        sum += numbers[i];
    }
    stack[depth++] = (struct part){0, size};
}

static void insertion(uint64_t *a, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        const uint64_t number = a[i];
        uint64_t k = i;
        for (; k > 0 && a[k - 1] > number; k--)
            a[k] = a[k - 1];
        if (k != i)
            a[k] = number;
    }
}

/* How many numbers are in the lower part: at least one, and not all (Hoare's way). */
static uint64_t partition(uint64_t *a, uint64_t count)
{
    const uint64_t pivot = a[(count - 1) / 2];
    for (uint64_t low = 0, high = count - 1;; low++, high--) {
        while (a[low] < pivot)
            low++;
        while (a[high] > pivot)
            high--;
        if (low >= high)
            return high + 1;
        const uint64_t number = a[low];
        a[low] = a[high];
        a[high] = number;
    }
}

static void step(unsigned step, unsigned steps)
{
    unsigned rounds = 1; /* over all numbers: the logarithm of their count */
    for (uint64_t n = total; n > 1; n /= 2)
        rounds++;
    const uint64_t budget = total * rounds / steps;
    uint64_t seen = 0;
    while (depth > 0 && (seen < budget || step + 1 == steps)) {
        const struct part part = stack[--depth];
        seen += part.count;
        if (part.count <= SHORT) {
            insertion(numbers + part.first, part.count);
            continue;
        }
        const uint64_t lower = partition(numbers + part.first, part.count);
        struct part a = {part.first, lower}, b = {part.first + lower, part.count - lower};
        stack[depth++] = a.count > b.count ? a : b;
        stack[depth++] = a.count > b.count ? b : a;
    }
}

static bool right(void)
{
    for (uint64_t i = 0; i < total; i++) {
        if (i > 0 && numbers[i - 1] > numbers[i])
            return false;
        sum -= numbers[i];
    }
    return sum == 0;
}

const struct subject subject_sort = {"sort", begin, step, right};
