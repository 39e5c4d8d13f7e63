/* What `tow doctor` has found out, and how it is shown. */
#ifndef TOWLINE_CLI_DOCTOR_H
#define TOWLINE_CLI_DOCTOR_H

#include "cli/tow.h"
#include "hosts/probe/probe.h"

#define TOW_RESULTS_MAX 64u /* of one host; more are left out */

struct tow_diagnosis {
    char host[80]; /* empty: this machine */
    struct tw_probe_result results[TOW_RESULTS_MAX];
    size_t count;
};

/* As tables with what is to be mended below, or as JSON. The exit status by the worst verdict. */
int tow_diagnoses_print(struct tow *tow, const struct tow_diagnosis *diagnoses, size_t count);

#endif
