#include "fabric/hello.h"

#include <stdio.h>
#include <string.h>

void tw_hello_encode(const struct tw_hello *hello, uint8_t bytes[TW_HELLO_BYTES])
{
    memcpy(bytes, hello, TW_HELLO_BYTES);
    char *name = (char *)bytes + offsetof(struct tw_hello, name);
    const size_t used = strnlen(name, sizeof hello->name - 1);
    memset(name + used, 0, sizeof hello->name - used); /* nothing of ours leaks behind the name */
}

void tw_hello_decode(struct tw_hello *hello, const uint8_t bytes[TW_HELLO_BYTES])
{
    memcpy(hello, bytes, TW_HELLO_BYTES);
    hello->name[sizeof hello->name - 1] = '\0';
    for (char *c = hello->name; *c; c++)
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') /* it ends up in quotes in logs */
            *c = '?';
}

enum tw_code tw_hello_agree(const struct tw_hello *ours, const struct tw_hello *theirs,
                            uint16_t *version, struct tw_error *err)
{
    *version = ours->version < theirs->version ? ours->version : theirs->version;
    if (*version >= ours->version_min && *version >= theirs->version_min)
        return TW_OK;
    char expected[32], given[32];
    snprintf(expected, sizeof expected, "%u to %u", ours->version_min, ours->version);
    snprintf(given, sizeof given, "%u to %u", theirs->version_min, theirs->version);
    return tw_fail(err, TW_FAILED_PRECONDITION, theirs->name, expected, given,
                   "no version of the fabric's protocol in common");
}
