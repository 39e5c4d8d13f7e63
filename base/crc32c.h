/* CRC-32C (Castagnoli), as in iSCSI and NVMe. Uses the processor's instruction where there is one.
 * Start with crc = 0; feed pieces by passing the previous result. */
#ifndef TOWLINE_BASE_CRC32C_H
#define TOWLINE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t tw_crc32c(uint32_t crc, const void *data, size_t length);

#endif
