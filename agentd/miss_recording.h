/* Writes down what a guest waits for (services/migration/miss_stream.h) while its memory follows
 * it. The file is mapped and has its full size from the start, so that an entry costs a few stores
 * on the data thread: nothing is allocated, and nobody waits for a disk. */
#ifndef TOWLINE_AGENTD_MISS_RECORDING_H
#define TOWLINE_AGENTD_MISS_RECORDING_H

#include "base/error.h"

#include <stdint.h>

struct tw_miss_recording;

/* folder/id.misses; a file of that name is begun anew. */
enum tw_code tw_miss_recording_open(const char *folder, const char *id, uint64_t memory_bytes,
                                    struct tw_miss_recording **recording, struct tw_error *err);
/* Adds a wait; what comes behind TW_MISSES_MAX is not kept. */
void tw_miss_recording_add(struct tw_miss_recording *recording, uint64_t page, uint32_t line,
                           uint64_t since_ns, uint64_t waited_ns);
/* Cuts the file to what was used. NULL is fine. */
void tw_miss_recording_close(struct tw_miss_recording *recording);

#endif
