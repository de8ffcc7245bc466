"""The names that docs/data.md lists are those that the reader knows."""

from repository import ROOT

from dermadeit.publishing.known_names import known_names


def test_the_docs_list_the_names_that_are_known() -> None:
    """Write them anew with `python -m dermadeit known-names` where this fails."""
    assert known_names() in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
