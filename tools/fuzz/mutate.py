"""Mutations of bytes, of lines of text, and of plain data as JSON and YAML have it."""

import copy
import random
from typing import Any

#: Names that are easily taken for something else, or lead elsewhere.
TEXTS = (
    "", " ", "NA", "null", "nan", "1e5", "yes", "-", "=1+1", "a\u2028b", "e\u0301", "\u202ea", "\0",
    "\n", "..", "../../x", "/etc/passwd", "C:\\x", "x" * 300, "\U0001f600", "ä", "%s", "{x}",
    "$(x)", "'", '"',
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 255, 256, 65536, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e-300, 1e308,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
#: Bytes that formats hold in lengths and marks.
MARKS = (
    b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\x80",
    b"\0" * 512, b"PK\3\4", b"PK\5\6", b"\x89PNG", b"\xff\xd8\xff", b"\xef\xbb\xbf", b"\r\n",
    b"\xe4", b"\xed\xa0\x80",
)  # fmt: skip


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """One to three changes: bits, blocks, lengths, the end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change_bytes(rng, data)
    return bytes(data)


def _change_bytes(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 4, 16, 256, 4096))
    other = rng.randrange(len(data) + 1)
    change = rng.randrange(9)
    if change <= 1 and data:
        data[place % len(data)] ^= 1 << rng.randrange(8)
    elif change == 2 and data:
        data[place % len(data)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif change == 3:
        del data[place:]
    elif change == 4:
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif change == 5:
        del data[place : place + size]
    elif change == 6:
        data[place:place] = data[other : other + size]
    elif change == 7:
        mark = rng.choice(MARKS)
        data[place : place + len(mark)] = mark
    else:
        data[place:place] = rng.randbytes(min(size, 64))


def mutate_lines(rng: random.Random, content: bytes) -> bytes:
    """One to three changes of lines: gone, twice, moved, an odd word, another encoding."""
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        change = rng.randrange(8)
        if change == 0 and len(lines) > 1:
            del lines[place]
        elif change == 1:
            lines.insert(other, lines[place])
        elif change == 2:
            lines[place], lines[other] = lines[other], lines[place]
        elif change == 3:
            lines[place] = b" " * rng.randrange(1, 5) + lines[place]
        elif change == 4:
            head, colon, _ = lines[place].rpartition(b":")
            lines[place] = head + colon + b" " + draw_word(rng).encode("utf-8", "surrogatepass")
        elif change == 5:
            lines[place] = mutate_bytes(rng, lines[place])
        elif change == 6:
            text = b"\n".join(lines).decode("utf-8", "replace")
            kind = rng.choice(("latin-1", "utf-16", "utf-8-sig", "cp1252"))
            lines = (text + "ä").encode(kind, "replace").split(b"\n")
        else:
            lines = b"\r\n".join(lines).split(b"\n")
    return b"\n".join(lines)


def draw_word(rng: random.Random) -> str:
    """A value as text: a number, a name, a bracket, a date."""
    odd = ("[", "{", "]", "&a", "*a", "!x", "|", ">", "? x", "2001-99-99", "0o9", "1:30", "[" * 300,
           "{a: " * 200, "010", "1_0", "~", "!!python/object:x {}", "9" * 5000)  # fmt: skip
    return rng.choice((rng.choice(odd), rng.choice(TEXTS), str(rng.choice(NUMBERS))))


def draw_value(rng: random.Random) -> Any:
    """A value of any kind."""
    kind = rng.randrange(8)
    if kind <= 1:
        return rng.choice(TEXTS)
    if kind <= 3:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind == 5:
        return rng.choice(([], {}, [[]], {"": {}}, {"x": 1}, [None], ["a", "a"]))
    if kind == 6:
        return nest(rng.choice((20, 150, 600)), rng.random() < 0.5)
    return [rng.choice(NUMBERS) for _ in range(rng.choice((1, 3, 1000)))]


def nest(depth: int, lists: bool) -> Any:
    """Lists or tables in one another."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {"x": value}
    return value


def mutate_tree(rng: random.Random, tree: Any) -> Any:
    """One to three changes of plain data: a value, a key, an entry."""
    made = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        made = _change_tree(rng, made)
    return made


def _change_tree(rng: random.Random, tree: Any) -> Any:
    holder, key = _choose_place(rng, tree)
    if holder is None:
        return draw_value(rng) if rng.random() < 0.3 else tree
    value = holder[key]
    change = rng.randrange(8)
    if change <= 1:
        holder[key] = draw_value(rng)
    elif change == 2:
        del holder[key]
    elif change == 3 and isinstance(holder, dict):
        holder[_misspell(rng, str(key))] = holder.pop(key)
    elif change == 4:
        if isinstance(holder, dict):
            holder[rng.choice((*TEXTS, "extra"))] = copy.deepcopy(value)
        else:
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(value))
    elif change == 5 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice(
            (str(value), -value, value * 10**9, value + 0.5, [value], value + 1)
        )
    elif change == 5 and isinstance(value, str):
        holder[key] = rng.choice((_misspell(rng, value), [value], value.upper(), value + "\0"))
    elif change == 6:
        other_holder, other = _choose_place(rng, tree)
        if other_holder is not None:
            holder[key] = copy.deepcopy(other_holder[other])
    else:
        holder[key] = draw_value(rng)
    return tree


def _choose_place(rng: random.Random, tree: Any) -> tuple[Any, Any]:
    """A table or list of the tree, and a key in it; deep ones as likely as others."""
    places: list[tuple[Any, Any]] = []
    stack = [tree] if isinstance(tree, dict | list) else []
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list) and len(places) < 5000:
                stack.append(node[key])
    return rng.choice(places) if places else (None, None)


def _misspell(rng: random.Random, word: str) -> str:
    place = rng.randrange(len(word) + 1)
    inserted = word[:place] + rng.choice(TEXTS) + word[place:]
    return rng.choice((word[:place] + word[place + 1 :], inserted, word.upper(), word[::-1]))
