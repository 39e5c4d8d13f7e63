/* Prints a state machine of the migration service as a mermaid diagram: what docs/migration.md
 * shows. */
#include "services/migration/mirror.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const struct tw_machine_table *const tables[] = {&tw_source_table, &tw_destination_table,
                                                            &tw_mirror_table};
    for (unsigned i = 0; argc == 2 && i < sizeof tables / sizeof *tables; i++) {
        if (strcmp(argv[1], tables[i]->name) == 0) {
            tw_machine_mermaid(tables[i], stdout);
            return 0;
        }
    }
    fprintf(stderr, "usage: towline-machines source|destination|mirror\n");
    return 2;
}
