"""Tells one content of a file, URL or archive folder from another."""

import hashlib
import os
import time
from typing import Any, Dict, Optional

from allennlp.common.file_utils import cached_path

_SAMPLE = 1 << 16
_BLOCK = 1 << 20
_SMALL = 1 << 24
"""Bytes that are hashed in a moment."""

Fingerprint = Dict[str, Any]


def fingerprint(path: str) -> Fingerprint:
    """Size, time of change, and a hash of the first and last 64 KB; of a small file, of it all."""
    try:
        local = cached_path(path)
    except OSError:
        return {}  # whoever opens it will say so
    if os.path.isdir(local):
        names = sorted(os.listdir(local))
        return {"files": {name: _of_file(os.path.join(local, name)) for name in names}}
    return _of_file(local)


def _of_file(path: str) -> Fingerprint:
    if not os.path.isfile(path):
        return {}
    status = os.stat(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, status.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    content = _hash(path) if status.st_size <= _SMALL else None
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "ends": digest.hexdigest(),
        "content": content,
    }


def with_content(path: str, known: Fingerprint) -> Fingerprint:
    """The same with a hash of the whole content, unless the file has changed meanwhile."""
    if not known:
        return known
    local = cached_path(path)
    if "files" in known:
        files = {
            name: with_content(os.path.join(local, name), file)
            for name, file in known["files"].items()
        }
        return {"files": files}
    if known["content"] is not None:
        return known
    content = _hash(local)
    is_same = os.stat(local).st_mtime_ns == known["modified"]
    return {**known, "content": content if is_same else None}


def is_same(before: Fingerprint, now: Fingerprint, path: str) -> bool:
    """
    Whether two fingerprints are of one content. A file that was copied, restored or downloaded
    again has another time of change: then the whole content decides, if it is known.
    """
    if before == now:
        return True
    if "files" in before and "files" in now:
        return before["files"].keys() == now["files"].keys() and all(
            is_same(before["files"][name], now["files"][name], os.path.join(path, name))
            for name in now["files"]
        )
    if any(before.get(key) != now.get(key) for key in ("size", "ends")) or not before:
        return False
    if before["modified"] == now["modified"]:
        return None in (before["content"], now["content"])
    content = before["content"]
    return content is not None and content == with_content(path, now)["content"]


def describe(known: Optional[Fingerprint]) -> str:
    """The file for a message that puts two beside each other."""
    if not known:
        return "missing"
    if "files" in known:
        return f"a folder of {len(known['files'])} files, " + ", ".join(
            f"{name} {describe(file)}" for name, file in known["files"].items()
        )
    # To the second, two files of one size may look the same.
    moment, fraction = divmod(known["modified"], 10**9)
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{known['size']:,} bytes of {changed}.{fraction // 10**6:03}"


def _hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
