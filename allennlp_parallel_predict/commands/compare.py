"""The `parallel-compare` subcommand: two profiles side by side."""

import argparse
import sys

from allennlp.commands.subcommand import Subcommand
from overrides import overrides

from allennlp_parallel_predict.commands.help import improve_help
from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.profiling.compare import compare, read_report


@Subcommand.register("parallel-compare")
class ParallelCompare(Subcommand):
    """Prints two files of `--profile` side by side."""

    @overrides
    def add_subparser(
        self, parser: "argparse._SubParsersAction[argparse.ArgumentParser]"
    ) -> argparse.ArgumentParser:
        subparser = parser.add_parser(
            self.name,
            description="Compare two profiles of parallel-predict by stage.",
            help="Compare two profiles of parallel-predict.",
        )
        subparser.add_argument("a", metavar="A.json", help="what --profile A.json wrote")
        subparser.add_argument("b", metavar="B.json", help="what --profile B.json wrote")
        improve_help(subparser, "before.json after.json")
        subparser.set_defaults(func=_compare)
        return subparser


def _compare(args: argparse.Namespace) -> None:
    with print_user_errors("allennlp parallel-compare"):
        a, b = read_report(args.a), read_report(args.b)
        print(compare(a, b, args.a, args.b))
        if a["lines"] != b["lines"]:
            print("\nThe runs had different input; compare the seconds a line.", file=sys.stderr)
