/* What tests of the real program share: it, and a controller with canned answers. For suites with
 * .init = tow_setup, .fini = tow_teardown; Criterion runs each test in a process of its own. */
#ifndef TOWLINE_CLI_TEST_TOW_H
#define TOWLINE_CLI_TEST_TOW_H

#include "cli/fake_controller.h"
#include "cli/run.h"

#include <jansson.h>

extern struct fake_controller fake;
extern struct run run; /* the last one */

void tow_setup(void);
void tow_teardown(void);

/* Whether the text stands in the output, or in the error output, of the last run. */
bool said(const char *text);
bool complained(const char *text);
/* The last output, which has to be JSON; the caller releases it. */
json_t *json_output(void);

#endif
