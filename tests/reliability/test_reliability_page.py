"""The page of reliability holds what the scripts have filed, and nothing else."""

from reliability_page import PAGE, reliability_page


def test_the_page_shows_the_figures_that_were_filed() -> None:
    assert PAGE.read_text(encoding="utf-8") == reliability_page(), "run “make reliability-page”"
