/* Inside the migrations' files: one migration under way. */
#ifndef TOWLINE_CONTROLLER_DRIVE_H
#define TOWLINE_CONTROLLER_DRIVE_H

#include "base/log.h"
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
    bool lacks;      /* destination: memory of it is still to come */
    bool path_lost;  /* destination: post-copy, connects to the source again */
    bool paused;     /* ... or has given up to do so */
    bool switching;  /* source: the VM is stopped or about to be */
    bool has_report; /* of the VM */
    struct tw_report report;
    struct tw_error error;
};

/* What the third host says; UNHEARD: it may hold what is missing at the destination, or not. */
enum tw_mirror_word { TW_MIRROR_LACKS, TW_MIRROR_HOLDS, TW_MIRROR_UNHEARD };

/* The third host of a migration with a mirror; only for the job's thread. */
struct tw_drive_mirror {
    char host[TW_NAME_SIZE]; /* empty: there is none */
    Towline__V1__MirrorState state;
    uint64_t lines, bytes, asked_ns, silent_since_ns;
    uint64_t hold_since_ns; /* since when it has been asked to hold, in vain; 0 = it has not */
    unsigned tries;         /* hosts that did not */
    bool known;             /* it was asked to hold */
    bool wanted;            /* to serve the destination; told, and not needed again yet */
    char reason[200];       /* why there is none; "" = there is */
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
    bool silent[TW_SIDES]; /* did not answer last time */
    bool claims;           /* the source answered last time and holds the VM */
    bool lacks;            /* the destination answered last time and misses memory */
    enum tw_mirror_word mirror_word;
    char mirror_host[TW_NAME_SIZE]; /* as mirror.host */
    struct tw_resolve_view view;    /* as it was judged last */

    struct tw_machine machine; /* moved with the lock held */
    bool counted;              /* among those that run at once; the owner's lock */

    /* Only for the job's thread. */
    struct tw_answer answer[TW_SIDES];
    enum tw_known seen[TW_SIDES]; /* as of seen_since_ns */
    uint64_t seen_since_ns, silent_since_ns, saved_ns, cancel_sent_ns;
    uint64_t asking_ns; /* how long the last answers of both sides took */
    unsigned doubts, alarms;
    char told_fabric[TW_URL_SIZE]; /* where the destination was told that the source is */
    struct tw_drive_mirror mirror;
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

/* Reads from the record whether there is one. */
void tw_drive_mirror_init(struct tw_drive *drive);
/* Asks it how it is, now and then; a change for the worse is an event. */
void tw_drive_mirror_ask(struct tw_drive *drive);
/* What the source tells of it. */
void tw_drive_mirror_hear(struct tw_drive *drive, const Towline__V1__MigrationProgress *progress);
/* What it said last goes into what the source tells. */
void tw_drive_mirror_stamp(const struct tw_drive *drive, Towline__V1__MigrationProgress *progress);
/* Where the decision depends on what the mirror has: with the drive locked. True: the destination
 * is to be told to go on from it. */
bool tw_drive_mirror_judge(struct tw_drive *drive, const struct tw_migration_record *record,
                           struct tw_verdict *verdict);
void tw_drive_mirror_order(struct tw_drive *drive);
/* What would become of the VM if `lost` were declared lost; with the drive locked. */
enum tw_prospect tw_drive_mirror_prospect(const struct tw_drive *drive, enum tw_fenced lost);
/* OK: a destination that misses memory would get it; with the drive locked. */
enum tw_code tw_drive_mirror_suffices(const struct tw_drive *drive, struct tw_error *err);
void tw_drive_mirror_tell(struct tw_drive *drive, enum tw_log_level level, const char *what);

/* ---- drive_hold.c: who is the third host --------------------------------------------------- */

/* Asks it to keep what will follow; *answer NULL: there is to be none. One that does not answer is
 * asked for some time; where nobody insists on it another is, and in the end none. */
enum tw_code tw_drive_mirror_hold(struct tw_drive *drive, uint64_t memory_bytes,
                                  Towline__V1__MigrationLimits *limits,
                                  Towline__V1__HoldMirrorResponse **answer, struct tw_error *err);
/* After that failed: whether to ask again. */
bool tw_drive_mirror_holds_on(const struct tw_drive *drive, enum tw_code code);

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
