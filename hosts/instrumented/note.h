/* Inside the attachment: the note that a program with the runtime has in its executable. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_NOTE_H
#define TOWLINE_HOSTS_INSTRUMENTED_NOTE_H

#include "hosts/instrumented/instrumented.h"

/* `fd`: a file that can be read anywhere; whatever it is, it is looked at within bounds. */
bool tw_inst_note_find(int fd);

#endif
