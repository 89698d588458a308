"""
Makes the virtual environment that the Makefile works in, from whatever the machine has.

Needs nothing but a Python 3.6 or later of any kind to run it. It takes the `python3` at hand if
the project runs on it, looks for another one otherwise, or has uv get one; makes the environment,
installs torch and the locked requirements, and then the project itself (editable).

    python3 scripts/bootstrap.py [--venv .venv] [--python 3.8 | --python /path/to/python] [--find]
"""

import argparse
import ast
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

VERSIONS = ["3.13", "3.12", "3.11", "3.10", "3.9", "3.8"]  # best first
# torch is not in the lock files, whose hashes would refuse a build other than the package index's:
# one for CPUs only, or for another CUDA. pip installs it, from wherever it is configured to look.
OLD = ("requirements.lock", ["torch==1.12.1", "torchvision==0.13.1"])
MODERN = ("requirements-modern.lock", ["torch==2.13.0"])
STACKS = {version: OLD if version in ("3.8", "3.9", "3.10") else MODERN for version in VERSIONS}
ROOT = Path(__file__).resolve().parent.parent
UV_HOME = ROOT / ".uv"
LOG = ROOT / "build" / "bootstrap.log"

# Also imports what a Python built without the right headers lacks, and AllenNLP or pip need.
PROBE = "import sys, ssl, ctypes, zlib, bz2, lzma; print('%d.%d' % sys.version_info[:2])"


class BootstrapError(Exception):
    """Ends the program with its message and without a traceback."""


def say(message: str) -> None:
    print("[env] " + message, file=sys.stderr, flush=True)


def version_of(python: str) -> Optional[str]:
    """The "3.10" of an interpreter; `None` when it does not run (as a pyenv shim may not)."""
    try:
        answer = subprocess.run(
            [python, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def places() -> List[Tuple[str, List[Path]]]:
    """Where interpreters may be: what to call each place, and the files to try there."""
    home = Path.home()
    environ = os.environ
    on_path = [
        Path(directory) / name
        for name in ["python3"] + ["python" + version for version in VERSIONS] + ["python"]
        for directory in environ.get("PATH", "").split(os.pathsep)
        if directory
    ]
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    conda_names = ["miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba"]
    condas = [home / name for name in conda_names] + [Path("/opt/conda")]
    if environ.get("CONDA_EXE"):
        condas.insert(0, Path(environ["CONDA_EXE"]).parent.parent)
    patterns = ("envs/*/bin/python", "bin/python")
    in_conda = [python for conda in condas for each in patterns for python in conda.glob(each)]
    return [
        ("python3, python3.13 to python3.8 and python on PATH", on_path),
        ("pyenv's versions in %s" % pyenv, sorted(pyenv.glob("versions/*/bin/python"))),
        ("conda's environments in %s" % ", ".join(map(str, condas)), sorted(in_conda)),
        ("uv's interpreters in %s" % uv, sorted(uv.glob("*/bin/python"))),
    ]


def pythons() -> Iterator[Tuple[str, str]]:
    """The interpreters that work, each with its version."""
    for _, candidates in places():
        for candidate in candidates:
            # An environment made here does not count: it may be about to be replaced.
            if os.access(str(candidate), os.X_OK) and ROOT not in candidate.parents:
                version = version_of(str(candidate))
                if version:
                    yield str(candidate), version


def find_python(wanted: List[str]) -> Optional[str]:
    """`python3` if its version is in `wanted`, else the first interpreter of the best one."""
    found = {}  # type: Dict[str, str]
    for python, version in pythons():
        if version in wanted:
            found.setdefault(version, python)
            if version == wanted[0] or os.path.basename(python) == "python3":
                return python
    return next((found[version] for version in wanted if version in found), None)


def pip_settings(python: str) -> Dict[str, str]:
    """The user's pip configuration, files and environment together, as `python`'s pip reads it."""
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    ).stdout
    settings = {}  # type: Dict[str, str]
    for section in ("global", "install", ":env:"):
        for key, value in re.findall(r"(?m)^%s\.([\w-]+)=(.*)$" % section, listing):
            settings[key] = ast.literal_eval(value)
    return settings


def uv_environment(python: str) -> Dict[str, str]:
    """Hands pip's mirror and certificate on to uv, which reads its own configuration only."""
    environment = dict(os.environ)
    settings = pip_settings(python)
    for pip_name, uv_name in [
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"),
        ("trusted-host", "UV_INSECURE_HOST"),
        ("cert", "SSL_CERT_FILE"),
    ]:
        if settings.get(pip_name):
            separator = "," if uv_name == "UV_FIND_LINKS" else " "
            environment.setdefault(uv_name, separator.join(settings[pip_name].split()))
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        environment.setdefault("UV_NO_INDEX", "1")
    # pip takes the best version of all indexes; uv by default of the first that has the name.
    environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return environment


def run(command: List[str], environment: Optional[Dict[str, str]] = None) -> bool:
    """Runs a command with its output in the log, and a sign of life every half a minute."""
    LOG.parent.mkdir(exist_ok=True)
    with open(str(LOG), "a") as log:
        log.write("$ %s\n" % " ".join(command))
        log.flush()
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        except OSError as error:
            log.write("%s\n" % error)
            return False
        start = time.monotonic()
        while True:
            try:
                return process.wait(timeout=30) == 0
            except subprocess.TimeoutExpired:
                say("  still at it, %d s" % (time.monotonic() - start))


def get_uv() -> Optional[str]:
    """uv from PATH, from an earlier run, or from the package index by any pip there is."""
    ours = [str(UV_HOME / "bin" / "uv"), str(UV_HOME / "venv" / "bin" / "uv")]
    for uv in ["uv"] + ours:
        if run([uv, "--version"]):
            return uv
    say("getting uv from the package index, which installs faster than pip")
    for python in [sys.executable] + [python for python, _ in pythons()]:
        if run([python, "-m", "pip", "install", "--quiet", "--target", str(UV_HOME), "uv"]):
            return ours[0]
        venv = UV_HOME / "venv"
        if run([python, "-m", "venv", "--clear", str(venv)]):
            if run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]):
                return ours[1]
    say("uv could not be had, going on with pip")
    return None


