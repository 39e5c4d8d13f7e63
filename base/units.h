/* Sizes, rates and durations as people write them. */
#ifndef TOWLINE_BASE_UNITS_H
#define TOWLINE_BASE_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "256MiB", "64K", "1.5G", "4096": binary units, case-blind, optional "iB", "B" and, for rates,
 * "/s". False for anything else, for a negative value, and for what does not fit. */
bool tw_size_parse(const char *text, uint64_t *bytes);

/* "300ms", "2s", "1.5m", "250us"; a bare number is refused. Result in nanoseconds. */
bool tw_duration_parse(const char *text, uint64_t *ns);

/* "1.5 MiB", "912 B": at most 16 bytes with the final zero. Returns `out`. */
#define TW_SIZE_TEXT 24
const char *tw_size_format(uint64_t bytes, char out[TW_SIZE_TEXT]);

/* "1.25 s", "3.4 ms", "812 us". Returns `out`. */
const char *tw_duration_format(uint64_t ns, char out[TW_SIZE_TEXT]);

#endif
