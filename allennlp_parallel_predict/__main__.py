"""
`python -m allennlp_parallel_predict ...` is `allennlp ...` with this plugin, whatever plugins file
there is; the name of the subcommand may be left out.
"""

import sys

from allennlp.__main__ import run
from allennlp.commands.subcommand import Subcommand

import allennlp_parallel_predict  # noqa: F401  (registers the subcommand)


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] not in Subcommand.list_available():
        sys.argv.insert(1, "parallel-predict")
    run()


if __name__ == "__main__":
    main()
