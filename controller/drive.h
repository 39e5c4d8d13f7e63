/* Inside the migrations' files: one migration under way. */
#ifndef TOWLINE_CONTROLLER_DRIVE_H
#define TOWLINE_CONTROLLER_DRIVE_H

#include "controller/migrations.h"

#include <pthread.h>
#include <stdatomic.h>

enum tw_side { TW_SOURCE_SIDE, TW_DESTINATION_SIDE, TW_SIDES };

/* What a side said last. */
struct tw_answer {
    bool answers;
    enum tw_known known; /* NOTHING when it did not answer */
    bool peer_lost;
    bool holds_vm;   /* owns the VM and has a process of it */
    bool vm_ended;   /* its VM's process is gone */
    bool serving;    /* source: post-copy, lines follow the VM */
    bool peer_ran;   /* source: it knows that the destination has run the VM */
    bool path_lost;  /* destination: post-copy, connects to the source again */
    bool paused;     /* ... or has given up to do so */
    bool switching;  /* source: the VM is stopped or about to be */
    bool has_report; /* of the VM */
    struct tw_report report;
    struct tw_error error;
};

struct tw_drive {
    struct tw_migrations *owner;
    _Atomic unsigned references;
    struct tw_drive *next;
    /* Of the record, never changed: read without the lock. */
    char id[TW_NAME_SIZE], vm[TW_NAME_SIZE], source[TW_NAME_SIZE], destination[TW_NAME_SIZE];
    uint64_t epoch;

    pthread_mutex_t lock; /* for the record; taken before the store's */
    struct tw_migration_record record;
    bool silent[TW_SIDES];       /* did not answer last time */
    bool claims;                 /* the source answered last time and holds the VM */
    struct tw_resolve_view view; /* as it was judged last */

    struct tw_machine machine; /* moved with the lock held */
    bool counted;              /* among those that run at once; the owner's lock */

    /* Only for the job's thread. */
    struct tw_answer answer[TW_SIDES];
    enum tw_known seen[TW_SIDES]; /* as of seen_since_ns */
    uint64_t seen_since_ns, silent_since_ns, saved_ns, cancel_sent_ns;
    uint64_t asking_ns; /* how long the last answers of both sides took */
    unsigned doubts, alarms;
    char told_fabric[TW_URL_SIZE]; /* where the destination was told that the source is */
    struct {
        char host[TW_NAME_SIZE];        /* empty: there is none */
        Towline__V1__MirrorState state; /* written with the lock */
        uint64_t lines, bytes, asked_ns, silent_since_ns;
        bool known; /* it was asked to hold */
    } mirror;
    struct tw_error cause; /* why it fails, as far as is known */
    bool timed_out;
    bool paced; /* the source said last that it slows the guest */
};

struct tw_migrations {
    struct tw_migrations_config config;
    pthread_mutex_t lock; /* for the list and the figures; never held while a drive is locked */
    struct tw_drive *list;
    unsigned active, running;
    struct tw_migration_figures figures;
};

/* ---- drive.c: the job ---------------------------------------------------------------------- */

uint64_t tw_drive_step(void *drive);
void tw_drive_wake(struct tw_drive *drive);

/* ---- drive_ask.c --------------------------------------------------------------------------- */

/* Asks a side; the progress that it tells is kept in the record. */
void tw_drive_ask(struct tw_drive *drive, enum tw_side side);

/* ---- drive_pace.c: events when the guest is slowed, and when it is no longer --------------- */

void tw_drive_note_pacing(struct tw_drive *drive, const Towline__V1__MigrationProgress *progress);

/* ---- drive_mirror.c: the third host, where there is one ------------------------------------ */

/* Asks it to keep what will follow; *answer NULL: there is to be none. */
enum tw_code tw_drive_mirror_hold(struct tw_drive *drive, uint64_t memory_bytes,
                                  Towline__V1__MigrationLimits *limits,
                                  Towline__V1__HoldMirrorResponse **answer, struct tw_error *err);
/* Asks it how it is, now and then; a change for the worse is an event. */
void tw_drive_mirror_ask(struct tw_drive *drive);
/* What it said last goes into what the source tells. */
void tw_drive_mirror_stamp(const struct tw_drive *drive, Towline__V1__MigrationProgress *progress);
/* With the lock: whether it may still have all that is missing; and whether it does not answer. */
bool tw_drive_mirror_may_hold(const struct tw_drive *drive);
bool tw_drive_mirror_silent(const struct tw_drive *drive);
/* A source that has nothing any more: the mirror has. True when the destination goes on from it, or
 * that is not known yet. */
bool tw_drive_mirror_replaces(struct tw_drive *drive);

/* ---- drive_write.c: what is written down; the drive is locked ------------------------------ */

struct tw_drive_change {
    enum tw_store_mode mode;
    const char *why;
    /* Of the VM: NULL and 0 = as it is. */
    const char *host;
    uint64_t epoch;
    enum tw_vm_state state;
    const char *reason;
    bool release; /* the VM is no longer in a migration */
};
/* Makes `next` the record, in the store first. */
enum tw_code tw_drive_write(struct tw_drive *drive, const struct tw_migration_record *next,
                            const struct tw_drive_change *change, struct tw_error *err);

/* ---- migrations.c -------------------------------------------------------------------------- */

/* Adds a reference; NULL when it is not under way. */
struct tw_drive *tw_drive_find(struct tw_migrations *migrations, const char *id);
void tw_drive_release(struct tw_drive *drive);
/* A new migration that is in the store: drives it. */
enum tw_code tw_drive_add(struct tw_migrations *migrations,
                          const struct tw_migration_record *record, struct tw_error *err);
/* Takes one of the places of those that run at once, or gives it back. */
bool tw_drive_count(struct tw_drive *drive, bool in);
void tw_migrations_count_end(struct tw_migrations *migrations,
                             const struct tw_migration_record *record);

/* In a hand-over that an operator or a decision has already settled. */
static inline bool tw_drive_handed_over(const struct tw_migration_record *m)
{
    return m->source_known == TW_KNOWN_GIVEN_UP || m->source_known == TW_KNOWN_COMMITTED ||
           m->destination_known == TW_KNOWN_COMMITTED || m->destination_known == TW_KNOWN_PARTLY ||
           m->decision == TW_DECIDED_COMMIT;
}

#endif
