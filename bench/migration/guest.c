#include "bench/migration/guest.h"

#include <string.h>

const struct bench_guest bench_guests[] = {
    {.name = "sparse",
     .what = "one word in each of 16384 pages, as fast as it can",
     .writes = true,
     .command_line = "mode=sparse pages=16384 fill=1",
     .ready_ms = 15000,
     .warm_up_ms = 1500},
    {.name = "dense",
     .what = "every word of 8192 pages, as fast as it can",
     .writes = true,
     .command_line = "mode=dense pages=8192",
     .ready_ms = 15000,
     .warm_up_ms = 1500},
    {.name = "idle",
     .what = "16384 pages of data that nobody writes",
     .command_line = "mode=idle pages=16384 fill=1",
     .ready_ms = 15000,
     .warm_up_ms = 500},
    {.name = "redis",
     .what = "Linux with a Redis server and its load",
     .linux_guest = true,
     .writes = true,
     .command_line = "console=ttyS0 quiet",
     .ready_ms = 60000,
     .warm_up_ms = 4000},
};
const size_t bench_guest_count = sizeof bench_guests / sizeof *bench_guests;

const struct bench_guest *bench_guest_find(const char *name)
{
    for (size_t i = 0; i < bench_guest_count; i++)
        if (strcmp(bench_guests[i].name, name) == 0)
            return &bench_guests[i];
    return NULL;
}

const char *bench_guest_kernel(const struct bench_guest *guest, const struct bench_files *files)
{
    return guest->linux_guest ? files->vmlinuz : files->sparse_elf;
}

const char *bench_guest_initrd(const struct bench_guest *guest, const struct bench_files *files)
{
    return guest->linux_guest ? files->redis_cpio : "";
}
