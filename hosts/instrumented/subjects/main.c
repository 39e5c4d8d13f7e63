#include "subject.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

uint8_t *region;

int subject_next(void)
{
    unsigned char byte;
    return read(0, &byte, 1) == 1 ? byte : -1;
}

void subject_answer(void)
{
    if (write(1, ".", 1) != 1)
        _exit(3);
}

int subject_main(void (*const *scenarios)(void), size_t count)
{
    char text[64];
    region = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        return 2;
    for (size_t i = 0; i < REGION_BYTES; i++)
        region[i] = 0xa5;
    const int length = snprintf(text, sizeof text, "%016lx", (unsigned long)region);
    if (write(1, text, (size_t)length) != length)
        return 3;
    for (int byte; (byte = subject_next()) >= 0;) {
        const size_t index = (size_t)byte - 'a';
        if (index >= count)
            return 4;
        scenarios[index]();
        subject_answer();
    }
    return 0;
}
