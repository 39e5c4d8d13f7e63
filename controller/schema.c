#include "controller/schema.h"

#include <stdio.h>

static const char step_1[] =
    "CREATE TABLE hosts("
    "  name TEXT PRIMARY KEY, rpc_url TEXT NOT NULL, fabric_address TEXT NOT NULL,"
    "  fabric TEXT NOT NULL, capacity INTEGER NOT NULL, used INTEGER NOT NULL,"
    "  cpus INTEGER NOT NULL, version TEXT NOT NULL, instance INTEGER NOT NULL,"
    "  alive INTEGER NOT NULL, last_seen INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE vms("
    "  name TEXT PRIMARY KEY, spec BLOB NOT NULL, memory INTEGER NOT NULL, host TEXT NOT NULL,"
    "  epoch INTEGER NOT NULL, epoch_issued INTEGER NOT NULL, state INTEGER NOT NULL,"
    "  wanted INTEGER NOT NULL, reason TEXT NOT NULL, migration TEXT NOT NULL,"
    "  created INTEGER NOT NULL, changed INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX vms_host ON vms(host);"
    "CREATE TABLE migrations("
    "  number INTEGER PRIMARY KEY, vm TEXT NOT NULL, source TEXT NOT NULL,"
    "  destination TEXT NOT NULL, state INTEGER NOT NULL, limits BLOB NOT NULL,"
    "  progress BLOB NOT NULL, error_code INTEGER NOT NULL, error_where TEXT NOT NULL,"
    "  error_what TEXT NOT NULL, error_expected TEXT NOT NULL, error_given TEXT NOT NULL,"
    "  epoch INTEGER NOT NULL, source_epoch INTEGER NOT NULL, reclaim_epoch INTEGER NOT NULL,"
    "  source_known INTEGER NOT NULL, destination_known INTEGER NOT NULL,"
    "  decision INTEGER NOT NULL, fenced INTEGER NOT NULL, owed INTEGER NOT NULL,"
    "  cancel_requested INTEGER NOT NULL, created INTEGER NOT NULL, ended INTEGER NOT NULL);"
    "CREATE INDEX migrations_vm ON migrations(vm, number);"
    "CREATE INDEX migrations_active ON migrations(number) WHERE ended = 0;"
    "CREATE INDEX migrations_owed ON migrations(number) WHERE owed != 0;"
    "CREATE TABLE events("
    "  revision INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, body BLOB NOT NULL);"
    "CREATE INDEX events_subject ON events(subject, revision);";

/* What is remembered beside the records: plans, decisions, forecasts, audit entries. */
static const char step_2[] =
    "CREATE TABLE notes("
    "  sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, kind TEXT NOT NULL,"
    "  unix_ms INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE INDEX notes_id ON notes(id, kind, sequence);";

const char *const tw_schema_steps[] = {step_1, step_2};
const unsigned tw_schema_version = sizeof tw_schema_steps / sizeof *tw_schema_steps;

static enum tw_code step_apply(struct tw_db *db, const char *step, unsigned version,
                               struct tw_error *err)
{
    enum tw_code code = tw_db_exec(db, "BEGIN IMMEDIATE", err);
    if (code != TW_OK)
        return code;
    code = tw_db_exec(db, step, err);
    if (code == TW_OK)
        code = tw_db_run(db, err, NULL, NULL,
                         "INSERT OR REPLACE INTO meta(key, value) VALUES('schema_version', ?)", "u",
                         (uint64_t)version);
    if (code == TW_OK)
        code = tw_db_exec(db, "COMMIT", err);
    if (code != TW_OK)
        tw_db_exec(db, "ROLLBACK", NULL);
    return code;
}

enum tw_code tw_schema_apply(struct tw_db *db, const char *const *steps, unsigned count,
                             struct tw_error *err)
{
    uint64_t version;
    enum tw_code code = tw_db_exec(db,
                                   "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY,"
                                   " value INTEGER NOT NULL) WITHOUT ROWID",
                                   err);
    if (code == TW_OK)
        code = tw_db_number(db, "SELECT value FROM meta WHERE key = 'schema_version'", 0, &version,
                            err);
    if (code != TW_OK)
        return code;
    if (version > count) {
        char expected[32], given[32];
        snprintf(expected, sizeof expected, "at most %u", count);
        snprintf(given, sizeof given, "%llu", (unsigned long long)version);
        return tw_fail(err, TW_FAILED_PRECONDITION, db->where, expected, given,
                       "schema version is newer than this program");
    }
    for (unsigned i = (unsigned)version; i < count && code == TW_OK; i++)
        code = step_apply(db, steps[i], i + 1, err);
    return code;
}
