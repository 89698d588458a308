"""
How an interrupted run goes on: a small file beside the output that says how far it is for certain.

It is written after the output has reached the disk, under another name first, and carries a hash of
itself, so that there is no moment at which a crash leaves one that lies.
"""

import hashlib
import json
import os
from typing import Any, Dict, Optional

from allennlp.common.file_utils import cached_path

from allennlp_parallel_predict.common.errors import ResumeError, user_error_context
from allennlp_parallel_predict.data.sinks import OutputPosition

_VERSION = 1
_SAMPLE = 1 << 16
_TAIL = 1 << 12


def fingerprint(path: str) -> Dict[str, Any]:
    """What tells one content of a file, URL or archive directory from another, quickly."""
    try:
        local = cached_path(path)
    except OSError:
        return {}  # whoever opens it will say so
    if os.path.isdir(local):
        names = sorted(os.listdir(local))
        return {name: _fingerprint_file(os.path.join(local, name)) for name in names}
    return _fingerprint_file(local)


def _fingerprint_file(path: str) -> Dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    status = os.stat(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, status.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return {"size": status.st_size, "modified": status.st_mtime_ns, "ends": digest.hexdigest()}


class Checkpoint:
    """
    # Parameters

    output_file : `str`
        The output of the run; the checkpoint is `OUTPUT.checkpoint`.
    run : `Dict[str, Any]`
        What the output depends on (input, archive, settings), by a name that a user understands.
    """

    def __init__(self, output_file: str, run: Dict[str, Any]) -> None:
        self.path = f"{output_file}.checkpoint"
        self._output_file = output_file
        self._run = json.loads(json.dumps(run))

    def save(self, written: OutputPosition, state_change: Optional[str] = None) -> None:
        """
        Records how far the files are that `written` describes; they are on the disk.

        # Parameters

        written : `OutputPosition`
            How far they are.
        state_change : `str`, optional (default = `None`)
            Why the run cannot go on from there: what the model keeps from batch to batch.

        # Raises

        `OSError`
            If the checkpoint cannot be written. The one before it is still there, and sound.
        """
        content = {
            "version": _VERSION,
            "run": self._run,
            "written": written._asdict(),
            "state_change": state_change,
            "tail": _tail_hash(self._output_file, written.output_bytes),
        }
        record = {"content": content, "sha256": _hash(content)}
        temporary = f"{self.path}.tmp"
        with user_error_context(f"cannot write {self.path}", OSError):
            with open(temporary, "w") as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)

    def load(self) -> Optional[OutputPosition]:
        """
        How far the interrupted run came, or `None` if there was none.

        # Raises

        `ResumeError`
            If the checkpoint is damaged, belongs to another run, the output has changed, or the
            model's state is lost.
        """
        if not os.path.exists(self.path):
            if os.path.exists(self._output_file):
                raise ResumeError(
                    f"there is nothing to resume: {self._output_file} exists without a checkpoint "
                    f"({self.path}), as it does when a run is complete. Remove it to start anew"
                )
            return None
        content = self._read()
        changed = [key for key in self._run if self._run[key] != content["run"].get(key)]
        if changed:
            raise ResumeError(
                f"{self.path} belongs to a run with another {', '.join(changed)}. Give the same "
                "again, or start anew without --resume"
            )
        if content["state_change"] is not None:
            raise ResumeError(
                "this run cannot be resumed: what the model predicts depends on the batches that "
                f"it saw before ({content['state_change']}). Start it anew without --resume"
            )
        written = OutputPosition(**content["written"])
        if content["tail"] != _tail_hash(self._output_file, written.output_bytes):
            raise ResumeError(f"{self._output_file} has changed since {self.path} was written")
        return written

    def _read(self) -> Dict[str, Any]:
        try:
            with open(self.path) as file:
                record = json.load(file)
            content: Dict[str, Any] = record["content"]
            if record["sha256"] == _hash(content) and content["version"] == _VERSION:
                return content
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise ResumeError(f"{self.path} is damaged, so the run cannot be resumed: start it anew")

    def remove(self) -> None:
        for path in (self.path, f"{self.path}.tmp"):
            if os.path.exists(path):
                os.remove(path)


def _hash(content: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tail_hash(path: str, size: int) -> Optional[str]:
    """A hash of what is before `size`, or `None` if the file is shorter."""
    if not os.path.exists(path) or os.path.getsize(path) < size:
        return None if size else _hash({})
    with open(path, "rb") as file:
        file.seek(max(0, size - _TAIL))
        return hashlib.sha256(file.read(min(size, _TAIL))).hexdigest() if size else _hash({})