def get_python(wanted: List[str]) -> str:
    """Finds an interpreter or has uv install one, else says where it looked."""
    python = find_python(wanted)
    if python:
        return python
    say("no Python %s found, asking uv to install one" % " or ".join(wanted))
    uv = get_uv()
    if uv and run([uv, "python", "install", wanted[0]]):
        python = find_python(wanted[:1])
        if python:
            return python
    raise BootstrapError(
        "This runs on Python %s, and no such interpreter that works was found. Looked for:\n%s"
        "\n  - uv (on PATH, else from the package index by pip) and what `uv python install %s`"
        " downloads: %s (details in %s)"
        "\nInstall one of them, or name an interpreter: make PYTHON=/path/to/python"
        % (
            " or ".join(wanted),
            "\n".join("  - " + name for name, _ in places()),
            wanted[0],
            "the download failed" if uv else "uv could not be had",
            LOG.relative_to(ROOT),
        )
    )


def make_venv(venv: Path, wanted: List[str], python: Optional[str]) -> None:
    """Makes `venv`, unless it is there, works, and is of a wanted version."""
    if version_of(str(venv / "bin" / "python")) in wanted:
        return
    python = python or get_python(wanted)
    say("making %s with %s" % (venv, python))
    if run([python, "-m", "venv", "--clear", str(venv)]):
        return
    # Some distributions package Python without ensurepip; uv can do without it.
    uv = get_uv()
    command = [str(uv), "venv", "--seed", "--clear", "--python", python, str(venv)]
    if not uv or not run(command, uv_environment(python)):
        raise BootstrapError(
            "could not make an environment with %s: it has neither venv nor pip (Debian and Ubuntu"
            " have them in the package python3-venv); see %s" % (python, LOG)
        )


def install(venv: Path) -> None:
    python = str(venv / "bin" / "python")
    lock, torch = STACKS[str(version_of(python))]
    with_pip = [python, "-m", "pip", "install"]
    say("installing %s" % " and ".join(torch))
    must_run(with_pip + torch)
    uv = get_uv()
    # pip compiles by default. Else every process does, for 3 s, if PYTHONDONTWRITEBYTECODE is set.
    with_uv = [str(uv), "pip", "install", "--python", python, "--compile-bytecode"]
    for what in (["--require-hashes", "-r", str(ROOT / lock)], ["--editable", str(ROOT)]):
        say("installing " + (lock if "-r" in what else "this project"))
        if not (uv and run(with_uv + ["--no-deps"] + what, uv_environment(python))):
            must_run(with_pip + ["--no-deps"] + what)


def must_run(command: List[str]) -> None:
    if not run(command):
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
        raise BootstrapError("the installation failed:\n%s\nSee %s" % (tail, LOG))


def clear_executable_stacks(venv: Path) -> None:
    """glibc 2.41 and later refuses to load torch 1.12 otherwise."""
    path = ROOT / "allennlp_parallel_predict" / "doctor" / "executable_stack.py"
    executable_stack = runpy.run_path(str(path))
    for library in executable_stack["clear_all"](venv):
        say("cleared the executable-stack flag of %s" % library.relative_to(venv))


def parse_python(value: str) -> Tuple[List[str], Optional[str]]:
    """The versions to choose from, and the interpreter where `value` names one."""
    if not value:
        return VERSIONS, None
    match = re.fullmatch(r"(?:python)?(\d+\.\d+)", value)
    version = match.group(1) if match else version_of(value)
    if version not in VERSIONS:
        raise BootstrapError(
            "%s: %s; this runs on Python %s"
            % (value, "Python %s" % version if version else "does not run", " or ".join(VERSIONS))
        )
    return [str(version)], None if match else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the project's virtual environment.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--python", default="", help="3.8, python3.8, or a path")
    parser.add_argument("--find", action="store_true", help="print an interpreter, make nothing")
    arguments = parser.parse_args()
    # Set for another interpreter, it breaks every one that is tried here.
    os.environ.pop("PYTHONHOME", None)
    start = time.monotonic()
    try:
        wanted, python = parse_python(arguments.python)
        if arguments.find:
            print(python or get_python(wanted))
            return
        make_venv(arguments.venv, wanted, python)
        install(arguments.venv)
        clear_executable_stacks(arguments.venv)
    except BootstrapError as error:
        sys.exit("[env] " + str(error))
    say("%s is ready (%d s)" % (arguments.venv, time.monotonic() - start))


if __name__ == "__main__":
    main()
