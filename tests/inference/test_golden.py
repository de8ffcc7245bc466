"""The embedded checkpoints still give the answers that they gave when they were committed.

When an answer changes for a good reason (new weights or calibration, another preprocessing), run
`PYTHONPATH=.:tests/support python tests/inference/test_golden.py` from the root of the repository, look at the
difference, and commit the new `golden_predictions.json` together with what changed it.
"""

import json
from pathlib import Path

import pytest
from repository import ROOT

from dermadeit import load_predictor
from dermadeit.models.checkpoints import answered_tasks

GOLDEN = Path(__file__).parent / "golden_predictions.json"
PICTURES = ROOT / "tests" / "pictures"


def _predict() -> dict[str, dict[str, dict]]:
    images = sorted(PICTURES.glob("*.jpg"))
    return {
        task: {
            result.file: {
                "logits": dict(result.logits),
                "probabilities": dict(result.probabilities),
                "verdict": result.verdict,
            }
            for result in load_predictor(task).predict(images)
        }
        for task in (answered.key for answered in answered_tasks())
    }


@pytest.mark.slow
def test_the_embedded_checkpoints_answer_as_they_did() -> None:
    expected, actual = json.loads(GOLDEN.read_text(encoding="utf-8")), _predict()
    assert actual.keys() == expected.keys()
    for task, images in expected.items():
        assert actual[task].keys() == images.keys()
        for file, answer in images.items():
            # Processors and JPEG decoders differ in the last digits.
            for part in ("logits", "probabilities"):
                assert actual[task][file][part] == pytest.approx(answer[part], abs=0.02), f"{task}, {file}"
            assert actual[task][file]["verdict"] == answer["verdict"], f"{task}, {file}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(_predict(), indent=2) + "\n", encoding="utf-8")
