/* A world is an attachment with a program under it. What it can and cannot see is data: the
 * scenarios and the oracle are the same for all. */
#ifndef TOWLINE_TESTS_ATTACHMENTS_WORLD_H
#define TOWLINE_TESTS_ATTACHMENTS_WORLD_H

#include "hosts/attachment.h"
#include "tests/attachments/store.h"

enum verdict {
    TOLD,
    HIDDEN, /* a stated blind spot */
    ABSENT, /* there is no such thing there */
};

struct world;

struct world_kind {
    const char *name;
    void (*open)(struct world *w);
    /* Carries out one store and returns when it is done. */
    void (*perform)(struct world *w, const struct contract_store *store);
    void (*read)(struct world *w, uint8_t copy[CONTRACT_BYTES]);
    /* CONTRACT_THREADS threads (or what there is) store at random from begin to end. */
    void (*storm)(struct world *w, bool begin);
    void (*close)(struct world *w); /* the attachment, then the program */
    void (*finish)(void);           /* behind the last of them: what they shared; NULL = nothing */

    enum verdict verdicts[CONTRACT_KINDS];
    bool same_value_is_dirty; /* what the attachment has to say of itself */
    bool whole_pages;         /* a page's first report is the whole page */
    bool sees_loads;          /* the same: accessed lines are told, too */
    int variant;              /* for `open` */
};

struct world {
    const struct world_kind *kind;
    struct tw_attachment attachment;
    uint64_t region; /* its address, as the attachment has addresses */
    void *own;
};

extern const struct world_kind world_cache, world_uncached;
extern const struct world_kind world_process, world_process_exact;
extern const struct world_kind world_mark, world_sharing, world_owned;
extern const struct world_kind world_session_instrumented, world_session_process;
extern const struct world_kind world_qemu, world_qemu_cache;

/* ---- Attachments whose addresses are the device's own (identity.c) --------------------------- */

struct identity {
    void (*sync)(void *own); /* brings everything stored so far to the device */
    bool (*alive)(void *own);
    void *own;
};

struct tw_attachment identity_attachment(struct identity *identity, struct tw_device *device,
                                         const char *const *blind_spots);

#endif
