/* Reasons, collected while something is decided, and kept so that people can ask for them. */
#ifndef TOWLINE_CONTROLLER_WHY_H
#define TOWLINE_CONTROLLER_WHY_H

#include "controller/store.h"
#include "towline/v1/migration.pb-c.h"

#define TW_WHY_REASONS_MAX 1024u /* of one decision; more are left out */

/* A decision under way: what WhyMigration answers. Freed with
 * towline__v1__why_migration_response__free_unpacked; NULL when there is no memory. */
typedef Towline__V1__WhyMigrationResponse tw_why;
tw_why *tw_why_new(const char *vm, const char *wanted);

struct tw_rule {
    const char *about, *rule;
    uint64_t value, limit;
    const char *unit;                    /* NULL = texts */
    const char *value_text, *limit_text; /* NULL = empty */
};
/* `why` may be NULL. */
void tw_why_add(tw_why *why, Towline__V1__ReasonVerdict verdict, const struct tw_rule *rule,
                const char *text, ...) __attribute__((format(printf, 4, 5)));
#define TW_PASS   TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_PASS
#define TW_WARN   TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_WARN
#define TW_REFUSE TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_REFUSE

/* Appends copies; false when there is no memory. */
bool tw_reasons_copy(Towline__V1__Reason ***to, size_t *count, Towline__V1__Reason *const *from,
                     size_t from_count);

/* A copy of any message, by packing it; NULL when there is no memory. */
ProtobufCMessage *tw_message_copy(const ProtobufCMessage *message);

/* Keeps it as the decision about `id`, in a transaction of its own. */
enum tw_code tw_why_keep(struct tw_store *store, const char *id, tw_why *why, struct tw_error *err);
/* Keeps the reasons of a refusal under an id of its own and adds to `err` how to ask for them. */
void tw_why_refuse(struct tw_store *store, tw_why *why, struct tw_error *err);
/* NOT_FOUND: nothing is kept about it. */
enum tw_code tw_why_load(struct tw_store *store, const char *id, tw_why **why,
                         struct tw_error *err);

/* Fresh names: `prefix` and 16 hexadecimal digits. */
enum tw_code tw_token_new(const char *prefix, char token[TW_NAME_SIZE], struct tw_error *err);

#endif
