"""The page of error codes, docs/errors.md, written from the enum."""

from __future__ import annotations

from pathlib import Path

from dermadeit.errors import ErrorCode
from dermadeit.files import write_atomically

_OPENING = """# Error codes

<!-- Written by `python -m dermadeit error-codes` from `dermadeit.errors.ErrorCode`. Change it there. -->

Every mistake that a user can mend has a code. It stands in the records of `predict`, in `failures.csv`, in the
answers of the endpoints and, as `data-code`, on the page. The message beside it says what to do. Codes stay as
they are from version to version; messages may change. After such a mistake the command line ends with exit code 2.

| code | what went wrong |
| --- | --- |
"""


def error_codes_page() -> str:
    """The page as Markdown."""
    return _OPENING + "".join(f"| `{code}` | {code.meaning} |\n" for code in ErrorCode)


def write_error_codes(path: Path) -> None:
    """Writes the page atomically."""
    write_atomically(path, lambda partial: partial.write_text(error_codes_page(), encoding="utf-8"))
