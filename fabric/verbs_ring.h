/* The arithmetic of a lane's messages over queue pairs that may break, and of slices. Pure.
 *
 * A message is one frame, numbered from 0 each way of a lane. Message n goes into slot n % slots of
 * the receiver's ring and travels on queue pair n % queues of its lane, so each side knows which
 * receive belongs to which message. The receiver says how many it has consumed; what it has not is
 * kept by the sender, and on new queue pairs is sent again:
 *
 *   out:  acked <= posted <= next,  next - acked <= out_slots
 *   in:   told <= expected <= granted <= expected + in_slots */
#ifndef TOWLINE_FABRIC_VERBS_RING_H
#define TOWLINE_FABRIC_VERBS_RING_H

#include "fabric/backend.h"

struct verbs_stream {
    uint32_t in_slots;  /* of our ring */
    uint32_t out_slots; /* of the peer's */
    uint64_t next;      /* message to be made next */
    uint64_t posted;    /* of them, given to the present queue pairs */
    uint64_t acked;     /* of them, consumed by the peer */
    uint64_t expected;  /* message to be consumed next */
    uint64_t told;      /* of those consumed, told to the peer */
    uint64_t granted;   /* messages for which the present queue pairs have a receive */
};

/* There is a slot for one more message. */
static inline bool verbs_stream_open(const struct verbs_stream *s)
{
    return s->next - s->acked < s->out_slots;
}

/* So much was consumed that the peer should hear of it soon: it never waits for want of slots. */
static inline bool verbs_stream_told_late(const struct verbs_stream *s)
{
    return s->expected - s->told >= (s->in_slots + 3) / 4;
}

/* The peer has written that it consumed `consumed` messages; fewer than before is what an earlier
 * link left behind. False: it never got so many. */
static inline bool verbs_stream_ack(struct verbs_stream *s, uint64_t consumed)
{
    if (consumed > s->posted)
        return false;
    if (consumed > s->acked)
        s->acked = consumed;
    return true;
}

/* New queue pairs: what the peer has not consumed is to be posted again. False: it
 * never got so many, or takes some back. */
static inline bool verbs_stream_resume(struct verbs_stream *s, uint64_t consumed)
{
    if (consumed < s->acked || consumed > s->next)
        return false;
    s->acked = s->posted = consumed;
    s->told = s->expected;
    return true;
}

/* Registered memory goes to the device in slices. Each is longer than its step by the longest read,
 * so that a read never needs two. */
static inline uint64_t verbs_slice_count(uint64_t length, uint64_t step)
{
    return length / step + (length % step != 0);
}

static inline struct tw_range verbs_slice_at(uint64_t length, uint64_t step, uint64_t index)
{
    const uint64_t start = index * step, left = length - start;
    const uint64_t most = step + TW_CHUNK_PAYLOAD;
    return (struct tw_range){start, left < most ? left : most};
}

/* Bytes that registering [address, address+length) in slices pins: whole pages, each as often as
 * it lies in a slice. */
uint64_t verbs_slices_pinned(uint64_t address, uint64_t length, uint64_t step);

#endif
