"""
The dynamic loader is the judge: a library with the flag makes the stack of the process executable
before glibc 2.41, and fails to load from then on.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from allennlp_parallel_predict.doctor import executable_stack

LOAD = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])
[stack] = [line for line in open("/proc/self/maps") if line.rstrip().endswith("[stack]")]
sys.exit("the stack is executable" if "x" in stack.split()[1] else 0)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF and /proc are Linux's")


def loads(library: Path) -> bool:
    return subprocess.run([sys.executable, "-c", LOAD, str(library)]).returncode == 0


def ask_for_executable_stack(library: Path) -> None:
    """Sets the flag by reading the 64-bit program headers with offsets written out here."""
    content = bytearray(library.read_bytes())
    (table,) = struct.unpack_from("<Q", content, 0x20)
    size, count = struct.unpack_from("<HH", content, 0x36)
    [stack] = [
        table + size * index
        for index in range(count)
        if struct.unpack_from("<I", content, table + size * index)[0] == 0x6474E551
    ]
    (flags,) = struct.unpack_from("<I", content, stack + 4)
    struct.pack_into("<I", content, stack + 4, flags | 1)
    library.write_bytes(content)


@pytest.fixture
def library(tmp_path):
    [original] = Path(orjson.__file__).parent.glob("*.so")
    library = tmp_path / "lib" / "library.so.1"
    library.parent.mkdir()
    library.write_bytes(original.read_bytes())
    library.chmod(0o755)
    return library


def test_clears_the_flag_that_the_loader_refuses(library):
    assert loads(library) and list(executable_stack.find(library.parent)) == []
    ask_for_executable_stack(library)
    assert not loads(library)
    assert executable_stack.clear_all(library.parent.parent) == [library]
    assert loads(library)
    assert library.stat().st_mode & 0o777 == 0o755
    assert os.listdir(str(library.parent)) == [library.name]


def test_leaves_the_installers_cache_as_it_is(library, tmp_path):
    ask_for_executable_stack(library)
    cached = tmp_path / "cached"
    os.link(str(library), str(cached))
    before = cached.read_bytes()
    executable_stack.clear_all(library.parent)
    assert cached.read_bytes() == before
    assert library.read_bytes() != before


def test_reads_the_headers_of_32_bits(tmp_path):
    # ELF32: e_phoff at 28, e_phentsize and e_phnum at 42; p_flags is the seventh word.
    library = tmp_path / "small.so"
    header = bytearray(52)
    header[:6] = b"\x7fELF\x01\x01"
    struct.pack_into("<I", header, 28, 52)
    struct.pack_into("<HH", header, 42, 32, 2)
    load = struct.pack("<8I", 1, 0, 0, 0, 0, 0, 5, 0)
    library.write_bytes(bytes(header) + load + struct.pack("<8I", 0x6474E551, 0, 0, 0, 0, 0, 7, 16))
    assert executable_stack.clear_all(tmp_path) == [library]
    assert library.read_bytes() == bytes(header) + load + struct.pack(
        "<8I", 0x6474E551, 0, 0, 0, 0, 0, 6, 16
    )


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 70, b"!" * 99])
def test_passes_over_other_files(tmp_path, content):
    (tmp_path / "other.so").write_bytes(content)
    (tmp_path / "link.so").symlink_to("nowhere")
    assert executable_stack.clear_all(tmp_path) == []
