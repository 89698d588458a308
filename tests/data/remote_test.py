"""Inputs from an S3 server, which runs on this machine."""

import gzip
import json
import os
import socket
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import boto3
import pyarrow
import pytest
from allennlp.common import file_utils
from pyarrow import parquet

from tests.fixtures import join_predictors  # noqa: F401  (registers them)
from tests.support.faults import command, faulty_archive, wait_until
from tests.support.running import RUNNERS

pytestmark = pytest.mark.timeout(120)
ROWS = [{"text": "one"}, {"text": "two"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(arguments, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"

        def answers():
            assert process.poll() is None, open(log.name).read()
            try:
                return urllib.request.urlopen(url, timeout=5)
            except OSError:
                return None

        try:
            wait_until(answers, 60)
            RUNNERS["s3"] = SimpleNamespace(pids=[process.pid])
            yield url
        finally:
            RUNNERS.pop("s3", None)
            process.kill()
    log.close()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(file_utils, "CACHE_DIRECTORY", str(tmp_path / "cache"))
    resource = boto3.session.Session().resource("s3")
    bucket = resource.create_bucket(Bucket="bucket")
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def run(folder, source, *flags, status=0, **archive):
    archive = faulty_archive(folder, **archive)
    flags = ["--predictor", "texts", "--output-file", folder / "out", "--silent", *flags]
    with command(archive, source, *flags, folder=folder) as ran:
        assert ran.wait() == status, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["lines", "gz", "parquet"])
def test_is_recognised_by_its_content(bucket, tmp_path, kind):
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if kind == "gz":
        data = gzip.compress(data)
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "table")
        data = (tmp_path / "table").read_bytes()
    bucket.put_object(Key="folder/input", Body=data)
    run(tmp_path, "s3://bucket/folder/input")
    assert list(map(json.loads, (tmp_path / "out").open())) == ROWS


def test_mistakes_are_told_before_the_model_is_loaded(bucket, tmp_path, monkeypatch):
    bucket.put_object(Key="input", Body=b"{}\n")
    slow = {"status": 1, "loading_fault": "sleep"}
    last = run(tmp_path, "s3://bucket/none", **slow)
    assert "error: cannot read the input file: file s3://bucket/none not found" in last
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    last = run(tmp_path, "s3://bucket/input", **slow)
    assert "error: cannot download s3://bucket/input (for credentials see docs/files.md): " in last
    assert "missing: AWS_SECRET_ACCESS_KEY" in last
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    last = run(tmp_path, "s3://bucket/input", **slow)
    assert "cannot download s3://bucket/input" in last and "(403)" in last
