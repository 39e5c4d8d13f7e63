#include "controller/db.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 2000

static enum tw_code code_of(int result)
{
    switch (result & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
        return TW_RESOURCE_EXHAUSTED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return TW_UNAVAILABLE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return TW_DATA_LOSS;
    case SQLITE_CANTOPEN:
        return TW_NOT_FOUND;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return TW_PERMISSION_DENIED;
    case SQLITE_CONSTRAINT:
        return TW_ALREADY_EXISTS;
    default:
        return TW_INTERNAL;
    }
}

static enum tw_code fail(const struct tw_db *db, int result, struct tw_error *err, const char *what)
{
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(result);
    return tw_fail(err, code_of(result), db->where, NULL, NULL, "%s: %s", what, text);
}

enum tw_code tw_db_open(struct tw_db *db, const char *path, struct tw_error *err)
{
    memset(db, 0, sizeof *db);
    size_t length = strlen(path);
    snprintf(db->where, sizeof db->where, "store %s", length > 50 ? path + length - 50 : path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int result = sqlite3_open_v2(path, &db->handle, flags, NULL);
    if (result != SQLITE_OK) {
        enum tw_code code = fail(db, result, err, "cannot open");
        tw_db_close(db);
        return code;
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    return TW_OK;
}

void tw_db_close(struct tw_db *db)
{
    for (unsigned i = 0; i < db->count; i++)
        sqlite3_finalize(db->statements[i].statement);
    sqlite3_close(db->handle);
    memset(db, 0, sizeof *db);
}

enum tw_code tw_db_exec(struct tw_db *db, const char *sql, struct tw_error *err)
{
    int result = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return result == SQLITE_OK ? TW_OK : fail(db, result, err, "statement failed");
}

static enum tw_code prepare(struct tw_db *db, const char *sql, sqlite3_stmt **out,
                            struct tw_error *err)
{
    for (unsigned i = 0; i < db->count; i++) {
        if (db->statements[i].sql == sql) {
            *out = db->statements[i].statement;
            return TW_OK;
        }
    }
    /* The program's statements are a fixed set of literals. */
    assert(db->count < TW_DB_STATEMENTS_MAX);
    int result = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    if (result != SQLITE_OK)
        return fail(db, result, err, "cannot prepare");
    db->statements[db->count].sql = sql;
    db->statements[db->count++].statement = *out;
    return TW_OK;
}

static int bind(sqlite3_stmt *statement, const char *format, va_list args)
{
    int result = SQLITE_OK;
    for (int i = 1; *format && result == SQLITE_OK; i++, format++) {
        if (*format == 't') {
            result = sqlite3_bind_text(statement, i, va_arg(args, const char *), -1, SQLITE_STATIC);
        } else if (*format == 'u') {
            result = sqlite3_bind_int64(statement, i, (sqlite3_int64)va_arg(args, uint64_t));
        } else {
            assert(*format == 'b');
            const void *data = va_arg(args, const void *);
            size_t size = va_arg(args, size_t);
            result = sqlite3_bind_blob64(statement, i, data ? data : "", size, SQLITE_STATIC);
        }
    }
    return result;
}

enum tw_code tw_db_run(struct tw_db *db, struct tw_error *err, tw_row_fn row, void *ctx,
                       const char *sql, const char *format, ...)
{
    sqlite3_stmt *statement;
    enum tw_code code = prepare(db, sql, &statement, err);
    if (code != TW_OK)
        return code;
    assert((size_t)sqlite3_bind_parameter_count(statement) == strlen(format));
    va_list args;
    va_start(args, format);
    int result = bind(statement, format, args);
    va_end(args);
    if (result == SQLITE_OK) {
        while ((result = sqlite3_step(statement)) == SQLITE_ROW)
            if (row)
                row(ctx, statement);
    }
    if (result != SQLITE_DONE)
        code = fail(db, result, err, "statement failed");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return code;
}

unsigned tw_db_changes(const struct tw_db *db)
{
    return (unsigned)sqlite3_changes(db->handle);
}

struct number {
    uint64_t value;
};

static void number_row(void *ctx, tw_row *row)
{
    struct number *n = ctx;
    if (sqlite3_column_type(row, 0) != SQLITE_NULL)
        n->value = tw_row_u64(row, 0);
}

enum tw_code tw_db_number(struct tw_db *db, const char *sql, uint64_t none, uint64_t *value,
                          struct tw_error *err)
{
    struct number n = {none};
    enum tw_code code = tw_db_run(db, err, number_row, &n, sql, "");
    *value = n.value;
    return code;
}

uint64_t tw_row_u64(tw_row *row, int column)
{
    return (uint64_t)sqlite3_column_int64(row, column);
}

void tw_row_text(tw_row *row, int column, char *out, size_t size)
{
    const unsigned char *text = sqlite3_column_text(row, column);
    snprintf(out, size, "%s", text ? (const char *)text : "");
}

size_t tw_row_blob(tw_row *row, int column, void *out, size_t size)
{
    const void *data = sqlite3_column_blob(row, column);
    size_t length = (size_t)sqlite3_column_bytes(row, column);
    if (!data || length > size)
        return 0;
    memcpy(out, data, length);
    return length;
}
