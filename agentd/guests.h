/* What the VMs here write, for whoever wants to see it: the data thread measures while somebody
 * asked within the last ten seconds (or always, if the configuration says so) and puts the figures
 * up; other threads read them without waiting for it. */
#ifndef TOWLINE_AGENTD_GUESTS_H
#define TOWLINE_AGENTD_GUESTS_H

#include "services/tracking/guest.h"

#define TW_GUESTS_SHOWN_MAX 64u

struct tw_agent;
struct tw_vm;

struct tw_guest_shown {
    char name[64]; /* of the VM */
    uint64_t pid;
    struct tw_guest_figures figures; /* no epochs: it has only just begun */
};

struct tw_guests;
struct tw_guests *tw_guests_open(bool always);  /* NULL: no memory */
void tw_guests_close(struct tw_guests *guests); /* NULL is fine */

/* Any thread: asks for ten more seconds, and copies what is there. Returns how many. */
size_t tw_guests_look(struct tw_guests *guests, struct tw_guest_shown *out, size_t max);

/* Data thread: measures; returns when it wants to be called again. */
uint64_t tw_guests_step(struct tw_agent *agent);
void tw_guests_forget(struct tw_vm *vm); /* before its process is let go */

#endif
