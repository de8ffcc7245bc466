"""The HTML report as a file that someone has been sent: opened, read on a phone, printed."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.reporting.evaluation_report import evaluation_report
from dermadeit.reporting.figures import confusion_figure, roc_curves
from dermadeit.reporting.photo_report import ReportFigure, single_image_report
from dermadeit.tasks import get_task

pytestmark = pytest.mark.browser

LONG_NAME = "x" * 300 + ".jpg"
A4_POINTS = (595, 842)


def _single() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 150, 140)).save(buffer, "PNG")
    reading = {
        "file": LONG_NAME, "task": "binary", "model": "dermadeit", "verdict": "answer", "label": "nevus",
        "probabilities": {"nevus": 0.9, "others": 0.1}, "calibrated": False, "views": 8, "warnings": [LONG_NAME],
        "weights_sha256": "cd" * 32,
    }  # fmt: skip
    exported = {
        "image": {
            "sha256": "ab" * 32,
            "format": "JPEG",
            "width": 640,
            "height": 480,
            "ledger": ["Alpha dropped"],
        },
        "readings": [reading],
    }
    overlay = ReportFigure("Grad-CAM", buffer.getvalue(), "The photo under its heatmap")
    return single_image_report(exported, buffer.getvalue(), [overlay])


def _evaluation() -> str:
    labels = np.arange(60) % 3
    probabilities = 0.2 + 0.4 * np.eye(3)[np.where(np.arange(60) % 5 > 0, labels, 0)]
    sets = [
        PredictionSet(
            get_task("multiclass"), model, 8, tuple(map(str, range(60))), labels, np.log(probabilities),
            probabilities, tuple(map(str, range(60))), ("ham10000",) * 60, ("test",) * 60,
        )
        for model in ("dermadeit", "deit", "mobilenetv2", "efficientnetv2-b0", LONG_NAME)
    ]  # fmt: skip
    return evaluation_report(
        "Evaluation of five models",
        [
            {"model": part.model, "task": part.task.key, "views": 8, **measure(part).to_dict()}
            for part in sets
        ],
        [("ROC", roc_curves(sets)), ("Images", confusion_figure(sets[0]))],
        [{"file": LONG_NAME, "model": "deit", "code": "image_refused", "message": "The file is empty."}],
    )


@pytest.mark.parametrize("make_report", [_single, _evaluation])
def test_report_opens_from_a_file_asks_for_nothing_and_prints_on_a4(make_report, chromium, tmp_path) -> None:
    path = tmp_path / "report.html"
    path.write_text(make_report(), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    for width in (320, 390, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1
    assert page.locator("figure").count() == 2
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    [(width, height)] = set(re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf))
    assert (round(float(width)), round(float(height))) == A4_POINTS
    # Nothing is cut off at the right of a page with 16 mm margins.
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 672, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 672
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()
