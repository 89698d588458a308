"""Damages files in the ways of disks, transfers and attackers."""

import gzip
from random import Random


def damaged(content: bytes, random: Random) -> bytes:
    """Bits flipped, parts cut out, repeated, exchanged or truncated, fields of headers replaced."""
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 3, 20])):
        if not changed:
            break  # cuts have left nothing
        start, size = random.randrange(len(changed)), random.choice([1, 8, 512])
        other = random.randrange(len(changed))
        action = random.choice(["flip", "cut", "repeat", "exchange", "truncate", "header"])
        if action == "flip":
            changed[start] ^= 1 << random.randrange(8)
        elif action == "cut":
            del changed[start : start + size]
        elif action == "repeat":
            changed[start:start] = changed[start : start + size]
        elif action == "exchange":
            changed[start : start + size] = changed[other : other + size]
        elif action == "truncate" and random.random() < 0.1:
            del changed[max(start, 600) :]
        elif action == "header":
            at = start - start % 512 + random.choice([0, 100, 124, 156, 157, 257])
            changed[at : at + size] = random.choice([b"..", b"/", b"1", b"2", b"x", b"\xff"])
    return bytes(changed)


def damaged_archive(archive: bytes, random: Random) -> bytes:
    """Before it is compressed, or after."""
    if random.randrange(3):
        return gzip.compress(damaged(gzip.decompress(archive), random), 1)
    return damaged(archive, random)
