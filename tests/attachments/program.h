/* What the test tells the program, and how. */
#ifndef TOWLINE_TESTS_ATTACHMENTS_PROGRAM_H
#define TOWLINE_TESTS_ATTACHMENTS_PROGRAM_H

#include "tests/attachments/store.h"

enum program_verb {
    PROGRAM_STORE,
    PROGRAM_STORM, /* every thread stores at random */
    PROGRAM_CALM,  /* until this */
};

struct program_order {
    uint32_t verb; /* enum program_verb */
    uint32_t reserved;
    struct contract_store store;
};

#endif
