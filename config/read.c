#include "config/value.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum tw_code tw_config_read(const char *path, const struct tw_config_key *keys, size_t count,
                            void *object, struct tw_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return tw_fail_errno(err, errno, path, "cannot open the configuration");
    char *text = malloc(TW_CONFIG_BYTES_MAX + 1);
    if (!text) {
        fclose(f);
        return tw_fail_errno(err, ENOMEM, path, "cannot read the configuration");
    }
    /* One byte more than allowed shows that the file is too long. */
    errno = 0;
    size_t length = fread(text, 1, TW_CONFIG_BYTES_MAX + 1, f);
    enum tw_code code = ferror(f) ? tw_fail_errno(err, errno, path, "cannot read the configuration")
                                  : tw_config_parse(path, text, length, keys, count, object, err);
    free(text);
    fclose(f);
    return code;
}

enum tw_code tw_config_set(const char *where, const char *key, const char *text,
                           const struct tw_config_key *keys, size_t count, void *object,
                           struct tw_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i].name, key) == 0)
            return tw_config_value_set(&keys[i], where, text, true, object, err);
    return tw_fail(err, TW_NOT_FOUND, where, NULL, key, "no such key");
}
