#include "fabric/verbs_hello.h"

#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static enum tw_code bad(struct tw_error *err, const char *where, uint64_t expected, uint64_t given,
                        const char *what)
{
    char e[32], g[32];
    snprintf(e, sizeof e, "%#" PRIx64, expected);
    snprintf(g, sizeof g, "%#" PRIx64, given);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, e, g, "%s", what);
}

/* ---- Private data ---------------------------------------------------------------------------- */

void verbs_private_of_hello(const struct tw_hello *hello, uint16_t credits, uint8_t queues,
                            struct verbs_private *out)
{
    *out = (struct verbs_private){
        .magic = VERBS_PRIVATE_MAGIC,
        .version = hello->version,
        .version_min = hello->version_min,
        .capabilities = hello->capabilities,
        .purpose = VERBS_HELLO,
        .queue = queues,
        .credits = credits,
        .epoch = hello->epoch,
    };
    memcpy(out->token, hello->owner, sizeof out->token);
    memcpy(out->name, hello->name, strnlen(hello->name, sizeof out->name - 1));
}

enum tw_code verbs_private_parse(const void *bytes, size_t size, struct verbs_private *out,
                                 struct tw_error *err)
{
    static const char where[] = "private data";
    if (!bytes || size < sizeof *out)
        return bad(err, where, sizeof *out, bytes ? size : 0, "too short");
    memcpy(out, bytes, sizeof *out);
    if (out->magic != VERBS_PRIVATE_MAGIC)
        return bad(err, where, VERBS_PRIVATE_MAGIC, out->magic, "not of this protocol: magic");
    if (out->purpose < VERBS_HELLO || out->purpose > VERBS_ACCEPT)
        return bad(err, where, VERBS_ACCEPT, out->purpose, "unknown purpose");
    const bool counts = out->purpose == VERBS_HELLO || out->purpose == VERBS_ACCEPT;
    if (counts && (out->queue == 0 || out->queue > VERBS_QUEUES_MAX))
        return bad(err, where, VERBS_QUEUES_MAX, out->queue, "number of bulk queue pairs");
    if (!counts && out->queue >= VERBS_QUEUES_MAX)
        return bad(err, where, VERBS_QUEUES_MAX - 1, out->queue, "index of a bulk queue pair");
    out->name[sizeof out->name - 1] = '\0';
    return TW_OK;
}

void verbs_private_to_frame(const struct verbs_private *priv, uint8_t bytes[TW_HELLO_BYTES],
                            struct tw_frame *frame)
{
    struct tw_hello hello = {
        .version = priv->version,
        .version_min = priv->version_min,
        .capabilities = priv->capabilities,
        .epoch = priv->epoch,
    };
    memcpy(hello.owner, priv->token, sizeof hello.owner);
    memcpy(hello.name, priv->name, strnlen(priv->name, sizeof priv->name));
    tw_hello_encode(&hello, bytes);
    *frame = (struct tw_frame){
        .kind = TW_FRAME_HELLO,
        .size = VERBS_PRIVATE_BYTES,
        .header = {.numbers = {priv->credits, TW_URGENT_CREDITS}},
        .payload = bytes,
        .length = TW_HELLO_BYTES,
    };
}

/* ---- Refusals -------------------------------------------------------------------------------- */

void verbs_refusal_encode(const struct tw_error *why, struct verbs_refusal *out)
{
    *out = (struct verbs_refusal){.magic = VERBS_REFUSAL_MAGIC, .code = why->code};
    tw_error_text(why, out->text, sizeof out->text);
}

bool verbs_refusal_parse(const void *bytes, size_t size, struct tw_error *why)
{
    struct verbs_refusal refusal = {0};
    if (!bytes || size < offsetof(struct verbs_refusal, text))
        return false;
    memcpy(&refusal, bytes, size < sizeof refusal ? size : sizeof refusal);
    if (refusal.magic != VERBS_REFUSAL_MAGIC || refusal.code == TW_OK)
        return false;
    refusal.text[sizeof refusal.text - 1] = '\0';
    for (char *c = refusal.text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    tw_fail(why, refusal.code <= TW_UNAUTHENTICATED ? (enum tw_code)refusal.code : TW_UNKNOWN, NULL,
            NULL, NULL, "the peer says: %s", refusal.text);
    return true;
}

/* ---- Greetings ------------------------------------------------------------------------------- */

static uint32_t checksum(const struct verbs_greeting *greeting)
{
    struct verbs_greeting g = *greeting;
    g.crc32c = 0;
    return tw_crc32c(0, &g, sizeof g);
}

void verbs_greeting_seal(struct verbs_greeting *greeting)
{
    greeting->magic = VERBS_GREETING_MAGIC;
    greeting->crc32c = checksum(greeting);
}

enum tw_code verbs_greeting_parse(const void *bytes, size_t size, struct verbs_greeting *out,
                                  struct tw_error *err)
{
    static const char where[] = "greeting";
    if (size != sizeof *out)
        return bad(err, where, sizeof *out, size, "of another length");
    memcpy(out, bytes, sizeof *out);
    if (out->magic != VERBS_GREETING_MAGIC)
        return bad(err, where, VERBS_GREETING_MAGIC, out->magic, "not of this protocol: magic");
    if (out->crc32c != checksum(out))
        return bad(err, where, out->crc32c, checksum(out), "damaged: crc32c");
    for (unsigned lane = 0; lane < TW_LANES; lane++)
        if (out->rings[lane].slots == 0 || out->rings[lane].slots > TW_CREDITS_MAX)
            return bad(err, where, TW_CREDITS_MAX, out->rings[lane].slots,
                       "slots of a ring (expected at most)");
    return TW_OK;
}
