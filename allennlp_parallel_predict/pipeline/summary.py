"""What became of a run, as a file for programs: `--summary`."""

import json
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from allennlp_parallel_predict.data.files import writing

Figures = Dict[str, Any]


@contextmanager
def summarized(path: Optional[str], figures: Figures) -> Iterator[None]:
    """
    Writes the figures of a run and its exit status, however it ends.

    The figures are empty as long as it is not certain that the file may be written.
    """
    status = 1
    try:
        yield
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        raise
    finally:
        if path is not None and figures:
            with writing(path), open(path, "w") as file:
                json.dump({**figures, "exit_status": status}, file, indent=2)
                file.write("\n")
