/* The ceiling for the cache model with its device: what a plain loop can do that is good for one
 * thing only. Two levels of fixed size (32 KiB of 8 ways, 8 MiB of 16 ways), write-back,
 * round-robin replacement, scalar search, one core. It counts write-backs and does nothing with
 * them: no third level, no inclusion, no ownership, no messages, no snoop filter, no dirty lines
 * kept. */
#ifndef TOWLINE_BENCH_DEVICE_CEILING_H
#define TOWLINE_BENCH_DEVICE_CEILING_H

#include <stddef.h>
#include <stdint.h>

struct ceiling;

struct ceiling *ceiling_open(void);
void ceiling_run(struct ceiling *c, const uint64_t *events, size_t count);
uint64_t ceiling_write_backs(const struct ceiling *c);
void ceiling_close(struct ceiling *c);

#endif
