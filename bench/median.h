/* Medians of measured values. */
#ifndef TOWLINE_BENCH_MEDIAN_H
#define TOWLINE_BENCH_MEDIAN_H

#include <stddef.h>

/* Ascending, in place; the values are numbers (none NAN). */
void bench_sort(double *values, size_t count);

/* The middle one, or the mean of the two in the middle; NAN of none. Sorts the values. */
double bench_median(double *values, size_t count);

#endif
