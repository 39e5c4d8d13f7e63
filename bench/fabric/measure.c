#include "bench/fabric/bench.h"

#include <stdlib.h>

double bench_now_s(void)
{
    return (double)tw_now(&tw_monotonic) * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct latency latency_of(double *us, size_t count)
{
    qsort(us, count, sizeof *us, by_value);
    return (struct latency){us[count / 2], us[count * 99 / 100]};
}
