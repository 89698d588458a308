"""
Finds and repairs libraries that ask for an executable stack.

glibc 2.41 and later refuses to load them after the program has started ("cannot enable executable
stack as shared object requires"). torch 1.12's libtorch_cpu.so asks for one by mistake: one of its
assembler files lacks the note that says that it needs none. The request is one bit, `PF_X` in the
flags of the program header `PT_GNU_STACK`.

scripts/bootstrap.py loads this file by its path, so it must run on any Python from 3.6 on and
import nothing of this package.
"""

import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional

PT_GNU_STACK = 0x6474E551
PF_X = 1
# Formats and offsets of elf(5), 32 and 64 bits: e_phoff, e_phentsize (e_phnum follows), p_flags.
LAYOUTS = {1: ("<I", 28, 42, 24), 2: ("<Q", 32, 54, 4)}


def _stack_flags_offset(file: BinaryIO) -> Optional[int]:
    """The position of the flags of `PT_GNU_STACK`; `None` if `file` is no such ELF file."""
    header = file.read(64)
    if header[:4] != b"\x7fELF" or len(header) < 52 or header[5] != 1 or header[4] not in LAYOUTS:
        return None
    address, at_table, at_sizes, at_flags = LAYOUTS[header[4]]
    (table,) = struct.unpack_from(address, header, at_table)
    size, count = struct.unpack_from("<HH", header, at_sizes)
    for offset in range(table, table + size * count, size or 1):
        file.seek(offset)
        kind = file.read(4)
        if len(kind) == 4 and struct.unpack("<I", kind)[0] == PT_GNU_STACK:
            return offset + at_flags
    return None


def _read_flags(file: BinaryIO, offset: int) -> int:
    file.seek(offset)
    return int(struct.unpack("<I", file.read(4))[0])


def wants_executable_stack(library: Path) -> bool:
    """Whether `library` is an ELF file that glibc 2.41 and later refuses for its stack."""
    with open(str(library), "rb") as file:
        offset = _stack_flags_offset(file)
        return offset is not None and bool(_read_flags(file, offset) & PF_X)


def find(root: Path) -> Iterator[Path]:
    """The shared libraries below `root` that ask for an executable stack."""
    for library in sorted(root.rglob("*.so*")):
        try:
            if library.is_file() and not library.is_symlink() and wants_executable_stack(library):
                yield library
        except (OSError, ValueError):
            continue  # unreadable, or damaged


def clear(library: Path) -> None:
    """
    Clears the flag in a copy that then replaces `library`: an installer may have hard-linked the
    file to its cache, and other processes may have it mapped.
    """
    descriptor, copy = tempfile.mkstemp(dir=str(library.parent), prefix=library.name + ".")
    os.close(descriptor)
    try:
        shutil.copy2(str(library), copy)
        with open(copy, "r+b") as file:
            offset = _stack_flags_offset(file)
            if offset is not None:
                flags = _read_flags(file, offset)
                file.seek(offset)
                file.write(struct.pack("<I", flags & ~PF_X))
        os.replace(copy, str(library))
    except BaseException:
        os.unlink(copy)
        raise


def clear_all(root: Path) -> List[Path]:
    """Clears the flag of all libraries below `root`, and returns those that had it."""
    libraries = list(find(root))
    for library in libraries:
        clear(library)
    return libraries
