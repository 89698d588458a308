"""What `--help` shows, and what is said about a flag that does not exist."""

import argparse
import difflib
from typing import Any, List, NoReturn, Optional

DOCUMENTATION = "README.md and docs/ in the sources of allennlp-parallel-predict"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Names the default of each flag that has one, and leaves the lines of the example alone."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        text = action.help
        if not text or not action.option_strings or "default" in text:
            return text
        if action.default in (None, "", False, [], argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"


def improve_help(parser: argparse.ArgumentParser, example: str) -> None:
    """
    Adds defaults, an example and the place of the documentation to `--help`, and makes an unknown
    flag an error of this subcommand (AllenNLP's would show the usage of `allennlp` itself).

    # Parameters

    parser : `argparse.ArgumentParser`
        The parser of a subcommand.
    example : `str`
        The arguments of an example, one line for each.
    """
    parser.formatter_class = HelpFormatter
    lines = " \\\n".join(f"    {line}" for line in [parser.prog, *example.splitlines()])
    parser.epilog = f"example:\n{lines}\n\ndocumentation: {DOCUMENTATION}"
    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = parse(args, namespace)
        if unknown:
            _refuse(parser, unknown)
        return parsed, unknown

    setattr(parser, "parse_known_args", parse_known_args)


def _refuse(parser: argparse.ArgumentParser, unknown: List[str]) -> NoReturn:
    flags = [word for word in unknown if word.startswith("-")]
    if not flags:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    hints = [_with_hint(flag.split("=")[0], parser) for flag in flags]
    parser.error(f"unrecognized flags: {', '.join(hints)}")


def _with_hint(flag: str, parser: argparse.ArgumentParser) -> str:
    known = [name for name in parser._option_string_actions if name.startswith("--")]
    nearest = difflib.get_close_matches(flag.replace("_", "-"), known, n=1)
    return f"{flag} (did you mean {nearest[0]}?)" if nearest else flag
