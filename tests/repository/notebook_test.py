"""The example notebook, cell after cell in a real kernel."""

import json
from pathlib import Path

import pytest

from tests.support.running import leftover_children

jupyter_client = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = json.loads((ROOT / "examples/notebook.ipynb").read_text())
CELLS = ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


@pytest.mark.timeout(120)
def test_every_cell_runs():
    manager, client = jupyter_client.start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    printed = []
    try:
        for cell in CELLS:
            errors = []

            def note(message):
                content = message["content"]
                if message["msg_type"] == "stream" and content["name"] == "stdout":
                    printed.append(content["text"])
                elif message["msg_type"] == "error":
                    errors.append("\n".join(content["traceback"]))

            reply = client.execute_interactive(cell, timeout=90, output_hook=note)
            assert reply["content"]["status"] == "ok", errors
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    lines = "".join(printed).splitlines()
    assert lines.count("100 outputs") == 2
    assert "parallel P EH R AH L EH L" in lines and "KeyError('source')" in lines, lines
    assert leftover_children() == []


def test_no_outputs_are_committed():
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])
