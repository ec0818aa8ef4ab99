"""Host names with ranges of numbers, as people write them: ``node[1-3,7]``, ``gpu[01-40]``. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

_FEW = 2  # hosts that are written out
_NUMBER = re.compile(r"[0-9]{1,18}")
_BRACKET = re.compile(r"\[([0-9]{1,18}(?:-[0-9]{1,18})?(?:,[0-9]{1,18}(?:-[0-9]{1,18})?)*)\]")
_MOST_GROUPS = 4  # groups of digits of a name that are looked at, from its end

_Place = tuple[str, str]  # what stands before and after a number


def folded(hosts: Iterable[str]) -> list[str]:
    """The hosts in ranges, such as ``node[1-3,7]``; two hosts stay as they are. `written_out` is the reverse.

    Hosts that differ in one number alone share a range: the number in which they differ from most other hosts.
    """
    listed = list(hosts)
    if len(listed) <= _FEW:
        return listed
    places = {name: list(_places(name)) for name in listed}
    common = Counter(place for found in places.values() for place, _ in found)
    ranges: dict[_Place, list[str]] = {}
    for found in places.values():
        place, number = max(found, key=lambda each: common[each[0]])
        ranges.setdefault(place, []).append(number)
    return [f"{head}{_joined(numbers)}{tail}" for (head, tail), numbers in ranges.items()]


def _places(name: str) -> Iterator[tuple[_Place, str]]:
    """Each place where a name has a number, the last one first, and the number; else the whole name, and none."""
    odd = any(c in name for c in "[]*?!,") or name.count(":") > 1  # a pattern, or an IPv6 address
    found = [] if odd else list(_NUMBER.finditer(name))[-_MOST_GROUPS:]
    for number in reversed(found):
        yield (name[: number.start()], name[number.end() :]), number[0]
    if not found:
        yield (name, ""), ""


def _joined(numbers: list[str]) -> str:
    """Numbers of one place as ``[1-3,7]``; numbers with leading zeros run on in their width."""
    if len(numbers) == 1:
        return numbers[0]
    widths = {len(each) for each in numbers if each.startswith("0") and len(each) > 1}
    runs: list[tuple[str, str]] = []
    for each in sorted(set(numbers), key=lambda n: (len(n) not in widths, len(n) if len(n) in widths else 0, int(n))):
        before = runs[-1][1] if runs else ""
        alike = len(before) == len(each) or widths.isdisjoint((len(before), len(each)))
        if before and alike and int(before) + 1 == int(each):
            runs[-1] = runs[-1][0], each
        else:
            runs.append((each, each))
    return f"[{','.join(first if first == last else f'{first}-{last}' for first, last in runs)}]"


def written_out(pattern: str) -> Iterator[str]:
    """The hosts of a pattern with ranges such as ``node[1-3,7]``; a pattern without one, or with a glob, is itself.

    A number alone in brackets is no range: it is a class of characters of a glob.
    """
    bracket = None if any(c in pattern for c in "*?") else _first_range(pattern)
    if bracket is None:
        yield pattern
        return
    head, tail = pattern[: bracket.start()], pattern[bracket.end() :]
    for part in bracket[1].split(","):
        first, _, last = part.partition("-")
        width = len(first) if first.startswith("0") else 0
        for number in range(int(first), int(last or first) + 1):
            yield from (f"{head}{str(number).zfill(width)}{rest}" for rest in written_out(tail))


def _first_range(pattern: str) -> re.Match[str] | None:
    return next((each for each in _BRACKET.finditer(pattern) if _is_range(each[1])), None)


def _is_range(text: str) -> bool:
    ends = [part.partition("-")[::2] for part in text.split(",")]
    return ("-" in text or "," in text) and all(not last or int(first) <= int(last) for first, last in ends)


def split(patterns: str) -> list[str]:
    """The patterns of ``-H``: parted by commas, except those between brackets."""
    return [word for word in re.findall(r"(?:\[[^\[\]]*\]|[^,])*", patterns) if word.strip()]
