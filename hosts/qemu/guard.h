/* Memory under guard: a userfaultfd of QEMU's memory in the agent's hands, so that a guest can run
 * before its memory is there.
 *
 * Only a process itself can make a userfaultfd of its memory, so the plugin makes it and hands it
 * out over a socket in the run directory:
 *
 *   agent                                   plugin (a thread of its own)
 *     connects                                hello, with the userfaultfd (SCM_RIGHTS)
 *     API, REGISTER missing and minor
 *     "closed?" (a byte)                      drops every page that QEMU had mapped already
 *                                             a byte: from now on each first touch waits
 *
 * A new agent is handed the same userfaultfd, closes nothing, and has whoever waits touch again.
 * Neither side talks to anybody but the other: the agent looks that it is QEMU's process that
 * listens, the plugin that who connects has QEMU's user or root.
 *
 * The plugin keeps its own copy open: with the agent dead a vCPU waits for ever instead of reading
 * zeros. Pages are not mapped into QEMU before they are complete: the agent writes lines through a
 * mapping of its own and then lets the kernel map the page (CONTINUE, or ZEROPAGE for a hole). */
#ifndef TOWLINE_HOSTS_QEMU_GUARD_H
#define TOWLINE_HOSTS_QEMU_GUARD_H

#include <assert.h>
#include <stdint.h>

#define TW_GUARD_MAGIC UINT64_C(0x3144524147575457) /* "TWGUARD1", any spelling of it */

struct tw_guard_hello {
    uint64_t magic;
    uint64_t base;  /* address of RAM offset 0 in QEMU */
    uint64_t size;  /* bytes of RAM */
    uint32_t error; /* errno where there is no userfaultfd, else 0 */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_guard_hello) == 32, "no hidden padding");

/* The plugin's side (guard_plugin.c): makes the userfaultfd and a thread that hands it out. 0, or
 * an errno: then there is no socket. */
int tw_guard_serve(const char *socket_path, const char *ram_path, uint64_t ram_inode,
                   uint64_t ram_size);

#endif
