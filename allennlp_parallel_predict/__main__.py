"""
`python -m allennlp_parallel_predict ...` is `allennlp ...` with this plugin, whatever plugins file
there is; the name of the subcommand may be left out, and `compare` and `tune` are short for
`parallel-compare` and `parallel-tune`. `doctor` says what is wrong with an installation.
"""

import sys

from allennlp_parallel_predict import doctor
from allennlp_parallel_predict.common.logs import only_warnings

_SHORT = {"compare": "parallel-compare", "tune": "parallel-tune"}
_INTERRUPTED = {"KeyboardInterrupt": 130, "SigTermReceived": 143}
"""Exit statuses by the exceptions of Python's handler and AllenNLP's, which may not be imported."""


def main() -> None:
    try:
        _run()
    except BaseException as error:  # while it imports, or when all is written
        status = _INTERRUPTED.get(type(error).__name__)
        if status is None:
            raise
        print("parallel-predict: interrupted", file=sys.stderr)
        sys.exit(status)


def _run() -> None:
    # Before anything else is imported: it is for installations where that fails.
    if sys.argv[1:2] == ["doctor"]:
        sys.exit(doctor.main(sys.argv[2:]))
    try:
        from allennlp.__main__ import run
        from allennlp.commands.subcommand import Subcommand
    except Exception as error:
        explained = doctor.explain_import_error(error)
        if explained is None:
            raise
        sys.exit(explained)
    sys.argv[1:2] = [_SHORT.get(name, name) for name in sys.argv[1:2]]
    if len(sys.argv) > 2 and sys.argv[1] not in Subcommand.list_available():
        sys.argv.insert(1, "parallel-predict")
    with only_warnings("--quiet" in sys.argv):  # AllenNLP logs which plugins it finds
        run()


if __name__ == "__main__":
    main()
