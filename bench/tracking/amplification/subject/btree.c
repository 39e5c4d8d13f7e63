/* A B-tree of SIZE keys of 8 bytes with values of 8 bytes, in nodes of about 512 bytes. A step sets
 * a 50th of the keys, chosen at random; every fourth of them is new. */
#include "bench/tracking/amplification/subject/subject.h"

#include <string.h>

#define KEYS_MAX   31u /* odd */
#define STEP_SHARE 50u
#define NEW_EACH   4u

struct node {
    uint32_t count;
    bool leaf;
    uint64_t keys[KEYS_MAX];
    uint64_t values[KEYS_MAX];
    struct node *children[]; /* KEYS_MAX + 1; leaves have none */
};

static struct node *root;
static uint64_t keys, operations, per_step;

static struct node *node_new(bool leaf)
{
    struct node *node =
        subject_alloc(sizeof *node + (leaf ? 0 : (KEYS_MAX + 1) * sizeof(struct node *)));
    node->leaf = leaf;
    return node;
}

/* The first key that is not below `key`. */
static uint32_t find(const struct node *node, uint64_t key)
{
    uint32_t i = 0;
    while (i < node->count && node->keys[i] < key)
        i++;
    return i;
}

static void make_room(struct node *node, uint32_t at)
{
    const uint32_t behind = node->count - at;
    memmove(&node->keys[at + 1], &node->keys[at], behind * sizeof node->keys[0]);
    memmove(&node->values[at + 1], &node->values[at], behind * sizeof node->values[0]);
    if (!node->leaf)
        memmove(&node->children[at + 2], &node->children[at + 1],
                behind * sizeof node->children[0]);
    node->count++;
}

/* The full child `at` becomes two; its middle key goes up. */
static void split(struct node *parent, uint32_t at)
{
    const uint32_t half = KEYS_MAX / 2;
    struct node *low = parent->children[at], *high = node_new(low->leaf);
    high->count = half;
    memcpy(high->keys, &low->keys[half + 1], half * sizeof low->keys[0]);
    memcpy(high->values, &low->values[half + 1], half * sizeof low->values[0]);
    if (!low->leaf)
        memcpy(high->children, &low->children[half + 1], (half + 1) * sizeof low->children[0]);
    low->count = half;
    make_room(parent, at);
    parent->keys[at] = low->keys[half];
    parent->values[at] = low->values[half];
    parent->children[at + 1] = high;
}

static void set(uint64_t key, uint64_t value)
{
    if (root->count == KEYS_MAX) {
        struct node *top = node_new(false);
        top->children[0] = root;
        root = top;
        split(top, 0);
    }
    for (struct node *node = root;;) {
        uint32_t at = find(node, key);
        if (at < node->count && node->keys[at] == key) {
            node->values[at] = value;
            return;
        }
        if (node->leaf) {
            make_room(node, at);
            node->keys[at] = key;
            node->values[at] = value;
            return;
        }
        if (node->children[at]->count == KEYS_MAX) {
            split(node, at);
            if (node->keys[at] == key)
                continue; /* the key that went up is the one */
            at += node->keys[at] < key;
        }
        node = node->children[at];
    }
}

static void begin(uint64_t size)
{
    root = node_new(true);
    per_step = size / STEP_SHARE + 1;
    for (; keys < size; keys++)
        set(subject_scramble(keys), keys);
}

static void step(unsigned step, unsigned steps)
{
    (void)step;
    (void)steps;
    for (uint64_t i = 0; i < per_step; i++, operations++) {
        const bool fresh = operations % NEW_EACH == 0;
        const uint64_t number = fresh ? keys++ : subject_scramble(~operations) % keys;
        set(subject_scramble(number), subject_scramble(operations));
    }
}

/* Ascending, from above `*last` on; how many keys there are, or 0 when the order is wrong. */
static uint64_t walk(const struct node *node, uint64_t *last, uint64_t *seen)
{
    for (uint32_t i = 0; i <= node->count; i++) {
        if (!node->leaf && walk(node->children[i], last, seen) == 0)
            return 0;
        if (i == node->count)
            break;
        if (*seen > 0 && node->keys[i] <= *last)
            return 0;
        *last = node->keys[i];
        ++*seen;
    }
    return *seen;
}

static bool right(void)
{
    uint64_t last = 0, seen = 0;
    return walk(root, &last, &seen) == keys;
}

const struct subject subject_btree = {"btree", begin, step, right};
