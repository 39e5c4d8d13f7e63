#include "base/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reversed Castagnoli */

static uint32_t table[256];

__attribute__((constructor)) static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = (c >> 1) ^ ((c & 1) ? POLYNOMIAL : 0);
        table[i] = c;
    }
}

static uint32_t crc_bytes(uint32_t crc, const uint8_t *p, size_t n)
{
    while (n--)
        crc = (crc >> 8) ^ table[(crc ^ *p++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
/* Three streams hide the instruction's latency of three cycles; their results are joined by
 * multiplying with x^(8n) modulo the polynomial, done here by running zeros through a table. */
#define STREAM 1024u /* bytes a stream and turn */

static uint32_t shift_table[4][256];

static uint32_t shift_slow(uint32_t crc)
{
    for (unsigned i = 0; i < STREAM; i++)
        crc = (crc >> 8) ^ table[crc & 0xff];
    return crc;
}

__attribute__((constructor(102))) static void fill_shift_table(void)
{
    fill_table();
    for (uint32_t k = 0; k < 4; k++)
        for (uint32_t i = 0; i < 256; i++)
            shift_table[k][i] = shift_slow(i << (8 * k));
}

static uint32_t shift(uint32_t crc)
{
    return shift_table[0][crc & 0xff] ^ shift_table[1][(crc >> 8) & 0xff] ^
           shift_table[2][(crc >> 16) & 0xff] ^ shift_table[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *p,
                                                               size_t n)
{
    uint64_t a = crc;
    uint64_t v[3];
    while (n >= 3 * STREAM) {
        uint64_t b = 0, c = 0;
        for (unsigned i = 0; i < STREAM; i += 8) {
            memcpy(&v[0], p + i, 8);
            memcpy(&v[1], p + STREAM + i, 8);
            memcpy(&v[2], p + 2 * STREAM + i, 8);
            a = __builtin_ia32_crc32di(a, v[0]);
            b = __builtin_ia32_crc32di(b, v[1]);
            c = __builtin_ia32_crc32di(c, v[2]);
        }
        a = shift(shift((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
        p += 3 * STREAM;
        n -= 3 * STREAM;
    }
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&v[0], p, 8);
        a = __builtin_ia32_crc32di(a, v[0]);
    }
    return crc_bytes((uint32_t)a, p, n);
}
#endif

uint32_t tw_crc32c(uint32_t crc, const void *data, size_t length)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_hardware(crc, data, length);
#endif
    return ~crc_bytes(crc, data, length);
}
