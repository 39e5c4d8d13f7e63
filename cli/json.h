/* Any protobuf-c message as JSON, from its descriptor: the contract's field names, raw numbers
 * (the whole range of 64 bits), enumerations by lower-case name without prefix ("copying"), bytes
 * in hexadecimal, absent messages as null. Every field is written, also those that are 0. */
#ifndef TOWLINE_CLI_JSON_H
#define TOWLINE_CLI_JSON_H

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

enum tow_json_style { TOW_JSON_INDENTED, TOW_JSON_ONE_LINE };

/* Without a final line break. */
void tow_json_print(const ProtobufCMessage *message, enum tow_json_style style, FILE *out);

/* `text` in quotes, escaped; bytes that are not UTF-8 become U+FFFD. */
void tow_json_string(const char *text, FILE *out);

#define TOW_ENUM_TEXT 48
/* "copying" for MIGRATION_STATE_COPYING; "unknown 12" for a number that this build has no name
 * for. Returns `out`. */
const char *tow_enum_name(const ProtobufCEnumDescriptor *type, int value, char out[TOW_ENUM_TEXT]);

#endif
