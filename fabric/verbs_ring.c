#include "fabric/verbs_ring.h"

uint64_t verbs_slices_pinned(uint64_t address, uint64_t length, uint64_t step)
{
    const uint64_t count = verbs_slice_count(length, step);
    uint64_t pages = 0;
    for (uint64_t i = 0; i < count; i++) {
        const struct tw_range slice = verbs_slice_at(length, step, i);
        const uint64_t first = (address + slice.start) / TW_PAGE_SIZE;
        const uint64_t last = (address + slice.start + slice.length - 1) / TW_PAGE_SIZE;
        pages += last - first + 1;
    }
    return pages * TW_PAGE_SIZE;
}
