"""Lines that no worker survives, in a row: at last, every run is complete."""

import json

import pytest

from tests.support.faults import command, expected, numbered, settings

pytestmark = pytest.mark.timeout(150)
COUNT = 14


class Job:
    def __init__(self, archive, folder, killing):
        self.archive, self.folder, self.killing = archive, folder, killing
        lines = numbered(COUNT, dict.fromkeys(killing, "kill"))
        (folder / "input").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(self, *flags, **executor):
        more = {f"executor_{key}": value for key, value in executor.items()}
        flags = [*settings(executor_max_retries=0, **more), *flags, "--silent"]
        flags += ["--output-file", self.folder / "output", "--errors-file", self.folder / "errors"]
        source = self.folder / "input"
        with command(self.archive, source, *flags, folder=self.folder) as running:
            running.wait()
        return running

    def lines_done(self):
        checkpoint = json.loads((self.folder / "output.checkpoint").read_text())
        return checkpoint["content"]["written"]["positions"]

    def check(self, on_error):
        """Nothing is lost, and nothing is there twice."""
        output = (self.folder / "output").read_text().splitlines(True)
        good = [line for line in output if not line.startswith('{"error"')]
        assert "".join(good) == expected(n for n in range(COUNT) if n not in self.killing)
        assert len(output) - len(good) == (len(self.killing) if on_error == "placeholder" else 0)
        errors = [json.loads(line) for line in (self.folder / "errors").open()]
        assert [error["line"] - 1 for error in errors] == list(self.killing)
        assert not (self.folder / "output.checkpoint").exists()


@pytest.mark.parametrize("on_error", ["skip", "placeholder"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("killing", [range(5, 8), range(5, 12), range(11, COUNT)], ids=str)
def test_after_a_line_that_could_be_predicted(archive, tmp_path, killing, workers, on_error):
    job = Job(archive, tmp_path, killing)
    assert job.run("--on-error", on_error, num_workers=workers).status == 3
    job.check(on_error)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("killing", [range(3), range(10), range(COUNT)], ids=str)
def test_from_the_first_line_on(archive, tmp_path, killing, workers, batch_size):
    """A run without any prediction ends, but each resumed one gets further."""
    job = Job(archive, tmp_path, killing)
    flags = ["--on-error", "skip", "--batch-size", batch_size]
    ran, resumed, done = job.run(*flags, num_workers=workers), 0, 0
    while ran.status != 3:
        assert ran.status == 1 and "none could be predicted" in ran.stderr
        assert (
            "executor.max_deaths" in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr
        )
        assert job.lines_done() > done
        done, resumed = job.lines_done(), resumed + 1
        ran = job.run(*flags, "--resume", num_workers=workers)
    assert resumed > 0 or len(killing) < COUNT
    job.check("skip")


def test_the_limit_is_a_setting(archive, tmp_path):
    job = Job(archive, tmp_path, range(4))
    assert job.run("--on-error", "skip", max_deaths=5, num_workers=1).status == 3
    job.check("skip")
