/* Private data, refusals and greetings: whatever a stranger sends, what passes makes sense. */
#include "fabric/verbs_hello.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void private_data(const uint8_t *data, size_t size)
{
    struct verbs_private p;
    struct tw_error err;
    if (verbs_private_parse(data, size, &p, &err) != TW_OK)
        return;
    uint8_t storage[TW_HELLO_BYTES];
    struct tw_frame frame;
    struct tw_hello hello;
    require(p.queue <= VERBS_QUEUES_MAX);
    verbs_private_to_frame(&p, storage, &frame);
    tw_hello_decode(&hello, frame.payload);
    require(strnlen(hello.name, sizeof hello.name) < VERBS_SHORT_NAME);
}

static void refusal(const uint8_t *data, size_t size)
{
    struct tw_error err;
    if (!verbs_refusal_parse(data, size, &err))
        return;
    require(err.code != TW_OK);
    for (const char *c = err.what; *c; c++)
        require(*c >= ' ' && *c <= '~');
}

static void greeting(const uint8_t *data, size_t size)
{
    struct verbs_greeting g;
    struct tw_error err;
    if (verbs_greeting_parse(data, size, &g, &err) == TW_OK)
        for (unsigned lane = 0; lane < TW_LANES; lane++)
            require(g.rings[lane].slots > 0 && g.rings[lane].slots <= TW_CREDITS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[256];
    const size_t n = size < sizeof bytes ? size : sizeof bytes;
    memcpy(bytes, data, n);
    private_data(bytes, n);
    refusal(bytes, n);
    greeting(bytes, n);
    /* Past the magic, and past the checksum. */
    uint32_t magic = VERBS_PRIVATE_MAGIC;
    if (n >= sizeof magic) {
        memcpy(bytes, &magic, sizeof magic);
        private_data(bytes, n);
        magic = VERBS_REFUSAL_MAGIC;
        memcpy(bytes, &magic, sizeof magic);
        refusal(bytes, n);
    }
    if (n >= sizeof(struct verbs_greeting)) {
        struct verbs_greeting g;
        memcpy(&g, bytes, sizeof g);
        verbs_greeting_seal(&g);
        greeting((const uint8_t *)&g, sizeof g);
    }
    return 0;
}
