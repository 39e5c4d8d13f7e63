#include "bench/fabric/perftest.h"

#include <criterion/criterion.h>
#include <math.h>

static const char bandwidth[] =
    " local address: LID 0000 QPN 0x0012 PSN 0x4a1f\n"
    "---------------------------------------------------------------------------------------\n"
    " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n"
    " 131072     300              41.20              39.75              0.000318\n"
    "---------------------------------------------------------------------------------------\n";
static const char latency[] =
    " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]\n"
    " 64      500          101.25         1400.30      140.50               150.75\n";

Test(perftest, columns_are_found)
{
    cr_assert_float_eq(bench_perftest_column(bandwidth, 131072, 300, 3), 39.75, 1e-9);
    cr_assert_float_eq(bench_perftest_column(latency, 64, 500, 4), 140.5, 1e-9);
}

Test(perftest, other_output_is_no_figure)
{
    cr_assert(isnan(bench_perftest_column(bandwidth, 4096, 300, 3)));
    cr_assert(isnan(bench_perftest_column(bandwidth, 131072, 200, 3)));
    cr_assert(isnan(bench_perftest_column(latency, 64, 500, 9)));
    cr_assert(isnan(bench_perftest_column("Couldn't listen\n", 64, 500, 4)));
    cr_assert(isnan(bench_perftest_column("", 64, 500, 4)));
}
