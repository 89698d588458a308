import importlib.util
import os
import stat
import struct
import subprocess
from pathlib import Path

import orjson
import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "bootstrap.py"
SPEC = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
bootstrap = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bootstrap)


def make_python(path: Path, answer: str, status: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that has no interpreter at all. It has `/bin/sh`, for the fakes."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "CONDA", "PYENV", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "build" / "bootstrap.log")
    monkeypatch.setattr(bootstrap, "UV_HOME", tmp_path / "uv")
    # The one place that no variable moves.
    places = bootstrap.places
    monkeypatch.setattr(
        bootstrap,
        "places",
        lambda: [(name, [p for p in ps if tmp_path in p.parents]) for name, ps in places()],
    )
    return tmp_path


def test_takes_the_best_version_on_path(machine):
    make_python(machine / "bin" / "python3.8", "3.8")
    best = make_python(machine / "bin" / "python3.9", "3.9")
    assert bootstrap.find_python(bootstrap.VERSIONS) == best


def test_takes_the_python3_at_hand_before_a_better_version(machine):
    make_python(machine / "bin" / "python3.13", "3.13")
    at_hand = make_python(machine / "bin" / "python3", "3.11")
    assert bootstrap.find_python(bootstrap.VERSIONS) == at_hand
    assert bootstrap.find_python(["3.13"]).endswith("python3.13")


def test_looks_further_where_python3_is_not_supported(machine):
    make_python(machine / "bin" / "python3", "3.14")
    other = make_python(machine / "bin" / "python3.12", "3.12")
    assert bootstrap.find_python(bootstrap.VERSIONS) == other


@pytest.mark.parametrize("version, lock", [("3.10", "requirements.lock"), ("3.11", "-modern.lock")])
def test_installs_the_stack_of_the_interpreter(machine, monkeypatch, version, lock):
    commands = []
    monkeypatch.setattr(bootstrap, "run", lambda command, *_: commands.append(command) or True)
    make_python(machine / "venv" / "bin" / "python", version)
    bootstrap.install(machine / "venv")
    torch, locked = [command for command in commands if "torch" in str(command) or "-r" in command]
    assert torch[1:4] == ["-m", "pip", "install"] and torch[4] == bootstrap.STACKS[version][1][0]
    assert locked[-1].endswith(lock) and {"--no-deps", "--require-hashes"} < set(locked)
    for line in Path(locked[-1]).read_text().splitlines():
        assert not line.startswith("torch=="), "the hashes refuse a build for CPUs"


def test_passes_over_interpreters_that_do_not_run(machine):
    make_python(machine / "bin" / "python3.10", "pyenv: command not found", status=127)
    working = make_python(
        machine / "home" / ".pyenv" / "versions" / "3.10.1" / "bin/python", "3.10"
    )
    assert bootstrap.find_python(bootstrap.VERSIONS) == working


def test_asks_each_interpreter_for_its_version(machine):
    make_python(machine / "bin" / "python3.10", "3.13")
    ours = make_python(machine / "bin" / "python3", "3.9")
    assert bootstrap.find_python(bootstrap.VERSIONS) == ours


@pytest.mark.parametrize(
    "path",
    [
        "home/.pyenv/versions/3.8.18/bin/python",
        "home/miniconda3/envs/nlp/bin/python",
        "home/miniforge3/bin/python",
        "home/.local/share/uv/python/cpython-3.8.20-linux-x86_64-gnu/bin/python",
    ],
)
def test_looks_where_pyenv_conda_and_uv_keep_theirs(machine, path):
    assert bootstrap.find_python(["3.8"]) is None
    python = make_python(machine / path, "3.8")
    assert bootstrap.find_python(["3.8"]) == python


def test_has_uv_install_an_interpreter_when_there_is_none(machine):
    uv = machine / "bin" / "uv"
    fake = machine / "home/.local/share/uv/python/cpython-3.13/bin/python"
    make_python(uv, "uv")
    uv.write_text(
        "#!/bin/sh\n"
        f'if [ "$*" = "python install 3.13" ]; then /bin/mkdir -p {fake.parent}\n'
        f"printf '#!/bin/sh\\necho 3.13\\n' > {fake}; /bin/chmod +x {fake}; fi\n"
    )
    assert bootstrap.get_python(bootstrap.VERSIONS) == str(fake)


def test_names_everything_it_looked_for(machine, monkeypatch):
    monkeypatch.setattr(bootstrap, "get_uv", lambda: None)
    monkeypatch.setattr(bootstrap, "ROOT", machine)
    with pytest.raises(bootstrap.BootstrapError) as error:
        bootstrap.get_python(bootstrap.VERSIONS)
    for name in ("3.10 or 3.9 or 3.8", "PATH", "pyenv", "conda", "uv python install"):
        assert name in str(error.value)


def test_gets_uv_by_the_first_pip_that_works(machine, monkeypatch):
    # Neither the interpreter that runs this nor the first on PATH has a pip or a venv.
    monkeypatch.setattr(bootstrap.sys, "executable", make_python(machine / "own", "3.12", 1))
    make_python(machine / "bin" / "python3.10", "no pip", 1)
    pip = machine / "bin" / "python3"
    make_python(pip, "3.11")
    uv = machine / "uv" / "bin" / "uv"
    pip.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -c ]; then echo 3.11; exit; fi\n'
        f'[ "$*" = "-m pip install --quiet --target {machine}/uv uv" ] || exit 1\n'
        f"/bin/mkdir -p {uv.parent}; printf '#!/bin/sh\\n' > {uv}; /bin/chmod +x {uv}\n"
    )
    assert bootstrap.get_uv() == str(uv)
    assert subprocess.call([str(uv)]) == 0


def test_hands_the_pip_configuration_on_to_uv(machine, monkeypatch):
    python = make_python(
        machine / "python",
        r"""global.extra-index-url="scheme://a\\nscheme://b"
global.index-url="scheme://mirror"
global.cert="/from/a/file"
:env:.cert="/from/the/environment"
""",
    )
    monkeypatch.setenv("PIP_CERT", "/from/the/environment")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "scheme://chosen")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    environment = bootstrap.uv_environment(python)
    assert environment["UV_INDEX"] == "scheme://a scheme://b"
    assert environment["SSL_CERT_FILE"] == "/from/the/environment"
    assert environment["UV_DEFAULT_INDEX"] == "scheme://chosen"


@pytest.mark.parametrize("value", ["3.8", "python3.8"])
def test_a_version_can_be_asked_for(machine, value):
    assert bootstrap.parse_python(value) == (["3.8"], None)


def test_an_interpreter_can_be_named(machine):
    python = make_python(machine / "python", "3.9")
    assert bootstrap.parse_python(python) == (["3.9"], python)


@pytest.mark.parametrize("value", ["3.7", "/nowhere/python"])
def test_what_cannot_be_used_is_refused(machine, value):
    with pytest.raises(bootstrap.BootstrapError, match=value):
        bootstrap.parse_python(value)


def test_clears_the_executable_stack_flag_in_the_environment(machine, capsys):
    library = machine / "venv" / "lib" / "torch" / "lib" / "library.so"
    library.parent.mkdir(parents=True)
    [original] = Path(orjson.__file__).parent.glob("*.so")
    content = bytearray(original.read_bytes())
    at = content.index(struct.pack("<I", 0x6474E551), 64) + 4
    content[at] |= 1
    library.write_bytes(content)
    bootstrap.clear_executable_stacks(machine / "venv")
    content[at] &= ~1
    assert library.read_bytes() == content
    assert "lib/torch/lib/library.so" in capsys.readouterr().err
