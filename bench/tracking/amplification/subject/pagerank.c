/* PageRank of an R-MAT graph of SIZE vertices. A step is a round over the vertices, in which those
 * are computed anew that have a neighbour whose rank has changed by more than a tolerance. */
#include "bench/tracking/amplification/subject/graph.h"
#include "bench/tracking/amplification/subject/subject.h"

#include <math.h>

#define DAMPING   0.85
#define TOLERANCE 1e-3

struct vertex {
    double rank;
    double share; /* of the rank, for each neighbour */
    uint32_t degree;
    uint32_t active;
};

static struct graph graph;
static struct vertex *vertices;

static double share_of(const struct vertex *v)
{
    return v->degree ? v->rank / v->degree : 0;
}

static void begin(uint64_t size)
{
    graph_make(&graph, size);
    vertices = subject_alloc(graph.vertices * sizeof *vertices);
    for (uint32_t i = 0; i < graph.vertices; i++) {
        struct vertex *v = &vertices[i];
        *v = (struct vertex){.rank = 1, .active = 1};
        v->degree = (uint32_t)(graph.first[i + 1] - graph.first[i]);
        v->share = share_of(v);
    }
}

static double wanted(uint32_t i)
{
    double sum = 0;
    for (uint64_t e = graph.first[i]; e < graph.first[i + 1]; e++)
        sum += vertices[graph.neighbours[e]].share;
    return 1 - DAMPING + DAMPING * sum;
}

static void step(unsigned step, unsigned steps)
{
    (void)step;
    (void)steps;
    for (uint32_t i = 0; i < graph.vertices; i++) {
        struct vertex *v = &vertices[i];
        if (!v->active)
            continue;
        v->active = 0;
        const double rank = wanted(i);
        if (fabs(rank - v->rank) <= TOLERANCE)
            continue;
        v->rank = rank;
        v->share = share_of(v);
        for (uint64_t e = graph.first[i]; e < graph.first[i + 1]; e++)
            vertices[graph.neighbours[e]].active = 1;
    }
}

/* Ranks are near what the neighbours' ranks make of them; at the mean, at least. */
static bool right(void)
{
    double off = 0;
    for (uint32_t i = 0; i < graph.vertices; i++)
        off += fabs(wanted(i) - vertices[i].rank);
    return off / graph.vertices < 10 * TOLERANCE;
}

const struct subject subject_pagerank = {"pagerank", begin, step, right};
