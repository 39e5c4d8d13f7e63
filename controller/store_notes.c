/* Notes: packed messages beside the records. */
#include "controller/store.h"

#include "base/clock.h"
#include "controller/db.h"
#include "controller/spec.h"

#include <stdlib.h>

#define PRUNE_EVERY 256u

static enum tw_code prune(struct tw_db *db, struct tw_error *err)
{
    uint64_t newest;
    enum tw_code code = tw_db_number(db, "SELECT max(sequence) FROM notes", 0, &newest, err);
    if (code != TW_OK || newest <= TW_STORE_NOTES_KEPT || newest % PRUNE_EVERY != 0)
        return code;
    return tw_db_run(db, err, NULL, NULL, "DELETE FROM notes WHERE sequence <= ?", "u",
                     newest - TW_STORE_NOTES_KEPT);
}

enum tw_code tw_store_note_add(struct tw_store *store, const char *id, const char *kind,
                               const ProtobufCMessage *message, struct tw_error *err)
{
    struct tw_db *db = tw_store_db(store);
    size_t size;
    uint8_t *body = malloc(TW_NOTE_BYTES);
    if (!body)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, id, NULL, NULL, "no memory");
    enum tw_code code = tw_message_keep(message, id, body, TW_NOTE_BYTES, &size, err);
    if (code == TW_OK)
        code = tw_db_run(db, err, NULL, NULL,
                         "INSERT INTO notes(id, kind, unix_ms, body) VALUES(?, ?, ?, ?)", "ttub",
                         id, kind, tw_wall_ms(), (const void *)body, size);
    free(body);
    return code == TW_OK ? prune(db, err) : code;
}

enum tw_code tw_store_note_put(struct tw_store *store, const char *id, const char *kind,
                               const ProtobufCMessage *message, struct tw_error *err)
{
    enum tw_code code = tw_db_run(tw_store_db(store), err, NULL, NULL,
                                  "DELETE FROM notes WHERE id = ? AND kind = ?", "tt", id, kind);
    return code == TW_OK ? tw_store_note_add(store, id, kind, message, err) : code;
}

struct note_reader {
    tw_note_fn fn;
    void *ctx;
    uint8_t *body;
};

static void note_row(void *ctx, tw_row *row)
{
    struct note_reader *reader = ctx;
    size_t size = tw_row_blob(row, 0, reader->body, TW_NOTE_BYTES);
    reader->fn(reader->ctx, reader->body, size);
}

enum tw_code tw_store_notes_each(struct tw_store *store, const char *id, const char *kind,
                                 uint32_t max, tw_note_fn fn, void *ctx, struct tw_error *err)
{
    struct note_reader reader = {fn, ctx, malloc(TW_NOTE_BYTES)};
    if (!reader.body)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, id, NULL, NULL, "no memory");
    enum tw_code code =
        tw_db_run(tw_store_db(store), err, note_row, &reader,
                  "SELECT body FROM notes WHERE id = ? AND kind = ? ORDER BY sequence LIMIT ?",
                  "ttu", id, kind, (uint64_t)max);
    free(reader.body);
    return code;
}
