"""The programs of docs/api.md read a photo on the running app, and tools find every endpoint."""

import re

import httpx
import pytest
from repository import ROOT


@pytest.fixture
def programs(app_url, monkeypatch):
    """The documented programs, with the address of the running app."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text.replace("http://127.0.0.1:7860", app_url), re.DOTALL)


def test_a_photo_is_read_with_any_http_client(programs, predictors):
    [program] = [program for program in programs if "gradio_client" not in program]
    names = {}
    exec(program, names)
    [expected] = predictors["binary"].predict([ROOT / "assets" / "examples" / "ISIC_0000185.jpg"])
    assert names["record"]["label"] == expected.label
    assert names["record"]["probabilities"] == pytest.approx(dict(expected.probabilities))


def test_openapi_describes_every_endpoint(app_url):
    paths = httpx.get(f"{app_url}/gradio_api/openapi.json").json()["paths"]
    described = {name for path in paths for name in re.findall(r"/(predict|explain|evaluate)$", path)}
    assert described == {"predict", "explain", "evaluate"}
