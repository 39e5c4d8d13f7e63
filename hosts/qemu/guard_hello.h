/* The plugin's first word, and the descriptor that comes with it (guard.h). */
#ifndef TOWLINE_HOSTS_QEMU_GUARD_HELLO_H
#define TOWLINE_HOSTS_QEMU_GUARD_HELLO_H

#include "base/error.h"
#include "hosts/qemu/guard.h"

#include <stdbool.h>

/* Reads it from a socket that does not block. False = not here yet. True with TW_OK: `hello` is in
 * range for a RAM of `ram_size` bytes and *fd the caller's; else *fd is -1 and whatever descriptors
 * came are closed. */
bool tw_guard_hello_receive(int socket, uint64_t ram_size, const char *where,
                            struct tw_guard_hello *hello, int *fd, enum tw_code *code,
                            struct tw_error *err);

#endif
