/* The end of a certificate, read from its file. */
#include "pki/end.h"
#include "pki/issue.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

Test(end, of_a_file)
{
    char folder[] = "/tmp/towline-end-XXXXXX", path[64], command[64];
    struct tw_error err = {0};
    int64_t end = 0, now = time(NULL);
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(tw_pki_init(folder, 20, &err), TW_OK, "%s", err.what);
    snprintf(path, sizeof path, "%s/%s", folder, TW_PKI_CA_FILE);
    cr_expect_eq(tw_pki_end(path, &end, &err), TW_OK, "%s", err.what);
    cr_expect(end > now + 19 * 86400 && end <= now + 21 * 86400, "%lld", (long long)(end - now));
    snprintf(path, sizeof path, "%s/%s", folder, TW_PKI_CA_KEY_FILE);
    cr_expect_eq(tw_pki_end(path, &end, &err), TW_INVALID_ARGUMENT, "a key is no certificate");
    cr_expect_eq(tw_pki_end("/nonexistent", &end, &err), TW_NOT_FOUND);
    cr_expect_eq(tw_pki_end(folder, &end, &err), TW_INVALID_ARGUMENT);
    snprintf(command, sizeof command, "rm -rf -- '%s'", folder);
    cr_expect_eq(system(command), 0);
}
