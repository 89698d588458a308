"""
How an interrupted run goes on: a small file beside the output that says how far it is for certain.

It exists before the output is touched and until all of it is on the disk, so an output without one
is complete. It is written under another name first and carries a hash of itself, so a crash at no
moment leaves an inconsistent one. Order of the operations: Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014: the file is synchronised before it is renamed, its folder afterwards.
"""

import contextlib
import hashlib
import json
import os
from typing import Any, Dict, Iterator, NamedTuple, Optional

from allennlp_parallel_predict.common.errors import ResumeError, SettingsError
from allennlp_parallel_predict.data.files import sync_folder, writing
from allennlp_parallel_predict.data.sinks import OutputPosition
from allennlp_parallel_predict.pipeline.fingerprint import (
    Fingerprint,
    add_content,
    describe,
    fingerprint,
    is_same,
)

_VERSION = 3


class Identity(NamedTuple):
    """What an output depends on, so that a run is only resumed as itself."""

    files: Dict[str, str]
    """The paths of what is read, by a name that a user understands."""
    settings: Dict[str, Any]


class Checkpoint:
    """
    # Parameters

    output_file : `str`
        The output of the run; the checkpoint is `OUTPUT.checkpoint`.
    identity : `Identity`
        What the output depends on.
    """

    def __init__(self, output_file: str, identity: Identity) -> None:
        self.path = f"{output_file}.checkpoint"
        self._temporary = f"{self.path}.tmp"
        self._output_file = output_file
        self._identity = identity
        self._settings = json.loads(json.dumps(identity.settings))
        self._fingerprints: Optional[Dict[str, Fingerprint]] = None

    def exists(self) -> bool:
        """Whether an earlier run with the same output was interrupted."""
        return os.path.lexists(self.path)

    def is_complete(self) -> bool:
        """Whether an earlier run is complete. One without an input leaves an empty output."""
        return not self.exists() and not _is_empty(self._output_file)

    def protect(self, written_file: str) -> None:
        """
        Looks at the output, or at the lines that become the output.

        # Raises

        `SettingsError`
            If an unfinished output would be lost by starting from the beginning.
        """
        if not self.exists():
            if written_file != self._output_file and os.path.lexists(written_file):
                raise SettingsError(
                    f"{written_file} exists, where the lines for {self._output_file} are kept: "
                    "move it away if it has what you need, or give --overwrite"
                )
            return
        try:
            written = self._read()["written"]
            if _is_empty(written_file) and not written["failures"]:
                return
            found = f"{written['lines']:,} input lines are finished"
        except ResumeError:
            found = "the checkpoint is damaged"
        raise SettingsError(
            f"{self._output_file} is the output of a run that was interrupted ({found}, see "
            f"{self.path}): give --resume to go on with it, or --overwrite to start over"
        )

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
            "files": self._known_files(),
            "settings": self._settings,
            "written": written._asdict(),
            "state_change": state_change,
        }
        record = {"content": content, "sha256": _hash(content)}
        with writing(self.path):
            try:
                self._write(json.dumps(record).encode())
                os.rename(self._temporary, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self._temporary)
                raise
            sync_folder(self.path)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)
        # Nobody else's file, and not one behind a link.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(self._temporary, flags, 0o666)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def hash_files(self) -> None:
        """Adds hashes of whole files to what is saved, as a file that is copied is the same one."""
        known = self._known_files()
        for name, path in self._identity.files.items():
            with contextlib.suppress(OSError):
                add_content(path, known[name])

    def _known_files(self) -> Dict[str, Fingerprint]:
        if self._fingerprints is None:
            files = self._identity.files.items()
            self._fingerprints = {name: fingerprint(path) for name, path in files}
        return self._fingerprints

    def load(self) -> OutputPosition:
        """
        How far the interrupted run came.

        # Raises

        `ResumeError`
            If the checkpoint is damaged, belongs to another run, or the model's state is lost.
        """
        content = self._read()
        changed = [*self._changed_files(content["files"]), *self._changed(content["settings"])]
        if changed:
            raise ResumeError(
                f"{self.path} belongs to a run with another {'; another '.join(changed)}. Give the "
                "same again, or start over with --overwrite"
            )
        if content["state_change"] is not None:
            raise ResumeError(
                "this run cannot be resumed: what the model predicts depends on the batches that "
                f"it saw before ({content['state_change']}). Start over with --overwrite"
            )
        return OutputPosition(**content["written"])

    def _changed_files(self, before: Dict[str, Fingerprint]) -> Iterator[str]:
        known = self._known_files()
        for name in sorted({*before, *known}):
            old, new = before.get(name, {}), known.get(name, {})
            if not is_same(old, new, self._identity.files.get(name, "")):
                yield f"{name} ({describe(old, new)} then, {describe(new, old)} now)"

    def _changed(self, before: Dict[str, Any]) -> Iterator[str]:
        for name in sorted({*before, *self._settings}):
            old, new = before.get(name), self._settings.get(name)
            if old != new:
                yield f"{name} ({json.dumps(old)} then, {json.dumps(new)} now)"

    def refuse_output(self, path: str) -> ResumeError:
        """The error about a file that is not what it was when the checkpoint was written."""
        return ResumeError(
            f"{path} has changed since {self.path} was written: restore it, or start over with "
            "--overwrite"
        )

    def _read(self) -> Dict[str, Any]:
        try:
            with open(self.path) as file:
                record = json.load(file)
            content: Dict[str, Any] = record["content"]
            if record["sha256"] == _hash(content) and content["version"] == _VERSION:
                return content
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ResumeError(
            f"{self.path} is damaged or of another version, so the run cannot be resumed: start "
            "over with --overwrite"
        )

    def remove(self) -> None:
        """Says that the run is complete; what it wrote is on the disk."""
        with writing(self.path):
            for path in (self._temporary, self.path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            sync_folder(self.path)


def _is_empty(path: str) -> bool:
    return not os.path.exists(path) or not os.path.getsize(path)


def _hash(content: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
