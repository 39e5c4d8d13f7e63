/* Counts of RPC calls and the page /metrics (Prometheus text). Thread-safe. */
#ifndef TOWLINE_CONTROLLER_METRICS_H
#define TOWLINE_CONTROLLER_METRICS_H

#include "controller/catalogue.h"
#include "controller/migrations.h"
#include "controller/store.h"

#include <stdatomic.h>
#include <stdio.h>

#define TW_METHODS_MAX 32u
#define TW_CODES       17u

struct tw_call_counts {
    struct {
        const char *method; /* a literal: "VmService/Create" */
        _Atomic uint64_t calls[TW_CODES];
    } methods[TW_METHODS_MAX];
};

/* `method` must be one of those that were listed at the start. */
void tw_call_count(struct tw_call_counts *counts, const char *method, enum tw_code code);

struct tw_metrics_sources {
    struct tw_store *store;
    struct tw_catalogue *catalogue;
    struct tw_migrations *migrations;
    const struct tw_call_counts *counts;
    uint64_t started_unix_ms;
    struct tw_tls *tls; /* NULL = none */
};
void tw_metrics_print(const struct tw_metrics_sources *sources, FILE *out);

#endif
