"""In a real kernel of Jupyter's, as a notebook's cells run."""

import json

import pytest

from tests.support.pools import ARCHIVE
from tests.support.running import leftover_children

jupyter_client = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.timeout(120)

ASYNC = """
from allennlp_parallel_predict import AsyncPredictor
predictor = AsyncPredictor.from_path({archive!r}, num_workers=2)
await predictor.start()
output = await predictor.predict_json({{"source": "hello"}})
print(output["predicted_tokens"][0][0])
"""
IN_A_BLOCK = """
import asyncio
async with AsyncPredictor.from_path({archive!r}, num_workers=2) as another:
    outputs = await asyncio.gather(*[another.predict_json({{"source": "hello"}})] * 5)
print(len(outputs))
await predictor.close()
"""
PLAIN = """
from allennlp_parallel_predict import ParallelPredictor
settings = {{"executor": {{"num_workers": 2, "start_method": {method!r}}}}}
plain = ParallelPredictor.from_path({archive!r}, settings=settings)
print(len(list(plain.predict_stream([{{"source": "hello"}}] * 10, batch_size=3))))
"""
ENDLESS = """
endless = ({{"source": "hello"}} for _ in iter(int, 1))
try:
    for number, output in enumerate(plain.predict_stream(endless)):
        if number == 5:
            print("now", flush=True)
except KeyboardInterrupt:
    print("interrupted")
print(plain.predict_json({{"source": "hello"}})["predicted_tokens"][0][0])
plain.close()
"""


@pytest.fixture(scope="module")
def cell():
    """Runs a cell; returns what it prints. All tests have the same kernel: its start takes long."""
    manager, client = jupyter_client.start_new_kernel(kernel_name="python3")

    def run(code, **values):
        printed, errors = [], []

        def note(message):
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
                if content["text"].startswith("now"):
                    manager.interrupt_kernel()  # the button "stop"
            elif message["msg_type"] == "error":
                errors.append("\n".join(content["traceback"]))

        code = code.format(archive=str(ARCHIVE), **values)
        reply = client.execute_interactive(code, timeout=60, output_hook=note)
        assert reply["content"]["status"] == "ok", json.dumps(errors)
        return "".join(printed).strip()

    yield run
    client.stop_channels()
    manager.shutdown_kernel()
    assert leftover_children() == []


@pytest.fixture(autouse=True)
def no_process_left_behind(cell):
    """In place of the one for every test: here, the kernel stays until the last."""
    yield


def test_asyncio_in_the_loop_that_runs_the_cells(cell):
    assert cell(ASYNC) == "HH"
    assert cell(IN_A_BLOCK) == "5"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_plain_interface(cell, method):
    assert cell(PLAIN, method=method) == "10"
    assert cell(ENDLESS) == "now\ninterrupted\nHH"


def test_a_kernel_that_ends_takes_the_workers_with_it(cell):
    assert cell(PLAIN, method="fork") == "10"  # not closed: see the end of the fixture
