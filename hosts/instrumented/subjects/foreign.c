/* Compiled without instrumentation. */
#include <stdint.h>
#include <string.h>

void foreign_store(uint8_t *at);

void foreign_store(uint8_t *at)
{
    static const uint8_t bytes[200] = {1};
    volatile size_t size = sizeof bytes; /* so that it is a call */
    *(volatile uint8_t *)at = 1;
    memcpy(at + 1024, bytes, size);
}
