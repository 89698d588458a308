"""What the doctor looks at: this interpreter's installation, seen without importing it."""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

Version = Tuple[int, ...]
TIMEOUT = 300  # seconds for one probe: the first import on a slow disk takes minutes


def parse_version(text: str) -> Version:
    """(2, 13) for "2.13.0+cpu": enough to compare with."""
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def show_version(version: Version) -> str:
    return ".".join(map(str, version))


class Environment:
    """What is installed for a version of Python, which is this interpreter's but in tests."""

    def __init__(self, python: Version = sys.version_info[:2]) -> None:
        self.python = python
        self.modern = python >= (3, 11)
        self.site_packages = Path(sysconfig.get_path("purelib"))
        self._probes: Dict[str, Tuple[bool, str]] = {}

    def version(self, package: str) -> Optional[Version]:
        """The version of a package that is installed, else `None`."""
        try:
            return parse_version(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            return None

    def probe(self, code: str) -> Tuple[bool, str]:
        """
        Runs `code` in a process of its own, which may crash. Returns whether that succeeded, and
        what it printed, or printed as an error.
        """
        if code not in self._probes:
            self._probes[code] = _run([sys.executable, "-W", "ignore", "-c", code])
        return self._probes[code]

    def ask(self, code: str) -> Any:
        """The value that `code` prints as JSON in its last line; `None` if it fails."""
        succeeded, output = self.probe(code)
        return json.loads(output.splitlines()[-1]) if succeeded and output.strip() else None

    def pip_install(self, *requirements: str) -> None:
        subprocess.run([sys.executable, "-m", "pip", "install", *requirements], check=True)

    @property
    def glibc(self) -> Optional[Version]:
        try:
            name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        except (AttributeError, OSError, ValueError):
            return None
        return parse_version(version) if name == "glibc" else None


def _run(command: List[str]) -> Tuple[bool, str]:
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false")
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return False, f"took more than {TIMEOUT} seconds"
    if done.returncode < 0:
        return False, f"{done.stderr}\nthe process died of signal {-done.returncode}"
    return done.returncode == 0, done.stderr if done.returncode else done.stdout
