"""Templates escape what comes from outside, and numbers are written in one way."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from dermadeit.reporting import format as numbers
from dermadeit.reporting import templates


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Renders a template's text: `shown("<p>{{ name }}</p>", name="a")`."""
    monkeypatch.setattr(templates, "_PACKAGE", tmp_path)
    templates._environment.cache_clear()

    def show(text, **context):
        (tmp_path / "part.html").write_text(text, encoding="utf-8")
        return templates.render("part.html", **context)

    yield show
    templates._environment.cache_clear()


def test_text_from_outside_is_escaped_and_what_hides_in_it_is_shown(shown):
    assert shown("<p>{{ name }}</p>", name='<b onclick="x">\u202e.gpj') == (
        "<p>&lt;b onclick=&#34;x&#34;&gt;[U+202E].gpj</p>"
    )
    assert shown("{{ name }}", name=Markup("<b>ours</b>")) == "<b>ours</b>"


def test_a_name_that_a_template_lacks_is_an_error(shown):
    with pytest.raises(UndefinedError):
        shown("{{ missing }}")


def test_templates_write_numbers_as_everything_else_does(shown):
    assert shown("{{ 0.8612 | percent }} {{ 2000 | counted('image') }}") == (
        f"{numbers.percent(0.8612)} {numbers.counted(2000, 'image')}"
    )


def test_a_figure_without_a_value_is_a_dash_and_one_without_an_interval_stands_alone():
    assert numbers.figure(None) == numbers.NOTHING == numbers.decimal(None) == numbers.p_value(None)
    assert numbers.figure(0.8612, (0.84, 0.88)) == "0.861 [0.840, 0.880]"
    assert numbers.difference(0.02) == "+0.020"
    assert (numbers.counted(1, "view"), numbers.counted(0, "view")) == ("1 view", "0 views")
    assert (numbers.any_value(1e-4), numbers.any_value(0.0), numbers.any_value(2000)) == (
        "0.0001",
        "0.000",
        "2,000",
    )
