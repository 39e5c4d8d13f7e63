/* Inside the runtime: what its parts share.
 *
 * The runtime lives in other people's programs: it never prints, never ends the program, and does
 * without an agent. Everything here may be called from any thread and from signal handlers, at any
 * time after the program's memory is mapped, unless it says otherwise. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_RUNTIME_H
#define TOWLINE_HOSTS_INSTRUMENTED_RUNTIME_H

#include "hosts/instrumented/shared.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define TW_RT_EXPORT      __attribute__((visibility("default")))
#define TW_RT_LIKELY(x)   __builtin_expect(!!(x), 1)
#define TW_RT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define TW_RT_PC          ((uintptr_t)__builtin_return_address(0))

/* What an access needs, in one cache line. The mode is set last; `marking` and it are cleared
 * first. */
struct tw_rt_state {
    uint8_t *marks, *summary, *lines;
    uint8_t *base;                  /* the file, always at the same place once there was one */
    uint32_t mode;                  /* enum tw_inst_mode */
    uint32_t generation;            /* attachments so far */
    uint32_t marking;               /* the generation while the mode is TW_INST_MARK, else 0 */
    uintptr_t moves_from, moves_to; /* spans all regions; empty without one */
};
static_assert(sizeof(struct tw_rt_state) == TW_LINE_SIZE, "one cache line");
extern struct tw_rt_state tw_rt;

/* This thread's record in the file; NULL until its first access after the attachment. */
struct tw_rt_self {
    struct tw_inst_thread *record;
    uint32_t generation; /* of the attachment that it is a record of */
    uint32_t marking;    /* the same, while there is a record; else TW_RT_NEVER_MARKING */
    bool busy;           /* inside the ring or the registration: a handler must not enter */
};
extern __thread struct tw_rt_self tw_rt_self;
#define TW_RT_NEVER_MARKING UINT32_MAX

/* thread.c: gives this thread a record; NULL when there is none, which is counted. */
struct tw_inst_thread *tw_rt_register(void);
void tw_rt_threads_init(void); /* once, early: not in a signal handler */
uint32_t tw_rt_threads_unsettled(void);

static inline uint32_t tw_rt_mode(void)
{
    return __atomic_load_n(&tw_rt.mode, __ATOMIC_ACQUIRE);
}

static inline uint32_t tw_rt_marking(void)
{
    return __atomic_load_n(&tw_rt.marking, __ATOMIC_ACQUIRE);
}

static inline struct tw_inst_thread *tw_rt_record(void)
{
    if (TW_RT_LIKELY(tw_rt_self.generation == tw_rt.generation))
        return tw_rt_self.record;
    return tw_rt_register();
}

static inline uint32_t tw_rt_index(const struct tw_inst_thread *record)
{
    const uint8_t *first = tw_rt.base + TW_INST_THREADS_AT;
    return (uint32_t)((size_t)((const uint8_t *)record - first) / sizeof *record);
}

static inline void tw_rt_announce(struct tw_inst_thread *record, uint64_t in_flight)
{
    __atomic_store_n(&record->in_flight, in_flight, __ATOMIC_RELEASE);
}

/* access.c. A store that the compiler will make after this returns: */
void tw_rt_store_coming(uintptr_t address, size_t size, uintptr_t pc);
/* A store that the runtime makes itself, or has libc make, between these two: */
void tw_rt_store_begin(uintptr_t address, size_t size);
void tw_rt_store_end(uintptr_t address, size_t size, uintptr_t pc);
/* A store that has happened: the kernel's, or one inside libc. */
void tw_rt_stored(uintptr_t address, size_t size, uintptr_t pc);
void tw_rt_load(uintptr_t address, size_t size);
/* Announces and marks an interrupted store again. */
void tw_rt_store_again(uint64_t in_flight);

/* region.c: memory that moves. Each returns at once where nothing has to be waited for. */
static inline bool tw_rt_moves(uintptr_t address, size_t size) /* some of it may lie in a region */
{
    const uintptr_t from = tw_rt.moves_from;
    return TW_RT_UNLIKELY(address < tw_rt.moves_to) && size &&
           (address >= from || size > from - address);
}
/* Until the lines may be read. */
void tw_rt_await(uintptr_t address, size_t size);
/* Of a string of at most `max` characters, which is read line by line as it comes. */
size_t tw_rt_length(const char *string, size_t max);
/* Where the kernel or libc may write instead of in a region: `buffer` itself where it is in none.
 * NULL with errno: no memory. aside_end stores what was written in its place, and frees. */
void *tw_rt_aside(void *buffer, size_t size);
void tw_rt_aside_end(void *aside, void *buffer, size_t written, uintptr_t pc);
/* Until they may be stored to, and announces that; `record` may be NULL. */
void tw_rt_await_announced(struct tw_inst_thread *record, uintptr_t address, size_t size);
bool tw_rt_regions_ready(void);  /* nobody has to wait for any of it */
void tw_rt_regions_tell(void);   /* puts them into the file */
void tw_rt_regions_forget(void); /* in a child: it has none */

/* memory.c, connect.c, objects.c. */
void tw_rt_memory_init(void);
void tw_rt_connect_init(void);
void tw_rt_objects_scan(void); /* takes the dynamic loader's lock: not in a signal handler */

/* init.c: the first call of anything sets the runtime up. */
void tw_rt_init(void);

#pragma GCC visibility pop

#endif
