/* Which instructions of an x86 guest may change where a virtual address leads.
 *
 * A mapping that a processor has used stays as it is until that processor executes one of these: a
 * move to a control register, INVLPG and its kin, a return or jump that may switch tasks or modes,
 * an access to an I/O port (which may rearrange the machine's memory), and some rarer ones. So a
 * translation that was learnt before may be used again until then. When in doubt an instruction
 * counts as one of them: that costs time, never truth.
 *
 * Source: Intel SDM volume 3, "Invalidation of TLBs and Paging-Structure Caches". */
#ifndef TOWLINE_HOSTS_QEMU_REMAP_H
#define TOWLINE_HOSTS_QEMU_REMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_INSN_MAX 15u /* bytes of an x86 instruction */

/* `bytes` are those of one whole instruction. */
bool tw_insn_may_remap(const uint8_t *bytes, size_t size);

#endif
