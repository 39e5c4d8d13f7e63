/* Label propagation in an R-MAT graph of SIZE vertices. A step is a round over the vertices, in
 * which each takes the label that most of its neighbours have, the smallest of several. */
#include "bench/tracking/amplification/subject/graph.h"
#include "bench/tracking/amplification/subject/subject.h"

static struct graph graph;
static uint32_t *labels;
static uint32_t *votes; /* by label; zeros between vertices */

static void begin(uint64_t size)
{
    graph_make(&graph, size);
    labels = subject_alloc(graph.vertices * sizeof *labels);
    votes = subject_alloc(graph.vertices * sizeof *votes);
    for (uint32_t i = 0; i < graph.vertices; i++)
        labels[i] = i;
}

static uint32_t elect(uint32_t i)
{
    uint32_t best = labels[i], most = 0;
    for (uint64_t e = graph.first[i]; e < graph.first[i + 1]; e++) {
        const uint32_t label = labels[graph.neighbours[e]], count = ++votes[label];
        if (count > most || (count == most && label < best)) {
            best = label;
            most = count;
        }
    }
    for (uint64_t e = graph.first[i]; e < graph.first[i + 1]; e++)
        votes[labels[graph.neighbours[e]]] = 0;
    return best;
}

static void step(unsigned step, unsigned steps)
{
    (void)step;
    (void)steps;
    for (uint32_t i = 0; i < graph.vertices; i++) {
        const uint32_t label = elect(i);
        if (label != labels[i])
            labels[i] = label;
    }
}

/* Most vertices share their label with others, and no label was made up. */
static bool right(void)
{
    uint32_t used = 0, lone = 0;
    for (uint32_t i = 0; i < graph.vertices; i++) {
        if (labels[i] >= graph.vertices)
            return false;
        used += votes[labels[i]]++ == 0;
        lone += graph.first[i] == graph.first[i + 1];
    }
    return used < lone + (graph.vertices - lone) / 2;
}

const struct subject subject_labels = {"labels", begin, step, right};
