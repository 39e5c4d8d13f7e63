/* Finds where a file is mapped in this process: the way from a host address to a RAM offset. */
#ifndef TOWLINE_HOSTS_QEMU_RAM_BASE_H
#define TOWLINE_HOSTS_QEMU_RAM_BASE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Reads `maps` (the format of /proc/PID/maps) for mappings of the file `path` (absolute, no links)
 * or of the inode. True when they cover [0, size) of it at one contiguous place: offset 0 is then
 * at *base. A file that is mapped twice has no single place: false. */
bool tw_ram_base_find(FILE *maps, const char *path, uint64_t inode, uint64_t size, uint64_t *base);

#endif
