#include "bench/device/stream.h"

#include "base/random.h"

#include <math.h>
#include <stdbool.h>

#define ZIPF_EXPONENT 0.99

static bool is_store(uint64_t number)
{
    return number % 10 < 3;
}

void stream_sequential(uint64_t *events, size_t count, uint64_t lines)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t line = i / 8 % lines;
        events[i] = line << 1 | is_store(line);
    }
}

void stream_random(uint64_t *events, size_t count, uint64_t lines)
{
    struct tw_random r = {1};
    for (size_t i = 0; i < count; i++)
        events[i] = tw_random_below(&r, lines) << 1 | is_store(tw_random_next(&r));
}

/* The inverse of the zipf distribution's sum, approximated as by Gray et al. ("Quickly generating
 * billion-record synthetic databases", SIGMOD 1994). */
void stream_zipf(uint64_t *events, size_t count, uint64_t lines)
{
    struct tw_random r = {2};
    const double n = (double)lines;
    const double second = 1 + pow(0.5, ZIPF_EXPONENT);
    double sum = 0;
    for (uint64_t i = 1; i <= lines; i++)
        sum += pow((double)i, -ZIPF_EXPONENT);
    const double eta = (1 - pow(2 / n, 1 - ZIPF_EXPONENT)) / (1 - second / sum);
    for (size_t i = 0; i < count; i++) {
        double u = (double)(tw_random_next(&r) >> 11) * 0x1p-53;
        uint64_t rank = 0;
        if (u * sum >= second)
            rank = (uint64_t)(n * pow(eta * u - eta + 1, 1 / (1 - ZIPF_EXPONENT)));
        else if (u * sum >= 1)
            rank = 1;
        rank = rank < lines ? rank : lines - 1;
        uint64_t line = rank * UINT64_C(0x9e3779b97f4a7c15) % lines; /* odd: a permutation */
        events[i] = line << 1 | is_store(tw_random_next(&r));
    }
}
