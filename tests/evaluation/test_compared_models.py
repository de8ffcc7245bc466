"""Models of one batch compared: with labels, without, and where some image got no answer."""

from collections.abc import Sequence

import pytest

from dermadeit.data.collection import CollectedImage
from dermadeit.errors import ResultFileError
from dermadeit.evaluation.batch import BatchItem, BatchResult, gather_batch_models
from dermadeit.evaluation.comparison import compute_kappas, find_disagreements
from dermadeit.inference.records import ABSTAIN, ANSWER, ItemFailure, Prediction
from dermadeit.tasks import BINARY


def _record(share: float | None, *, withheld: bool = False) -> Prediction | ItemFailure:
    """An answer with this probability of `others`, or a failure."""
    if share is None:
        return ItemFailure("a.jpg", None, "binary", "m", code="not_an_image", message="It is a text.")
    probabilities = {"nevus": 1 - share, "others": share}
    return Prediction(
        "a.jpg",
        "0" * 64,
        "binary",
        "m",
        max(probabilities, key=probabilities.__getitem__),
        probabilities,
        {"nevus": 0.0, "others": 10 * share},
        views=8,
        ledger=(),
        warnings=(),
        calibrated=True,
        verdict=ABSTAIN if withheld else ANSWER,
    )


def _result(
    rows: Sequence[tuple[Prediction | ItemFailure, ...]], labels: Sequence[str] | None = None
) -> BatchResult:
    items = tuple(
        BatchItem(
            CollectedImage(
                f"i{number}", f"i{number}.jpg", labels[number] if labels else "", "", "", "", {}, bytes
            ),
            {},
            None,
            records,
        )
        for number, records in enumerate(rows)
    )
    models = ("dermadeit", "deit")
    return BatchResult(
        BINARY,
        models,
        dict.fromkeys(models, 8),
        items,
        left_out=(),
        notes=(),
        labelled=labels is not None,
        calibrations=dict.fromkeys(models),
        weights={"dermadeit": "ab", "deit": None},
    )


def test_models_of_a_batch_are_compared_on_what_all_have_read() -> None:
    rows = [(_record(0.9), _record(0.2)), (_record(0.8), _record(None)), (_record(0.1), _record(0.3))]
    ours, theirs = gather_batch_models(_result(rows, ["others", "others", "nevus"]))
    assert (ours.title, theirs.title) == ("DermaDeiT (tiny)", "DeiT (tiny)")
    assert ours.predictions.image_ids == theirs.predictions.image_ids == ("i0", "i2")
    assert (ours.dropped, theirs.dropped) == (1, 0)
    assert ours.labelled
    assert (ours.predictions.weights_sha256, theirs.predictions.weights_sha256) == ("ab", "")
    [found] = find_disagreements([ours, theirs])
    assert (found.image_id, found.label, found.wrong) == ("i0", "others", 1)
    assert found.scores == pytest.approx({ours.title: 0.9, theirs.title: 0.2})


def test_without_labels_models_still_agree_or_not() -> None:
    rows = [(_record(0.9, withheld=True), _record(0.2)), (_record(0.1), _record(0.3))]
    compared = gather_batch_models(_result(rows))
    assert not any(model.labelled for model in compared)
    [found] = find_disagreements(compared)
    assert (found.image_id, found.label, found.withheld) == ("i0", "", ("DermaDeiT (tiny)",))
    assert compute_kappas(compared) == {("DermaDeiT (tiny)", "DeiT (tiny)"): pytest.approx(0)}


def test_a_batch_of_which_nothing_was_read_says_why() -> None:
    with pytest.raises(ResultFileError, match=r"It is a text\.$"):
        gather_batch_models(_result([(_record(None), _record(None))], ["nevus"]))
    with pytest.raises(ResultFileError, match="No image was read by every model"):
        gather_batch_models(_result([(_record(0.9), _record(None)), (_record(None), _record(0.2))]))
