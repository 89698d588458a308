"""
What touches a Ray cluster: joining it, bringing code and model there, and the worker on its nodes.

    driver                            object store of each node      actors of the node
    pack the predictor ─► ray.put ─►  the tensors, once         ─►   map them, all the same pages
                                      the pickled rest          ─►   unpickle, each its own objects

Ray maps an object into every process of a node, and for writing: a model that wrote to a parameter
there would silently change it for its neighbours. So an actor makes its view of the memory
read-only, and gives the model parameters of its own for as long as it may want to write to them
(`shared=False`). Whatever is not a parameter is always the actor's own.
"""

import logging
import os
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.executors.ray.actor import SINGLE_FILES

logger = logging.getLogger(__name__)

LOCAL = "local"
"""The address of a cluster of this machine alone."""

_TIMEOUT = 5.0
"""Seconds within which the head of a cluster must answer; Ray itself waits for minutes."""


class Connection:
    """
    The connection of this process with a cluster.

    # Parameters

    address : `str`, optional
        See `RayExecutor`.
    runtime_env : `Dict[str, Any]`, optional (default = `None`)
        See `RayExecutor`.
    """

    def __init__(self, address: Optional[str], runtime_env: Optional[Dict[str, Any]]) -> None:
        if address not in (None, "auto", LOCAL) and not _host_and_port(str(address)):
            raise SettingsError(
                f'executor.address must be "auto", "local" or "host:port", but it is {address!r}'
            )
        self._address = address
        self._runtime_env = runtime_env
        self._is_ours = False

    def open(self) -> Any:
        """
        Connects, unless this process is connected already, and returns the module `ray`.

        # Raises

        `SettingsError`
            If Ray is not installed or the cluster cannot be reached.
        """
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "executor.type 'ray' needs Ray: pip install 'allennlp-parallel-predict[ray]' "
                f"({error})"
            ) from error
        if ray.is_initialized():
            return ray
        address = self._address or "auto"
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS") or "auto"
        _check_reachable(address)
        in_main_thread = threading.current_thread() is threading.main_thread()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            self._join(ray, address)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            ray.shutdown()
            raise SettingsError(f"cannot join the Ray cluster at {address}: {error}") from error
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in its place
        self._is_ours = True
        return ray

    def _join(self, ray: Any, address: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            environment = self._runtime_env
            if environment is None:
                code = local_code(Path(folder))
                environment = {"py_modules": code} if code else {}  # Ray refuses an empty list
            options: Dict[str, Any] = {
                "runtime_env": environment,
                "logging_level": logging.WARNING,
            }
            try:
                if address != LOCAL:
                    ray.init(address=address, **options)
                    return
            except ConnectionError:
                if self._address is not None or address != "auto":
                    raise
                logger.warning(
                    "No Ray cluster runs on this machine and RAY_ADDRESS names none, so a local "
                    "one is started, which ends with the run."
                )
            ray.init(address=LOCAL, include_dashboard=False, **options)

    def close(self) -> None:
        """Disconnects, if it was this that had connected; a local cluster ends."""
        if self._is_ours:
            import ray

            self._is_ours = False
            ray.shutdown()


def _host_and_port(address: str) -> Optional[Tuple[str, int]]:
    host, _, port = address.rpartition(":")
    return (host, int(port)) if host and "/" not in host and port.isdigit() else None


def _check_reachable(address: str) -> None:
    host_and_port = _host_and_port(address)
    if host_and_port is None:
        return
    try:
        socket.create_connection(host_and_port, _TIMEOUT).close()
    except OSError as error:
        raise SettingsError(f"no Ray cluster can be reached at {address}: {error}") from error


def local_code(folder: Path) -> List[str]:
    """
    The imported packages that are not installed: the current directory's, those of
    `--include-package`, local plugins. Modules that are single files are put into `folder`.
    """
    packages = []
    single_files = folder / SINGLE_FILES
    single_files.mkdir()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name == "__main__" or not file or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        if path.name == "__init__.py":
            path = path.parent
        if path.stem == name and not _is_installed(path):
            if path.is_dir():
                packages.append(str(path))
            else:
                (single_files / path.name).write_bytes(path.read_bytes())
    return packages + [str(single_files)] * any(single_files.iterdir())


def _is_installed(path: Path) -> bool:
    standard = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return (
        any(folder in path.parents for folder in standard)
        or any(folder.name in ("site-packages", "dist-packages") for folder in path.parents)
        or any(path.parent.glob("*.dist-info"))  # pip install --target
    )
