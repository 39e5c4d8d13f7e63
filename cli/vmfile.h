/* A VM's YAML file. Errors carry file and line; unknown and repeated keys are errors. Paths are
 * those of the host's machine, so they are not looked at here, only made absolute. */
#ifndef TOWLINE_CLI_VMFILE_H
#define TOWLINE_CLI_VMFILE_H

#include "base/error.h"

#include "towline/v1/common.pb-c.h"

/* `name` stands in errors; relative paths are resolved against `folder`. The specification is
 * malloc'ed: towline__v1__vm_spec__free_unpacked. */
enum tw_code tow_vmfile_parse(const char *name, const char *folder, const char *text, size_t length,
                              Towline__V1__VmSpec **spec, struct tw_error *err);

/* The same from a file; "-" is standard input, whose paths are relative to the present folder. */
enum tw_code tow_vmfile_read(const char *path, Towline__V1__VmSpec **spec, struct tw_error *err);

#endif
