/* The note of a program that carries the runtime, in its executable. The file is the program's. */
#include "hosts/instrumented/note.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SEGMENTS_MAX 64u
#define NOTES_MAX    4096u /* bytes of one segment that are looked at */

/* Notes lie one behind the other: sizes, type, name and description in words of four bytes. */
static bool search(const uint8_t *bytes, size_t size)
{
    size_t at = 0;
    while (size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, bytes + at, sizeof note);
        at += sizeof note;
        const uint64_t name = ((uint64_t)note.n_namesz + 3) & ~UINT64_C(3);
        const uint64_t description = ((uint64_t)note.n_descsz + 3) & ~UINT64_C(3);
        if (name + description > size - at)
            return false;
        uint32_t version;
        if (note.n_type == TW_INST_NOTE_TYPE && note.n_namesz == sizeof TW_INST_NOTE_NAME &&
            note.n_descsz == sizeof version &&
            memcmp(bytes + at, TW_INST_NOTE_NAME, sizeof TW_INST_NOTE_NAME) == 0) {
            memcpy(&version, bytes + at + name, sizeof version);
            return version == TW_INST_VERSION;
        }
        at += (size_t)(name + description);
    }
    return false;
}

bool tw_inst_note_find(int fd)
{
    Elf64_Ehdr header;
    uint8_t notes[NOTES_MAX];
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
        return false;
    for (unsigned i = 0; i < header.e_phnum && i < SEGMENTS_MAX; i++) {
        Elf64_Phdr s;
        const uint64_t at = header.e_phoff + i * sizeof s;
        if (at > INT64_MAX || pread(fd, &s, sizeof s, (off_t)at) != (ssize_t)sizeof s)
            return false;
        if (s.p_type != PT_NOTE || s.p_offset > INT64_MAX)
            continue;
        const size_t size = s.p_filesz < sizeof notes ? (size_t)s.p_filesz : sizeof notes;
        const ssize_t got = pread(fd, notes, size, (off_t)s.p_offset);
        if (got > 0 && search(notes, (size_t)got))
            return true;
    }
    return false;
}

bool tw_instrumented_built(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const bool found = fd >= 0 && tw_inst_note_find(fd);
    if (fd >= 0)
        close(fd);
    return found;
}
