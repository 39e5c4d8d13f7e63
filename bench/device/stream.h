/* Streams of accesses as programs make them. An event is (line number << 1) | is-a-store, as on
 * the link; three in ten are stores. */
#ifndef TOWLINE_BENCH_DEVICE_STREAM_H
#define TOWLINE_BENCH_DEVICE_STREAM_H

#include <stddef.h>
#include <stdint.h>

/* Word after word through the memory, and again from the front: eight accesses to each line. */
void stream_sequential(uint64_t *events, size_t count, uint64_t lines);
/* Uniform over all lines. */
void stream_random(uint64_t *events, size_t count, uint64_t lines);
/* Zipf with exponent 0.99 over all lines, the popular ones spread over the memory. `lines` is a
 * power of two. */
void stream_zipf(uint64_t *events, size_t count, uint64_t lines);

#endif
