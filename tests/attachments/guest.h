/* The guest of the contract suite: carries out single stores that it is told from outside.
 *
 * The test writes `store` and then `asked`; the guest carries it out and sets `done` to the same
 * number. While `storm` is set it stores at random. Both sides see one memory; nothing is printed
 * but "READY". */
#ifndef TOWLINE_TESTS_ATTACHMENTS_GUEST_H
#define TOWLINE_TESTS_ATTACHMENTS_GUEST_H

#include "tests/attachments/store.h"

#define TW_CONTRACT_CONTROL 0x300000u /* guest physical address of the control block */
#define TW_CONTRACT_REGION  0x301000u
#define TW_CONTRACT_MAGIC   0x600DC0DEu

struct tw_contract_control {
    uint32_t magic;    /* guest: set when the region is filled */
    uint32_t asked;    /* test */
    uint32_t done;     /* guest */
    uint32_t storm;    /* test */
    uint32_t storming; /* guest */
    uint32_t reserved;
    struct contract_store store; /* test */
};
_Static_assert(sizeof(struct tw_contract_control) == 48, "layout is known to programs outside");

#endif
