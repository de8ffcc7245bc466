"""Writes docs/licences.md: what every package says of its licence that the app, the training or the tests need.

    make licences

The packages are those that are installed, the ones that others need among them. Their versions differ from machine
to machine and are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import ROOT

from dermadeit.files import write_atomically

PAGE = ROOT / "docs" / "licences.md"

_COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
_LONGEST = 60

_OPENING = """# Licences of dependencies

<!-- Written by `make licences` from the metadata of the installed packages. -->

What each package says of itself. The code of DermaDeiT is under [Apache-2.0](../LICENSE), the embedded checkpoints
under [their own licence](../assets/checkpoints/LICENSE.md). Compiled packages may hold libraries under other
licences, which their own files name.

| package | licence |
| --- | --- |
"""


def required(lines: Iterable[str]) -> dict[str, Distribution]:
    """Name of each package that these requirements need, with all that these need, to what is installed of it."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(line) for line in lines]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        extras = needed.extras or {""}
        if needed.marker is not None and not any(
            needed.marker.evaluate({"extra": extra}) for extra in extras
        ):
            continue
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            # Of another system, or of an extra.
            continue
        for line in found[name].requires or ():
            below = Requirement(line)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                below.marker = None
                waiting.append(below)
    return found


def licence_of(package: Distribution) -> str:
    """What a package says of its licence, in a few words."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    named = [
        entry.split(" :: ")[-1]
        for entry in metadata.get_all("Classifier") or ()
        if entry.startswith("License ::")
    ]
    if named := [entry for entry in named if entry != "OSI Approved"]:
        return ", ".join(named)
    first = (metadata.get("License") or "").strip().splitlines()
    return first[0][:_LONGEST] if first else "see its files"


def is_copyleft(licence: str) -> bool:
    """Whether a licence is one of those that would bind the whole app; the lesser ones of GNU do not."""
    choices = re.split(r"\bOR\b|, ", licence)
    return all(
        _COPYLEFT.search(choice) and "Lesser" not in choice and "LGPL" not in choice for choice in choices
    )


def requirements() -> list[str]:
    """The lines of requirements.txt that name a package."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def main() -> int:
    """Writes the page; returns the exit code."""
    packages = required(requirements())
    rows = "".join(f"| {name} | {licence_of(packages[name])} |\n" for name in sorted(packages))
    write_atomically(PAGE, lambda partial: partial.write_text(_OPENING + rows, encoding="utf-8"))
    sys.stdout.write(f"{PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
