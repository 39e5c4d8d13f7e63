#include "fpga-model/lazy.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From this size on the kernel's zero pages are cheaper than the heap's memset. */
#define LAZY_MAP_MIN  ((size_t)1 << 20) /* bytes */
#define LAZY_HUGE_MIN ((size_t)2 << 20)
#define LAZY_HUGE_MAX ((size_t)16 << 20) /* 8 bytes for each page of 8 GiB */

void *tw_lazy_alloc(size_t bytes)
{
    if (bytes < LAZY_MAP_MIN)
        return calloc(1, bytes ? bytes : 1);
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        return NULL;
    /* Accesses go anywhere, and with small pages each is a walk of the page table. In a greater
     * table too much would come to memory with each touch. Only a wish. */
    if (bytes >= LAZY_HUGE_MIN && bytes <= LAZY_HUGE_MAX)
        madvise(table, bytes, MADV_HUGEPAGE);
    return table;
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
