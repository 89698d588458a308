"""Archives that are broken, or that try to write where they should not."""

import gzip
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
import torch

from allennlp_parallel_predict.models import archives
from allennlp_parallel_predict.models.archives import ArchiveError, load_predictor, unpacked
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

    def test_weights_that_do_not_fit(self, place):
        def change(members):
            file = io.BytesIO()
            torch.save({"weight": torch.zeros(9), "seen": torch.zeros(1)}, file)
            members["weights.th"] = members["weights.th"][0], file.getvalue()

        assert "size mismatch" in explanation_of(rebuilt(place, change))


class TestFasterGzip:
    """It is used where it is there, and only for what Python's own can read."""

    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("isal")

    @staticmethod
    def outcomes(archive, monkeypatch):
        found = []
        for module in (archives.igzip, None):
            monkeypatch.setattr(archives, "igzip", module)
            try:
                with unpacked(str(archive)) as folder:
                    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
                    files = {path.relative_to(folder): path.read_bytes() for path in paths}
                    found.append((Path(folder).name, files))
            except Exception as error:
                found.append((type(error), str(error)))
        return found

    def test_a_good_archive(self, place, monkeypatch):
        (faster, files), (plain, same_files) = self.outcomes(place / "faulty.tar.gz", monkeypatch)
        assert (faster, plain) == ("archive", "archive-by-gzip")
        assert files == same_files and Path("weights.th") in files

    def test_what_it_had_extracted_goes_when_it_fails(self, place, monkeypatch):
        extract, folders = archives._extract, []

        def fail_once(archive, folder):
            extract(archive, folder)
            folders.append(folder)
            if len(folders) == 1:
                raise OSError

        monkeypatch.setattr(archives, "_extract", fail_once)
        with unpacked(str(place / "faulty.tar.gz")) as folder:
            assert os.listdir(Path(folder).parent) == ["archive-by-gzip"]

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
    def test_a_bad_end(self, place, monkeypatch, change):
        (place / "bad.tar.gz").write_bytes(change((place / "faulty.tar.gz").read_bytes()))
        faster, plain = self.outcomes(place / "bad.tar.gz", monkeypatch)
        assert faster == plain
        assert issubclass(plain[0], (OSError, EOFError))

    @pytest.mark.parametrize("more", [b"\0" * 600, gzip.compress(b"more")], ids=["zeros", "member"])
    def test_a_long_end(self, place, monkeypatch, more):
        (place / "bad.tar.gz").write_bytes((place / "faulty.tar.gz").read_bytes() + more)
        (_, files), (_, same_files) = self.outcomes(place / "bad.tar.gz", monkeypatch)
        assert files == same_files


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
