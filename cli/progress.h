/* How a migration is shown: while it runs, a block that is drawn again in place (terminal) or a
 * line now and then (anything else); at its end the table of rounds and what it came to. */
#ifndef TOWLINE_CLI_PROGRESS_H
#define TOWLINE_CLI_PROGRESS_H

#include "towline/v1/migration.pb-c.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct tow_progress {
    FILE *out;
    bool terminal;
    bool color;
    unsigned columns;     /* width of the terminal */
    unsigned lines_drawn; /* of the block that stands on the terminal now */
    uint64_t next_line_ns;
    int last_state;
    uint64_t last_eta_ms;
    bool eta_up; /* the estimate has grown since the last look */
};

void tow_progress_init(struct tow_progress *progress, FILE *out, bool color);

/* Shows `migration` as of now. `away_ms`: the controller has not answered for so long; 0 = it
 * does. */
void tow_progress_show(struct tow_progress *progress, const Towline__V1__Migration *migration,
                       uint64_t away_ms);
/* Takes the block off the terminal. */
void tow_progress_clear(struct tow_progress *progress);

/* No move leads out of the state. */
bool tow_migration_ended(const Towline__V1__Migration *migration);

/* Rounds, figures, outcome. */
void tow_migration_print(const Towline__V1__Migration *migration, bool color, FILE *out);

#endif
