#include "bench/tracking/amplification/subject/graph.h"

#include "bench/tracking/amplification/subject/subject.h"

#include <stdlib.h>

#define EDGES_PER_VERTEX 16u
#define VERTICES_MAX     (UINT64_C(1) << 24)

/* Where an edge falls is chosen bit by bit: quarters of the matrix have 57, 19, 19 and 5 %. */
static void edge_at(uint64_t number, unsigned scale, uint32_t *from, uint32_t *to)
{
    *from = *to = 0;
    for (unsigned bit = 0; bit < scale; bit++) {
        const uint64_t percent = subject_scramble(number * 64 + bit) % 100;
        *from = *from << 1 | (percent >= 76);
        *to = *to << 1 | ((percent >= 57 && percent < 76) || percent >= 95);
    }
}

void graph_make(struct graph *g, uint64_t vertices)
{
    unsigned scale = 1;
    if (vertices > VERTICES_MAX)
        subject_die("too many vertices");
    while (UINT64_C(1) << scale < vertices)
        scale++;
    g->vertices = UINT32_C(1) << scale;
    const uint64_t edges = (uint64_t)g->vertices * EDGES_PER_VERTEX;
    g->first = subject_alloc((g->vertices + UINT64_C(2)) * sizeof *g->first);
    g->neighbours = subject_alloc(2 * edges * sizeof *g->neighbours);
    uint32_t from, to;
    /* Counts stand two places further on, so that filling leaves them where they belong. */
    for (uint64_t i = 0; i < edges; i++) {
        edge_at(i, scale, &from, &to);
        g->first[from + UINT64_C(2)]++;
        g->first[to + UINT64_C(2)]++;
    }
    for (uint64_t v = 2; v < g->vertices + UINT64_C(2); v++)
        g->first[v] += g->first[v - 1];
    for (uint64_t i = 0; i < edges; i++) {
        edge_at(i, scale, &from, &to);
        g->neighbours[g->first[from + UINT64_C(1)]++] = to;
        g->neighbours[g->first[to + UINT64_C(1)]++] = from;
    }
}
