/* SQLite in memory, without a journal (which would hold a copy of each page that is written): a
 * table of SIZE rows of about 100 bytes with an index. A step is a transaction that updates a 50th
 * of the rows, chosen at random. */
#include "bench/tracking/amplification/subject/subject.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define STEP_SHARE 50u
#define NOTE_BYTES 80u

static sqlite3 *db;
static sqlite3_stmt *insert, *update;
static uint64_t rows, operations;

static void must(int status)
{
    if (status != SQLITE_OK && status != SQLITE_DONE && status != SQLITE_ROW)
        subject_die(sqlite3_errmsg(db));
}

static void run(const char *text)
{
    must(sqlite3_exec(db, text, NULL, NULL, NULL));
}

/* Letters that differ from one operation to the next. */
static void note(char *text)
{
    for (unsigned i = 0; i < NOTE_BYTES; i++)
        text[i] = (char)('a' + subject_scramble(operations * NOTE_BYTES + i) % 26);
}

static void store(sqlite3_stmt *statement, uint64_t row)
{
    char text[NOTE_BYTES];
    note(text);
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)row);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)(subject_scramble(~operations) >> 16));
    sqlite3_bind_text(statement, 3, text, NOTE_BYTES, SQLITE_TRANSIENT);
    must(sqlite3_step(statement));
    must(sqlite3_reset(statement));
    operations++;
}

static void begin(uint64_t size)
{
    rows = size;
    must(sqlite3_open(":memory:", &db));
    run("PRAGMA journal_mode = OFF;"
        "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, note TEXT);"
        "CREATE INDEX by_balance ON account (balance); BEGIN");
    must(sqlite3_prepare_v2(db, "INSERT INTO account VALUES (?1, ?2, ?3)", -1, &insert, NULL));
    must(sqlite3_prepare_v2(db, "UPDATE account SET balance = ?2, note = ?3 WHERE id = ?1", -1,
                            &update, NULL));
    for (uint64_t row = 0; row < rows; row++)
        store(insert, row);
    run("COMMIT");
}

static void step(unsigned step, unsigned steps)
{
    (void)step;
    (void)steps;
    run("BEGIN");
    for (uint64_t i = 0; i < rows / STEP_SHARE + 1; i++)
        store(update, subject_scramble(operations) % rows);
    run("COMMIT");
}

static bool right(void)
{
    sqlite3_stmt *check;
    must(sqlite3_prepare_v2(db,
                            "SELECT count(*), (SELECT * FROM pragma_integrity_check) "
                            "FROM account",
                            -1, &check, NULL));
    must(sqlite3_step(check));
    const bool ok = (uint64_t)sqlite3_column_int64(check, 0) == rows &&
                    strcmp((const char *)sqlite3_column_text(check, 1), "ok") == 0;
    sqlite3_finalize(check);
    sqlite3_finalize(insert);
    sqlite3_finalize(update);
    return sqlite3_close(db) == SQLITE_OK && ok;
}

const struct subject subject_sqlite = {"sqlite", begin, step, right};
