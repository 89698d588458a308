"""Tells one content of a file, URL or archive folder from another."""

import hashlib
import os
import time
from typing import Any, Dict

from allennlp.common.file_utils import cached_path

_SAMPLE = 1 << 16
_BLOCK = 1 << 20
_SMALL = 1 << 24
"""Bytes that are hashed in a moment."""

Fingerprint = Dict[str, Dict[str, Any]]
"""By the path of the file within a folder, which is empty for what is no folder."""


def fingerprint(path: str) -> Fingerprint:
    """Size, time of change, and a hash of the first and last 64 KB; of a small file, of it all."""
    return {name: _of_file(file) for name, file in _files(path).items()}


def _files(path: str) -> Dict[str, str]:
    try:
        local = cached_path(path)
    except OSError:
        return {}  # whoever opens it will say so
    if not os.path.isdir(local):
        return {"": local} if os.path.isfile(local) else {}
    paths = sorted(os.path.join(top, name) for top, _, names in os.walk(local) for name in names)
    return {os.path.relpath(file, local): file for file in paths if os.path.isfile(file)}


def _of_file(path: str) -> Dict[str, Any]:
    status = os.stat(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, status.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "ends": digest.hexdigest(),
        "content": _hash(path) if status.st_size <= _SMALL else None,
    }


def add_content(path: str, known: Fingerprint) -> None:
    """Adds hashes of the whole content of files that have not changed meanwhile."""
    for name, file in _files(path).items():
        if name in known and known[name]["content"] is None:
            content = _hash(file)
            if os.stat(file).st_mtime_ns == known[name]["modified"]:
                known[name]["content"] = content


def is_same(before: Fingerprint, now: Fingerprint, path: str) -> bool:
    """
    Whether two fingerprints are of one content. A file that was copied, restored or downloaded
    again has another time of change: then the whole content decides, if it is known.
    """
    if before == now:
        return True  # without walking a folder or asking for a URL again
    files = _files(path)
    return before.keys() == now.keys() and all(
        _is_same_file(before[name], now[name], files.get(name, "")) for name in now
    )


def _is_same_file(before: Dict[str, Any], now: Dict[str, Any], path: str) -> bool:
    if any(before[key] != now[key] for key in ("size", "ends")):
        return False
    if before["modified"] == now["modified"] and None in (before["content"], now["content"]):
        return True
    content = before["content"]
    return content is not None and content == (now["content"] or _hash(path))


def describe(known: Fingerprint, other: Fingerprint) -> str:
    """What differs from another fingerprint, for a message that puts the two beside each other."""
    if not known:
        return "missing"
    files = [(name, file) for name, file in known.items() if file != other.get(name)]
    if "" not in known:
        folder = f"a folder of {len(known)} files"
        return ", ".join([folder, *(f"{name} {_describe_file(file)}" for name, file in files)])
    return _describe_file(known[""])


def _describe_file(file: Dict[str, Any]) -> str:
    # To the second, two files of one size may look the same.
    moment, fraction = divmod(file["modified"], 10**9)
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{file['size']:,} bytes of {changed}.{fraction // 10**6:03}"


def _hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
