#include "cli/json.h"

#include "cli/format.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

struct writer {
    FILE *out;
    bool indented;
    unsigned depth;
};

/* ---- Enumerations --------------------------------------------------------------------------- */

/* Length of "MIGRATION_STATE_" in front of `name`, from the type's "MigrationState"; 0 when the
 * name does not begin so. */
static size_t prefix_length(const char *type, const char *name)
{
    size_t n = 0;
    for (const char *t = type; *t; t++) {
        if (t != type && isupper((unsigned char)*t) && name[n++] != '_')
            return 0;
        if (name[n++] != toupper((unsigned char)*t))
            return 0;
    }
    return name[n] == '_' && name[n + 1] ? n + 1 : 0;
}

const char *tow_enum_name(const ProtobufCEnumDescriptor *type, int value, char out[TOW_ENUM_TEXT])
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(type, value);
    if (!found) {
        snprintf(out, TOW_ENUM_TEXT, "unknown %d", value);
        return out;
    }
    snprintf(out, TOW_ENUM_TEXT, "%s", found->name + prefix_length(type->short_name, found->name));
    for (char *p = out; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return out;
}

/* ---- Values --------------------------------------------------------------------------------- */

void tow_json_string(const char *text, FILE *out)
{
    fputc('"', out);
    while (*text) {
        unsigned char c = (unsigned char)*text;
        size_t length = tow_utf8_length(text);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", out);
        else if (c == '\t')
            fputs("\\t", out);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else if (c == 0xc2 && (unsigned char)text[1] < 0xa0) /* controls too, for a terminal */
            fprintf(out, "\\u%04x", (unsigned char)text[1]);
        else
            fwrite(text, 1, length, out);
        text += length ? length : 1;
    }
    fputc('"', out);
}

static void write_bytes(const ProtobufCBinaryData *bytes, FILE *out)
{
    fputc('"', out);
    for (size_t i = 0; i < bytes->len; i++)
        fprintf(out, "%02x", bytes->data[i]);
    fputc('"', out);
}

static void write_real(double value, FILE *out)
{
    if (value - value != 0) /* not finite: JSON has no such number */
        fputs("null", out);
    else
        fprintf(out, "%.17g", value);
}

static void write_message(struct writer *w, const ProtobufCMessage *message);

static void write_value(struct writer *w, const ProtobufCFieldDescriptor *field, const void *value)
{
    char name[TOW_ENUM_TEXT];
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        fprintf(w->out, "%" PRId32, *(const int32_t *)value);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        fprintf(w->out, "%" PRId64, *(const int64_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        fprintf(w->out, "%" PRIu32, *(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        fprintf(w->out, "%" PRIu64, *(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        write_real((double)*(const float *)value, w->out);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        write_real(*(const double *)value, w->out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        fputs(*(const protobuf_c_boolean *)value ? "true" : "false", w->out);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        tow_json_string(tow_enum_name(field->descriptor, *(const int *)value, name), w->out);
        break;
    case PROTOBUF_C_TYPE_STRING:
        tow_json_string(*(char *const *)value ? *(char *const *)value : "", w->out);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        write_bytes(value, w->out);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        write_message(w, *(const ProtobufCMessage *const *)value);
        break;
    }
}

/* ---- Shape ---------------------------------------------------------------------------------- */

static void line_break(struct writer *w)
{
    if (!w->indented)
        return;
    fputc('\n', w->out);
    for (unsigned i = 0; i < w->depth; i++)
        fputs("  ", w->out);
}

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void write_repeated(struct writer *w, const ProtobufCFieldDescriptor *field,
                           const ProtobufCMessage *message)
{
    size_t count = *(const size_t *)((const char *)message + field->quantifier_offset);
    const char *items = *(char *const *)((const char *)message + field->offset);
    fputc('[', w->out);
    w->depth++;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            fputs(w->indented ? "," : ", ", w->out);
        line_break(w);
        write_value(w, field, items + i * element_size(field->type));
    }
    w->depth--;
    if (count > 0)
        line_break(w);
    fputc(']', w->out);
}

static void write_message(struct writer *w, const ProtobufCMessage *message)
{
    if (!message) {
        fputs("null", w->out);
        return;
    }
    const ProtobufCMessageDescriptor *type = message->descriptor;
    fputc('{', w->out);
    w->depth++;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (i > 0)
            fputs(w->indented ? "," : ", ", w->out);
        line_break(w);
        tow_json_string(field->name, w->out);
        fputs(": ", w->out);
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            write_repeated(w, field, message);
        else
            write_value(w, field, (const char *)message + field->offset);
    }
    w->depth--;
    if (type->n_fields > 0)
        line_break(w);
    fputc('}', w->out);
}

void tow_json_print(const ProtobufCMessage *message, enum tow_json_style style, FILE *out)
{
    struct writer w = {.out = out, .indented = style == TOW_JSON_INDENTED};
    write_message(&w, message);
}
