#include "bench/fabric/bench.h"

#include "bench/median.h"

double bench_now_s(void)
{
    return (double)tw_now(&tw_monotonic) * 1e-9;
}

struct latency latency_of(double *us, size_t count)
{
    bench_sort(us, count);
    return (struct latency){us[count / 2], us[count * 99 / 100]};
}
