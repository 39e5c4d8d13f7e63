/* Any bytes as a hello, and any file as an executable with a note. */
#include "hosts/instrumented/note.h"
#include "hosts/instrumented/server.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_hello(const uint8_t *data, size_t size)
{
    struct tw_inst_hello hello;
    struct tw_error err;
    uint8_t *copy = malloc(size ? size : 1); /* of its own, so that a step beyond it is seen */
    if (!copy)
        return;
    memcpy(copy, data, size);
    if (tw_inst_hello_check(copy, size, &hello, &err) == TW_OK &&
        (size != sizeof hello || hello.magic != TW_INST_MAGIC))
        abort();
    free(copy);
}

static void try_file(const uint8_t *data, size_t size, bool shaped)
{
    static const Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64}, .e_phoff = 64, .e_phnum = 1};
    const Elf64_Phdr segment = {
        .p_type = PT_NOTE, .p_offset = sizeof header + sizeof segment, .p_filesz = size};
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0)
        return;
    bool written = !shaped || (write(fd, &header, sizeof header) == sizeof header &&
                               write(fd, &segment, sizeof segment) == sizeof segment);
    written = written && write(fd, data, size) == (ssize_t)size;
    /* Nobody finds the whole note by chance. */
    if (written && tw_inst_note_find(fd) &&
        !memmem(data, size, TW_INST_NOTE_NAME, sizeof TW_INST_NOTE_NAME))
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_hello(data, size);
    try_file(data, size, false);
    try_file(data, size, true);
    return 0;
}
