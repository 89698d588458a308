"""Archives that are broken, or that try to write where they should not."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections import Counter
from random import Random

import pytest
import torch

from allennlp_parallel_predict.common.errors import ArchiveError
from allennlp_parallel_predict.models.archives import load_predictor, unpacked
from allennlp_parallel_predict.models.extraction import MAX_BYTES
from allennlp_parallel_predict.models.weights import TRUST
from tests.endurance.fuzz import fuzz_archive
from tests.support.faults import command, faulty_archive

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a good archive in it, and a temporary folder that must be empty at the end."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    faulty_archive(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*") if "bad" not in path.name)
    yield tmp_path
    assert sorted(str(path) for path in tmp_path.rglob("*") if "bad" not in path.name) == before


def explanation_of(archive):
    with pytest.raises(Exception) as caught:
        load_predictor(str(archive), "faulty")
    return caught.value.explanation


def rebuilt(place, change, name="bad.tar.gz"):
    """An archive whose members `change` has changed."""
    with tarfile.open(place / "faulty.tar.gz") as good:
        members = {m.name: (m, good.extractfile(m).read() if m.isfile() else b"") for m in good}
    change(members)
    with tarfile.open(place / name, "w:gz") as bad:
        for member, content in members.values():
            if member.isfile():
                member.size = len(content)
            bad.addfile(member, io.BytesIO(content))
    return place / name


def added(name, content=b"evil", **attributes):
    def change(members):
        member = tarfile.TarInfo(name)
        for key, value in attributes.items():
            setattr(member, key, value)
        members[name, len(members)] = member, content

    return change


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


class TestBroken:
    def test_a_good_one(self, place):
        predictor = load_predictor(str(place / "faulty.tar.gz"), "faulty")
        assert predictor.predict_json({"n": 1})["n"] == 1

    @pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
    def test_truncated(self, place, part):
        content = (place / "faulty.tar.gz").read_bytes()
        (place / "bad.tar.gz").write_bytes(content[: int(len(content) * part)])
        assert "cannot load the archive" in explanation_of(place / "bad.tar.gz")

    @pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
    def test_damaged(self, place, part):
        content = bytearray((place / "faulty.tar.gz").read_bytes())
        start = int(len(content) * part)
        content[start : start + 16] = b"\xa5" * 16
        (place / "bad.tar.gz").write_bytes(content)
        assert "cannot load the archive" in explanation_of(place / "bad.tar.gz")

    @pytest.mark.parametrize("content", [b"no archive at all", b"\0" * 10_000, b"PK\3\4"])
    def test_not_a_tar(self, place, content):
        (place / "bad.tar.gz").write_bytes(content)
        assert "cannot load the archive" in explanation_of(place / "bad.tar.gz")

    def test_no_such_file(self, place):
        assert "nowhere.tar.gz" in explanation_of(place / "nowhere.tar.gz")

    @pytest.mark.parametrize(
        "name, message", [("config.json", "no config.json"), ("weights.th", "no weights")]
    )
    def test_something_is_missing(self, place, name, message):
        assert message in explanation_of(rebuilt(place, lambda members: members.pop(name)))
        folder = place / "bad folder"
        (place / "content").rename(folder)
        (folder / name).rename(place / "bad aside")
        try:
            assert message in explanation_of(folder)
        finally:
            (place / "bad aside").rename(folder / name)
            folder.rename(place / "content")

    @pytest.mark.parametrize(
        "name, content",
        [
            ("config.json", b"{not jsonnet"),
            ("config.json", b"\xff\xfe"),
            (
                "config.json",
                b'{"model": {"type": "nonesuch"}, "dataset_reader": {"type": "faulty"}}',
            ),
            ("weights.th", b"no weights"),
            ("weights.th", b""),
        ],
    )
    def test_content_that_cannot_be_read(self, place, name, content):
        def change(members):
            members[name] = members[name][0], content

        assert "cannot load the archive" in explanation_of(rebuilt(place, change))

    @pytest.mark.parametrize("overrides", ['{"dataset_reader": "faulty"}', '{"model": null}'])
    def test_a_section_of_the_wrong_kind(self, place, overrides):
        with pytest.raises((AttributeError, TypeError)) as caught:
            load_predictor(str(place / "faulty.tar.gz"), "faulty", overrides=overrides)
        (section, value), *_ = json.loads(overrides).items()
        message = f"faulty.tar.gz: {section} must be an object with a type, but it is {value!r}"
        assert message in caught.value.explanation

    def test_weights_that_do_not_fit(self, place):
        def change(members):
            file = io.BytesIO()
            torch.save({"weight": torch.zeros(9), "seen": torch.zeros(1)}, file)
            members["weights.th"] = members["weights.th"][0], file.getvalue()

        assert "size mismatch" in explanation_of(rebuilt(place, change))


class TestEndOfTheStream:
    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content[:-8] + b"\0\0\0\0" + content[-4:],  # the checksum
            lambda content: content[:-4] + b"\0\0\0\0",  # the length
            lambda content: content[:-1],
            lambda content: content + b"garbage",
            lambda content: content + content[: len(content) // 2],
        ],
    )
    def test_a_bad_end(self, place, change):
        (place / "bad.tar.gz").write_bytes(change((place / "faulty.tar.gz").read_bytes()))
        with pytest.raises((OSError, EOFError)):
            with unpacked(str(place / "bad.tar.gz")):
                pass

    @pytest.mark.parametrize("more", [b"\0" * 600, gzip.compress(b"more")], ids=["zeros", "member"])
    def test_a_long_end(self, place, more):
        (place / "bad.tar.gz").write_bytes((place / "faulty.tar.gz").read_bytes() + more)
        with unpacked(str(place / "bad.tar.gz")) as folder:
            assert "weights.th" in os.listdir(folder)


class TestHostile:
    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "vocabulary/../../e"])
    def test_paths_that_leave_the_folder(self, place, name):
        assert "would leave its folder" in explanation_of(rebuilt(place, added(name)))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    @pytest.mark.parametrize("target", ["../evil", "/etc/passwd"])
    def test_links_that_leave_the_folder(self, place, kind, target):
        change = added("link", b"", type=kind, linkname=target)
        assert "would leave its folder" in explanation_of(rebuilt(place, change))

    def test_through_a_link(self, place):
        """Each member is harmless until those before it are there."""

        def change(members):
            added("a", b"", type=tarfile.DIRTYPE, mode=0o755)(members)
            added("a/up", b"", type=tarfile.SYMTYPE, linkname="..")(members)
            added("a/up/up", b"", type=tarfile.SYMTYPE, linkname="..")(members)
            added("a/up/up/evil")(members)

        assert "would leave its folder" in explanation_of(rebuilt(place, change))

    @pytest.mark.parametrize(
        "links",
        [
            [("l", "c/.."), ("c", ".")],
            [("l", "c/../.."), ("c", ".")],
            [("s", "a/b"), ("l", "s/../..")],
            [("a/b/l", "../../.."), ("c", "a")],
        ],
    )
    def test_links_that_leave_it_once_others_are_there(self, place, links):
        def change(members):
            for folder in ("a", "a/b"):
                added(folder, b"", type=tarfile.DIRTYPE, mode=0o755)(members)
            for name, target in links:
                added(name, b"", type=tarfile.SYMTYPE, linkname=target)(members)

        assert "would leave its folder" in explanation_of(rebuilt(place, change))

    @pytest.mark.parametrize("target", ["a/dangling", "nothing", "a", "loop"])
    def test_hard_links_to_what_is_no_file(self, place, target):
        """Python would extract a dangling link once more, where it leads somewhere else."""

        def change(members):
            added("a", b"", type=tarfile.DIRTYPE, mode=0o755)(members)
            added("a/dangling", b"", type=tarfile.SYMTYPE, linkname="../later")(members)
            added("loop", b"", type=tarfile.SYMTYPE, linkname="loop")(members)
            added("hard", b"", type=tarfile.LNKTYPE, linkname=target)(members)

        assert "would leave its folder" in explanation_of(rebuilt(place, change))

    @pytest.mark.parametrize("name", ["x" * 10_000, "x/" * 5_000 + "x", "nul\0byte", "x" * 300])
    @pytest.mark.parametrize("is_link", [False, True])
    def test_names_that_no_file_can_have(self, place, name, is_link):
        change = added(name)
        if is_link:
            change = added("link", b"", type=tarfile.SYMTYPE, linkname=name)

        def with_pax(members):
            change(members)
            member = list(members.values())[-1][0]
            member.pax_headers = {"linkpath" if is_link else "path": name}

        message = explanation_of(rebuilt(place, with_pax))
        assert "no file can have" in message and len(message) < 500

    def test_a_bomb(self, place, monkeypatch):
        archive = rebuilt(place, added("zeros", b"\0" * 3_000_000))
        load_predictor(str(archive), "faulty")
        monkeypatch.setenv(MAX_BYTES, "2000000")
        message = explanation_of(archive)
        assert "larger than 2,000,000 bytes" in message and MAX_BYTES in message
        monkeypatch.setenv(MAX_BYTES, "a lot")
        assert "must be a number" in explanation_of(archive)

    def test_a_sparse_member(self, place):
        """A few bytes that say that they are 100 TB."""
        sparse = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(10**14)}
        sparse.update({"GNU.sparse.map": "0,0", "GNU.sparse.name": "big"})
        archive = rebuilt(place, added("big", b"", pax_headers=sparse))
        assert "bytes when unpacked" in explanation_of(archive)

    def test_a_header_without_end(self, place):
        header = tarfile.TarInfo("PaxHeader")
        header.type, header.size = tarfile.XHDTYPE, 1 << 40
        with gzip.open(place / "bad.tar.gz", "wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_000)
        assert "a header of" in explanation_of(place / "bad.tar.gz")

    def test_weights_that_would_run_code(self, place):
        def change(members):
            file = io.BytesIO()
            torch.save({"weight": Evil()}, file)
            members["weights.th"] = members["weights.th"][0], file.getvalue()

        message = explanation_of(rebuilt(place, change))
        assert "os.mkdir" in message or "posix.mkdir" in message
        assert TRUST in message and not os.path.exists("evil")

    @pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
    def test_devices(self, place, kind):
        assert "neither a file nor" in explanation_of(rebuilt(place, added("x", b"", type=kind)))

    def test_modes(self, place):
        """Nothing with special rights, and nothing that cannot be removed."""
        archive = rebuilt(place, added("setuid", mode=0o6777))
        rebuilt(place, added("closed", b"", type=tarfile.DIRTYPE, mode=0), "bad2.tar.gz")
        with unpacked(str(archive)) as folder:
            assert not os.stat(os.path.join(folder, "setuid")).st_mode & stat.S_ISUID
        load_predictor(str(place / "bad2.tar.gz"), "faulty")

    def test_links_inside_are_kept(self, place):
        archive = rebuilt(place, added("link", b"", type=tarfile.SYMTYPE, linkname="config.json"))
        with unpacked(str(archive)) as folder:
            assert json.load(open(os.path.join(folder, "link")))["model"]["type"] == "faulty"

    def test_the_command_writes_nothing(self, place):
        archive = rebuilt(place, added("../evil"))
        (place / "bad input").write_text('{"n": 1}\n')
        (place / "bad run").mkdir()
        flags = ["--output-file", place / "output"]
        with command(archive, place / "bad input", *flags, folder=place / "bad run") as running:
            assert running.wait() == 1
        assert "'../evil', which would leave its folder" in running.stderr
        assert "Traceback" not in running.stderr
        for path in (place / "bad run").iterdir():
            path.rename(place / f"bad {path.name}")


def test_the_error_is_a_configuration_error(place):
    with pytest.raises(ArchiveError):
        load_predictor(str(rebuilt(place, added("../evil"))))


FUZZED = 300


def test_fuzzed_archives_are_refused_or_loaded(place):
    """The short form of `tests/endurance/fuzz.py`."""
    archive, random, counts = (place / "faulty.tar.gz").read_bytes(), Random(7), Counter()
    for _ in range(FUZZED):
        counts[fuzz_archive(archive, random, place / "bad.tar.gz")] += 1
    print(dict(counts))
    assert counts["loaded"] + counts["refused"] == FUZZED and min(counts.values()) > 10


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE"])
def test_the_temporary_folder_goes_also_where_little_is_allowed(place, limit):
    code = """
