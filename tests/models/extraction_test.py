"""What an archive may hold; whole archives are in archives_test."""

import io
import os
import tarfile

import pytest

from allennlp_parallel_predict.common.errors import ArchiveError
from allennlp_parallel_predict.models.extraction import MAX_BYTES, max_bytes, unpacked


def archive_of(folder, *members):
    with tarfile.open(folder / "archive.tar.gz", "w:gz") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"text"))
    return str(folder / "archive.tar.gz")


FILE, FOLDER, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE


def test_it_is_there_for_a_while(tmp_path):
    archive = archive_of(tmp_path, ("a", FOLDER, ""), ("a/b", FILE, ""), ("c", LINK, "a/b"))
    with unpacked(archive) as folder:
        assert sorted(os.listdir(folder)) == ["a", "c"]
        assert open(os.path.join(folder, "c")).read() == "text"
    assert not os.path.exists(folder)


def test_a_folder_is_taken_as_it_is(tmp_path):
    with unpacked(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "members",
    [
        [("../x", FILE, "")],
        [("/x", FILE, "")],
        [("a/../../x", FILE, "")],
        [("x", LINK, "..")],
        [("x", LINK, "/etc")],
        [("a", LINK, "b"), ("a/x", FILE, "")],
        [("x", tarfile.LNKTYPE, "nothing")],
    ],
    ids=str,
)
def test_nothing_leaves_the_folder(tmp_path, members):
    with pytest.raises(ArchiveError, match="would leave its folder"):
        with unpacked(archive_of(tmp_path, *members)):
            pass
    assert os.listdir(tmp_path) == ["archive.tar.gz"]


def test_how_large_it_may_be(tmp_path, monkeypatch):
    monkeypatch.delenv(MAX_BYTES, raising=False)
    assert max_bytes() == 64 << 30
    archive = archive_of(tmp_path, ("x", FILE, ""))
    monkeypatch.setenv(MAX_BYTES, "515")  # the file has 4 bytes, and 512 for its header
    with pytest.raises(ArchiveError, match="larger than 515 bytes"):
        with unpacked(archive):
            pass
    monkeypatch.setenv(MAX_BYTES, "1 GB")
    with pytest.raises(ArchiveError, match="must be a number of bytes"):
        max_bytes()
