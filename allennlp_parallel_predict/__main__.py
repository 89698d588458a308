"""
`python -m allennlp_parallel_predict ...` is `allennlp ...` with this plugin, whatever plugins file
there is; the name of the subcommand may be left out, and `compare` and `tune` are short for
`parallel-compare` and `parallel-tune`.
"""

import sys

from allennlp.__main__ import run
from allennlp.commands.subcommand import Subcommand

import allennlp_parallel_predict  # noqa: F401  (registers the subcommand)

_SHORT = {"compare": "parallel-compare", "tune": "parallel-tune"}


def main() -> None:
    sys.argv[1:2] = [_SHORT.get(name, name) for name in sys.argv[1:2]]
    if len(sys.argv) > 2 and sys.argv[1] not in Subcommand.list_available():
        sys.argv.insert(1, "parallel-predict")
    run()


if __name__ == "__main__":
    main()
