/* Runs a fuzz target without libFuzzer: every file of a corpus folder, then random and mutated
 * inputs from a seed until the time is over. By hand: NAME --seconds 36000 --seed 7 [CORPUS]. */
#include "base/clock.h"
#include "base/random.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX  65536u
#define CORPUS_MAX 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    uint8_t *data;
    size_t size;
};

static struct input corpus[CORPUS_MAX];
static unsigned corpus_count;

static void corpus_add(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_MAX);
    if (!f || !data || corpus_count == CORPUS_MAX) {
        free(data);
        if (f)
            fclose(f);
        return;
    }
    size_t n = fread(data, 1, INPUT_MAX, f);
    fclose(f);
    corpus[corpus_count++] = (struct input){data, n};
    LLVMFuzzerTestOneInput(data, n);
}

static void corpus_load(const char *folder)
{
    DIR *d = opendir(folder);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            corpus_add(path);
    }
    closedir(d);
}

/* A corpus entry with a few bytes changed, cut or repeated; or pure noise. */
static size_t make_input(struct tw_random *r, uint8_t *out)
{
    size_t size = tw_random_below(r, 2048);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)tw_random_next(r);
    if (corpus_count == 0 || tw_random_below(r, 8) == 0)
        return size;
    const struct input *from = &corpus[tw_random_below(r, corpus_count)];
    size = from->size;
    memcpy(out, from->data, size);
    for (uint64_t n = tw_random_below(r, 8) + 1; n && size; n--)
        out[tw_random_below(r, size)] = (uint8_t)tw_random_next(r);
    if (size && tw_random_below(r, 4) == 0)
        size = tw_random_below(r, size);
    return size;
}

int main(int argc, char **argv)
{
    uint64_t seconds = 3, runs = 0;
    struct tw_random random = {1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            random.state = strtoull(argv[++i], NULL, 10);
        else
            corpus_load(argv[i]);
    }
    uint8_t *input = malloc(INPUT_MAX);
    if (!input)
        return 1;
    uint64_t end = tw_now(&tw_monotonic) + seconds * TW_SEC;
    for (; tw_now(&tw_monotonic) < end; runs++) {
        /* An exact-size copy lets the address sanitizer see the first byte read too many. */
        size_t size = make_input(&random, input);
        uint8_t *exact = malloc(size ? size : 1);
        if (!exact)
            return 1;
        memcpy(exact, input, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%llu inputs, no failure\n", (unsigned long long)runs);
    for (unsigned i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    free(input);
    return 0;
}
