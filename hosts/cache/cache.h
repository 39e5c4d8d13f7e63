/* A MESI cache hierarchy: turns loads and stores into link messages and answers snoops.
 *
 * Private L1 and L2 for each core (L2 inclusive of L1), a shared last level inclusive of both.
 * Tags and states only; the data is in the memory that the program itself uses. One thread drives
 * a hierarchy. */
#ifndef TOWLINE_HOSTS_CACHE_CACHE_H
#define TOWLINE_HOSTS_CACHE_CACHE_H

#include "base/error.h"
#include "fpga-model/device.h"

#include <stddef.h>
#include <stdint.h>

struct tw_cache;

struct tw_cache_level_config {
    uint64_t size_bytes; /* 0 = the level is absent */
    uint32_t ways;       /* 1..32; size / (ways * 64) must be a power of two */
};

struct tw_cache_config {
    uint32_t cores; /* 1..64 */
    struct tw_cache_level_config l1, l2,
        last; /* all absent = every store is written back at once */
};

enum tw_code tw_cache_config_check(const struct tw_cache_config *config, struct tw_error *err);

/* The link's far end: where messages go. Usually wired to tw_device_message. */
struct tw_link_sink {
    void (*message)(void *ctx, enum tw_link_message message, uint64_t address);
    void *ctx;
};

enum tw_code tw_cache_open(const struct tw_cache_config *config, const struct tw_link_sink *sink,
                           struct tw_cache **cache, struct tw_error *err);
void tw_cache_close(struct tw_cache *cache);

void tw_cache_load(struct tw_cache *cache, unsigned core, uint64_t address);
void tw_cache_store(struct tw_cache *cache, unsigned core, uint64_t address);
/* Loads and stores of one core in order: the fast form for rings of events. An event is
 * (line number << 1) | is-a-store. */
void tw_cache_run(struct tw_cache *cache, unsigned core, const uint64_t *events, size_t count);
void tw_cache_store_nontemporal(struct tw_cache *cache, unsigned core, uint64_t address);
/* clflush: written back if modified, then invalid everywhere. */
void tw_cache_flush(struct tw_cache *cache, uint64_t address);
/* A device writes memory (DMA): copies are invalidated, the device hears a MemWr (R5). */
void tw_cache_dma_write(struct tw_cache *cache, uint64_t address);

/* For tw_device_config.snoop; ctx is the cache. */
uint64_t tw_cache_snoop(void *cache, uint64_t page, uint64_t lines, enum tw_snoop kind);

struct tw_cache_counters {
    uint64_t loads, stores;
    uint64_t hits_l1, hits_l2, hits_last;
    uint64_t write_backs, clean_evictions, upgrades;
};
void tw_cache_counters_get(const struct tw_cache *cache, struct tw_cache_counters *out);

#endif
