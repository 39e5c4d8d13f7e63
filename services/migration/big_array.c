#include "services/migration/big_array.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE_PAGE (UINT64_C(2) << 20)

uint64_t *tw_big_array_open(uint64_t words, const char *what, struct tw_error *err)
{
    void *array = mmap(NULL, words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (array != MAP_FAILED) {
        /* One fault instead of 512: they come while a VM waits. Only a wish. */
        if (words * sizeof(uint64_t) >= HUGE_PAGE)
            madvise(array, words * sizeof(uint64_t), MADV_HUGEPAGE);
        return array;
    }
    tw_fail_errno(err, errno, what, "cannot map %llu words", (unsigned long long)words);
    return NULL;
}

void tw_big_array_close(uint64_t *array, uint64_t words)
{
    if (array)
        munmap(array, words * sizeof(uint64_t));
}
