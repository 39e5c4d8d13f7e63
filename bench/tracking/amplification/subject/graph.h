/* An undirected R-MAT graph: few vertices have many neighbours, most have few. */
#ifndef TOWLINE_BENCH_TRACKING_AMPLIFICATION_GRAPH_H
#define TOWLINE_BENCH_TRACKING_AMPLIFICATION_GRAPH_H

#include <stdint.h>

struct graph {
    uint32_t vertices;
    uint64_t *first;      /* of a vertex' neighbours; one more than there are vertices */
    uint32_t *neighbours; /* 16 edges a vertex at the mean, each at both of its ends */
};

/* The number of vertices is rounded up to a power of two. */
void graph_make(struct graph *graph, uint64_t vertices);

#endif
