"""`--metrics`: what Prometheus sees of a run that is at work."""

import re
import socket
import urllib.error
import urllib.request

import pytest

from tests.support.faults import as_line, command, faulty_archive, numbered, settings, wait_until

parser = pytest.importorskip("prometheus_client.parser")
pytestmark = pytest.mark.timeout(120)
PREFIX = "parallel_predict_"


def flags(folder, *more, **changes):
    return [
        *("--output-file", folder / "out", "--silent", "--on-error", "skip", *more),
        *settings(batching_batch_size=2, **changes),
    ]


def scrape(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {f.name[len(PREFIX) :]: f for f in parser.text_string_to_metric_families(text)}


def value(families, name):
    return families[name].samples[0].value


@pytest.mark.parametrize("executor", [{"executor_num_workers": 2}, {"executor_type": "in_process"}])
def test_a_run_at_work(archive, tmp_path, executor):
    stop = tmp_path / "stop"
    faults = {n: {"do": "sleep", "seconds": 0.05} for n in range(2000)}
    faults[3] = "raise"
    if "executor_num_workers" in executor:
        faults[6] = {"do": "kill", "once": str(stop)}
    (tmp_path / "in").write_text("".join(map(as_line, numbered(2000, faults))))
    arguments = flags(tmp_path, "--metrics", 0, **executor)
    with command(archive, tmp_path / "in", *arguments, folder=tmp_path) as ran:
        wait_until((tmp_path / "stderr").exists)
        (url,) = wait_until(lambda: re.findall(r"metrics at (\S+)", ran.stderr))
        wait_until(lambda: value(scrape(url), "lines") >= 10)
        silent = socket.create_connection(("127.0.0.1", int(re.search(r":(\d+)/", url)[1])))
        first = scrape(url)
        wait_until(lambda: value(scrape(url), "lines") > value(first, "lines"))
        silent.close()
        types = {name: family.type for name, family in first.items()}
        assert types == {
            **{"lines": "counter", "failures": "counter", "restarts": "counter"},
            **{"workers": "gauge", "queue_inputs": "gauge"},
            **{"batch_seconds": "histogram", "batch_inputs": "histogram"},
        }
        assert all(family.documentation for family in first.values())
        pool = "executor_num_workers" in executor
        assert (value(first, "failures"), value(first, "restarts")) == (1, int(pool))
        assert value(first, "workers") == 1 + pool
        counts = {s.name[len(PREFIX) :]: s.value for f in first.values() for s in f.samples}
        assert counts["batch_inputs_sum"] == value(first, "lines")
        assert counts["batch_seconds_count"] == counts["batch_inputs_count"]
        assert counts["batch_seconds_sum"] >= 0.05 * counts["batch_seconds_count"]
        ran.signal(2)
        assert ran.wait() == 130
    with pytest.raises(urllib.error.URLError):
        scrape(url)


def test_a_port_in_use_is_found_before_the_model_is_loaded(tmp_path):
    archive = faulty_archive(tmp_path / "slow", loading_fault="sleep")
    (tmp_path / "in").write_text(as_line({"n": 0}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = flags(tmp_path, "--metrics", port)
        with command(archive, tmp_path / "in", *arguments, folder=tmp_path) as ran:
            assert ran.wait(30) == 1
    assert f"cannot serve metrics on 127.0.0.1:{port}: " in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr and not (tmp_path / "out").exists()
