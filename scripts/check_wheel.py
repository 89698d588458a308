"""
Builds the wheel and the sdist, installs the wheel with its extras into an empty environment, and
uses it there as a user does, with no checkout on the path.

    python scripts/check_wheel.py [--keep FOLDER]

The environment gets the versions that the running one has.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

import bootstrap

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "models,ray,plot,parquet,zstd,metrics,examples"
PLUGIN = "allennlp_parallel_predict"
MODEL, WORDS = "examples/g2p/model.tar.gz", "words.jsonl"
DISCOVERY = f"""
import sys
from {PLUGIN} import compat
compat.install()
sys.argv = ["allennlp", "parallel-predict", "--help"]
from allennlp.commands import main
main()
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Runs a command as a user with no settings for Python does, and returns its output."""
    print("$ " + " ".join(command), flush=True)
    variables = {**os.environ, **environment}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=str(cwd), env=variables, stdout=subprocess.PIPE, universal_newlines=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with status {done.returncode}: {' '.join(command)}")
    return done.stdout


def build(dist: Path) -> Path:
    """Builds and checks both distributions; returns the wheel."""
    run(sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT), cwd=dist.parent)
    files = [str(path) for path in dist.iterdir()]
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=dist.parent)
    [wheel] = dist.glob("*.whl")
    assert len(files) == 2, files
    return wheel


def install(wheel: Path, venv: Path) -> Path:
    """Makes an environment with the wheel; returns its interpreter."""
    run(sys.executable, "-m", "venv", str(venv), cwd=venv.parent)
    python = venv / "bin" / "python"
    frozen = run(sys.executable, "-m", "pip", "freeze", "--exclude-editable", cwd=venv.parent)
    constraints = venv.parent / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in frozen.splitlines() if "@" not in line))
    torch = next(line for line in frozen.splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    run(*pip, torch, cwd=venv.parent)
    uv = bootstrap.get_uv()
    fast = [str(uv), "pip", "install", "--compile-bytecode", "--python", str(python)] if uv else pip
    settings: Dict[str, str] = bootstrap.uv_environment(str(python)) if uv else {}
    wanted = [f"{wheel}[{EXTRAS}]", "--constraint", str(constraints)]
    run(*fast, *wanted, cwd=venv.parent, **settings)
    if sys.version_info >= (3, 11):
        allennlp = ["--no-deps", "allennlp==2.10.1", "allennlp-models==2.10.1"]
        run(*fast, *allennlp, cwd=venv.parent, **settings)
    bootstrap.clear_executable_stacks(venv)
    return python


def check(python: Path, work: Path) -> None:
    """Uses what is installed, in a folder that has the examples and nothing else."""
    shutil.copytree(str(ROOT / "examples"), str(work / "examples"))
    where = run(str(python), "-c", f"import {PLUGIN}; print({PLUGIN}.__file__)", cwd=work)
    assert Path(where.strip()).parent.parent == python.parent.parent.joinpath(
        "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages"
    ), where
    # One thread, as the workers have: another number changes the last digits.
    quiet = {"NLTK_DATA": str(work / "nltk_data"), "HOME": str(work), "OMP_NUM_THREADS": "1"}
    (work / "nltk_data" / "tokenizers" / "punkt").mkdir(parents=True)
    command = str(python.parent / "allennlp-parallel-predict")
    print(run(command, "doctor", cwd=work, **quiet))

    lines = (work / "examples" / "g2p" / "words.jsonl").read_text().splitlines()[:40]
    (work / WORDS).write_text("\n".join(lines) + "\n")
    predictions: List[Path] = []
    for name, flags in [
        ("predict", ["predict"]),
        ("default", []),
        ("in_process", ["--parallel-overrides", '{"executor": {"type": "in_process"}}']),
        ("process_pool", ["--parallel-overrides", '{"executor": {"type": "process_pool"}}']),
        ("ray", ["--parallel-overrides", '{"executor": {"type": "ray", "num_workers": 1}}']),
    ]:
        output = work / f"{name}.jsonl"
        rest = [flag for flag in flags if flag != "predict"]
        files = [MODEL, WORDS, "--output-file", str(output), "--silent"]
        run(
            command,
            *[flag for flag in flags if flag == "predict"],
            *files,
            *rest,
            cwd=work,
            **quiet,
        )
        predictions.append(output)
    for output in predictions:
        assert filecmp.cmp(str(output), str(predictions[0]), shallow=False), output
    assert len(predictions[0].read_text().splitlines()) == len(lines)

    (work / ".allennlp_plugins").write_text(PLUGIN + "\n")
    usage = run(str(python), "-c", DISCOVERY, cwd=work, **quiet)
    assert "--parallel-overrides" in usage, usage
    print(run(str(python), "examples/demo.py", cwd=work)[-300:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the wheel in an empty environment.")
    parser.add_argument("--keep", type=Path, help="a new folder for all of it, kept")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or temporary).resolve()
        for name in ("dist", "work"):
            (folder / name).mkdir(parents=True)
        python = install(build(folder / "dist"), folder / "venv")
        check(python, folder / "work")
    print("The wheel works.")


if __name__ == "__main__":
    main()