import os, resource, sys, tempfile
from allennlp_parallel_predict.models.archives import load_predictor
import tests.fixtures.faulty_predictors
from tests.support.faults import faulty_archive
kind, archive = getattr(resource, sys.argv[1]), sys.argv[2]
os.setuid(65534)  # root may start more processes than allowed
resource.setrlimit(kind, (int(sys.argv[3]),) * 2)
try:
    load_predictor(archive, "faulty")
    print("loaded")
except Exception as error:
    print(error.explanation)
"""
    value = {"RLIMIT_NOFILE": "6", "RLIMIT_NPROC": "0", "RLIMIT_FSIZE": "100"}[limit]
    (place / "tmp").chmod(0o777)
    place.chmod(0o755)
    if limit == "RLIMIT_NPROC" and os.getuid():
        pytest.skip("needs root, to become a user without processes")
    if os.getuid():
        code = code.replace("os.setuid", "#")
    ran = subprocess.run(
        [sys.executable, "-c", code, limit, str(place / "faulty.tar.gz"), value],
        env={**os.environ, "TMPDIR": str(place / "tmp"), "HOME": str(place / "tmp")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ran.returncode == 0 and ran.stdout.strip()
    assert [path for path in (place / "tmp").iterdir() if path.name.startswith("tmp")] == []
    for path in (place / "tmp").iterdir():
        path.rename(place / f"bad {path.name}")  # what AllenNLP keeps in a home
