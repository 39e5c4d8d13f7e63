#include "fpga-model/lazy.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From this size on the kernel's zero pages are cheaper than the heap's memset. */
#define LAZY_MAP_MIN ((size_t)1 << 20) /* bytes */

void *tw_lazy_alloc(size_t bytes)
{
    if (bytes < LAZY_MAP_MIN)
        return calloc(1, bytes ? bytes : 1);
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
}

void tw_lazy_free(void *table, size_t bytes)
{
    if (!table)
        return;
    if (bytes < LAZY_MAP_MIN)
        free(table);
    else
        munmap(table, bytes);
}
