/* A build step: reads the contract as protoc-c's --descriptor_set_out wrote it, and prints who may
 * call what, as the C table of access.h or as the table of docs/security.md.
 *
 *   access_table c|markdown FILE
 *
 * Fails, and with it the build, when a method lacks the option or the option makes no sense. */
#include "google/protobuf/descriptor.pb-c.h"
#include "towline/v1/access.pb-c.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTION_TAG 50700u
#define BYTES_MAX  (4u << 20)
#define ROLE_MAX   4u

static const char *const role_names[ROLE_MAX + 1] = {"", "operator", "viewer", "controller",
                                                     "agent"};

struct method {
    const char *package;
    const char *service;
    const char *name;
    uint32_t roles;
    const char *self;
};

static int fail(const struct method *m, const char *why)
{
    fprintf(stderr, "access_table: %s.%s/%s: %s\n", m->package, m->service, m->name, why);
    return 1;
}

/* protobuf-c keeps an option that it does not know as raw bytes, a length first. */
static Towline__V1__Access *option_read(const Google__Protobuf__MethodOptions *options)
{
    for (unsigned i = 0; options && i < options->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &options->base.unknown_fields[i];
        size_t skip = 0;
        if (field->tag != OPTION_TAG || field->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
            continue;
        while (skip < field->len && field->data[skip] & 0x80)
            skip++;
        if (skip < field->len)
            return towline__v1__access__unpack(NULL, field->len - skip - 1, field->data + skip + 1);
    }
    return NULL;
}

static void print_c(const struct method *m)
{
    printf("    {\"%s.%s\", \"%s\", 0x%xu, ", m->package, m->service, m->name, m->roles);
    if (m->self[0])
        printf("\"%s\"},\n", m->self);
    else
        printf("NULL},\n");
}

static void print_markdown(const struct method *m)
{
    printf("| `%s/%s` |", m->service, m->name);
    for (unsigned role = 1; role <= ROLE_MAX; role++)
        printf(" %s |", !(m->roles & (1u << role)) ? "" : m->self[0] ? "as itself" : "yes");
    printf("\n");
}

static int method_print(struct method *m, const Google__Protobuf__MethodDescriptorProto *method,
                        bool markdown)
{
    Towline__V1__Access *access = option_read(method->options);
    m->name = method->name;
    m->roles = 0;
    if (!access)
        return fail(m, "no option (access): say who may call it");
    for (size_t i = 0; i < access->n_roles; i++) {
        if (access->roles[i] < 1 || access->roles[i] > (int)ROLE_MAX)
            return fail(m, "a role that does not exist");
        m->roles |= 1u << access->roles[i];
    }
    if (!m->roles)
        return fail(m, "nobody may call it");
    m->self = access->self;
    if (markdown)
        print_markdown(m);
    else
        print_c(m);
    towline__v1__access__free_unpacked(access, NULL);
    return 0;
}

static int all_print(const Google__Protobuf__FileDescriptorSet *set, bool markdown)
{
    for (size_t f = 0; f < set->n_file; f++) {
        const Google__Protobuf__FileDescriptorProto *file = set->file[f];
        for (size_t s = 0; s < file->n_service; s++) {
            struct method m = {.package = file->package, .service = file->service[s]->name};
            for (size_t i = 0; i < file->service[s]->n_method; i++)
                if (method_print(&m, file->service[s]->method[i], markdown) != 0)
                    return 1;
        }
    }
    return 0;
}

static int table_print(const Google__Protobuf__FileDescriptorSet *set, bool markdown)
{
    if (markdown) {
        printf("| method |");
        for (unsigned role = 1; role <= ROLE_MAX; role++)
            printf(" %s |", role_names[role]);
        printf("\n|---|---|---|---|---|\n");
        return all_print(set, markdown);
    }
    printf("#include \"proto/access.h\"\n\nconst struct tw_access tw_access_table[] = {\n");
    if (all_print(set, markdown) != 0)
        return 1;
    printf(
        "};\nconst size_t tw_access_count = sizeof tw_access_table / sizeof *tw_access_table;\n");
    return 0;
}

int main(int argc, char **argv)
{
    bool markdown = argc == 3 && strcmp(argv[1], "markdown") == 0;
    if (argc != 3 || (!markdown && strcmp(argv[1], "c") != 0)) {
        fprintf(stderr, "usage: access_table c|markdown FILE\n");
        return 2;
    }
    uint8_t *bytes = malloc(BYTES_MAX);
    FILE *file = fopen(argv[2], "rb");
    size_t size = bytes && file ? fread(bytes, 1, BYTES_MAX, file) : 0;
    if (file)
        fclose(file);
    Google__Protobuf__FileDescriptorSet *set =
        size > 0 && size < BYTES_MAX
            ? google__protobuf__file_descriptor_set__unpack(NULL, size, bytes)
            : NULL;
    free(bytes);
    if (!set) {
        fprintf(stderr, "access_table: %s cannot be read\n", argv[2]);
        return 1;
    }
    int status = table_print(set, markdown);
    google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
    return status;
}
