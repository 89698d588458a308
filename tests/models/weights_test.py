"""Weights that are loaded, and files in their place that would run code."""

import collections
import io
import os
import pickle
import tarfile
import warnings

import pytest
import torch

from allennlp_parallel_predict.common.errors import ArchiveError
from allennlp_parallel_predict.models.weights import TRUST, check_weights, trusted

IS_OLD = {"_use_new_zipfile_serialization": False}
FORMATS = [{}, IS_OLD]


class Runs:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Foreign:
    pass


def state_dict():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    values = model.state_dict()
    values["parameter"] = torch.nn.Parameter(torch.ones(2))
    values["half"] = torch.ones(2, dtype=torch.bfloat16)
    values["flags"] = torch.tensor([True])
    values["sparse"] = torch.eye(3).to_sparse()
    values["shared"] = values["half"][:1]
    return values


@pytest.mark.parametrize("options", FORMATS)
def test_state_dicts_are_loaded(tmp_path, options):
    path = str(tmp_path / "weights.th")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state_dict(), path, **options)
    check_weights(path)
    assert list(torch.load(path)) == list(state_dict())


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        Runs(os.mkdir, "harm"),
        {"weight": Runs(os.system, "touch harm")},
        collections.OrderedDict(a=torch.ones(1), b=[Runs(eval, "open('harm', 'w')")]),
        Runs(getattr, [], "append"),
        {"weight": Foreign()},
        Foreign,
    ],
    ids=range(6),
)
def test_what_would_run_code_is_refused(tmp_path, monkeypatch, value, options):
    monkeypatch.chdir(tmp_path)
    torch.save(value, "weights.th", **options)
    with pytest.raises(ArchiveError, match=f"neither a tensor nor.*{TRUST}=1"):
        check_weights("weights.th")
    assert os.listdir() == ["weights.th"]
    monkeypatch.setenv(TRUST, "1")
    check_weights("weights.th")
    with trusted():
        torch.load("weights.th")
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") is None


def test_no_pickle_of_the_old_format_may_run_code(tmp_path, monkeypatch):
    """It has five, and torch 1.12 loads each."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.th"
    torch.save({}, path, **IS_OLD)
    pickles, file = [], io.BytesIO(path.read_bytes())
    while file.tell() < path.stat().st_size:
        start = file.tell()
        pickle.Unpickler(file).load()
        pickles.append(file.getvalue()[start : file.tell()])
    assert len(pickles) == 5
    for place in range(5):
        changed = list(pickles)
        changed[place] = pickle.dumps(Runs(os.mkdir, "harm"), protocol=2)
        path.write_bytes(b"".join(changed))
        with pytest.raises(ArchiveError, match="mkdir"):
            check_weights(str(path))
    assert os.listdir() == ["weights.th"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"cos\nsystem\n(S'touch harm'\ntR.",
        pickle.dumps({"weight": 1}),
        b"PK\3\4 and no more",
        # A name that is put together while it is read.
        b"\x80\x04ccollections\nOrderedDict\n)R\x8c\x06system\x93.",
    ],
)
def test_other_files_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.th").write_bytes(content)
    with pytest.raises(ArchiveError):
        check_weights("weights.th")
    assert os.listdir() == ["weights.th"]


def test_programs_and_the_format_of_torch_0_1_are_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "program"))
    with pytest.raises(ArchiveError, match="TorchScript"):
        check_weights(str(tmp_path / "program"))
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    with pytest.raises(ArchiveError, match="torch 0.1"):
        check_weights(str(tmp_path / "tar"))
