#include "cli/test_tow.h"

#include <criterion/criterion.h>
#include <string.h>

struct fake_controller fake;
struct run run;

void tow_setup(void)
{
    fake_controller_open(&fake);
}

void tow_teardown(void)
{
    fake_controller_close(&fake);
}

bool said(const char *text)
{
    return strstr(run.out_text, text) != NULL;
}

bool complained(const char *text)
{
    return strstr(run.err_text, text) != NULL;
}

json_t *json_output(void)
{
    json_error_t error;
    json_t *root = json_loads(run.out_text, 0, &error);
    cr_assert_not_null(root, "%s in %s", error.text, run.out_text);
    return root;
}
