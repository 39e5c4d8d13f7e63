/* A thin layer over SQLite: prepared statements by their text, parameters by a format string, and
 * errors as everywhere else in the project. Not thread-safe; the store locks. */
#ifndef TOWLINE_CONTROLLER_DB_H
#define TOWLINE_CONTROLLER_DB_H

#include "base/error.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_DB_STATEMENTS_MAX 64u

struct tw_db {
    sqlite3 *handle;
    char where[64]; /* "store PATH", for errors */
    struct {
        const char *sql; /* the literal itself: compared by address */
        sqlite3_stmt *statement;
    } statements[TW_DB_STATEMENTS_MAX];
    unsigned count;
};

typedef sqlite3_stmt tw_row;
typedef void (*tw_row_fn)(void *ctx, tw_row *row);

enum tw_code tw_db_open(struct tw_db *db, const char *path, struct tw_error *err);
void tw_db_close(struct tw_db *db);

/* Statements without parameters or rows, several at once if need be. */
enum tw_code tw_db_exec(struct tw_db *db, const char *sql, struct tw_error *err);

/* `sql` must be a string literal. `format` has a letter for each parameter:
 *   t  const char * (text)      u  uint64_t (kept as the same 64 bits)
 *   b  const void *, size_t (blob)
 * Each row goes to `row` (NULL = none is expected). */
enum tw_code tw_db_run(struct tw_db *db, struct tw_error *err, tw_row_fn row, void *ctx,
                       const char *sql, const char *format, ...);

/* Rows that the last INSERT, UPDATE or DELETE changed. */
unsigned tw_db_changes(const struct tw_db *db);

/* A statement's first row and column as a number; `none` when there is no row or it is NULL. */
enum tw_code tw_db_number(struct tw_db *db, const char *sql, uint64_t none, uint64_t *value,
                          struct tw_error *err);

/* Column number `column` of a row, from 0. Text is cut to `size`, a blob longer than `size` is
 * left out (0 bytes). */
uint64_t tw_row_u64(tw_row *row, int column);
void tw_row_text(tw_row *row, int column, char *out, size_t size);
size_t tw_row_blob(tw_row *row, int column, void *out, size_t size);

#endif
