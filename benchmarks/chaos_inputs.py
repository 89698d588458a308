"""The input of `chaos.py`: words, with a bad line here and there."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import List, NamedTuple


class BadLine(NamedTuple):
    name: str
    text: str
    is_lost: bool = True


def bad_lines(word: str) -> List[BadLine]:
    def do(what: str) -> str:
        return json.dumps({"source": word, "do": what})

    return [
        BadLine("line: malformed JSON", '{"source": "' + word),
        BadLine("line: a missing key", json.dumps({"word": word})),
        BadLine("line: kills its worker (SIGKILL)", do("kill")),
        BadLine("line: ends its worker (os._exit)", do("exit")),
        BadLine("line: takes too much memory", do("memory")),
        BadLine("line: undecodable bytes", json.dumps({"source": word}) + "\udcff"),
        BadLine(
            "line: oversized (5 MB)", json.dumps({"source": word, "x": "y" * 5_000_000}), False
        ),
        BadLine("line: slow", do("slow"), False),
    ]


def write_input(path: Path, source: Path, count: int, rng: random.Random, hanging: int) -> Counter:
    """Writes words with a bad line here and there, each kind equally often; counts the kinds."""
    words = [json.loads(line)["source"] for line in source.open()]
    kinds = len(bad_lines(""))
    each = max(2, count // 400)
    places = rng.sample(range(count), each * kinds + hanging)
    injected: Counter = Counter()
    lines = [json.dumps({"source": rng.choice(words)}) for _ in range(count)]
    for number, place in enumerate(places[: each * kinds]):
        bad = bad_lines(rng.choice(words))[number % kinds]
        lines[place] = bad.text
        injected[bad.name] += 1
    for place in places[each * kinds :]:
        lines[place] = json.dumps({"source": "hang", "do": "hang"})
        injected["line: hangs its worker"] += 1
    path.write_text("\n".join(lines) + "\n", "utf-8", "surrogateescape")
    return injected
