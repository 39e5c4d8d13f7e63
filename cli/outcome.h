/* Forecasts, reasons and audit entries in text. */
#ifndef TOWLINE_CLI_OUTCOME_H
#define TOWLINE_CLI_OUTCOME_H

#include "towline/v1/migration.pb-c.h"

#include <stdbool.h>
#include <stdio.h>

/* A table of reasons; nothing when there are none. */
void tow_reasons_print(Towline__V1__Reason *const *reasons, size_t count, bool color, FILE *out);

/* What was forecast beside what happened, with the error in per cent of that, once it has ended. */
void tow_forecast_print(const Towline__V1__Migration *migration, bool color, FILE *out);

void tow_audit_print(const Towline__V1__Migration *migration, bool color, FILE *out);

#endif
