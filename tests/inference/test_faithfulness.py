"""The check of a saliency map, on models whose evidence is known, and the measures of a method."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from dermadeit.errors import PredictionError, TaskError
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.inference.faithfulness import (
    central_mass,
    check_saliency,
    fill_from_surroundings,
    outline_removed_area,
    perturbation_curves,
    random_masks,
    randomised_correlations,
    salient_mask,
)
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.saliency import SaliencyMap, grad_cam

PATCH = 8
SIDE = 8 * PATCH
SEEN = (2, 5)
"""Row and column of the only patch that `_OnePatch` looks at."""


class _OnePatch(nn.Module):
    """Says “others” the darker one patch is, whatever the rest of the image shows."""

    def __init__(self, spec: object, scale: float = 8.0) -> None:
        super().__init__()
        self.spec = replace(spec, patch_size=PATCH)
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        row, column = (PATCH * index for index in SEEN)
        darkness = -images[:, :, row : row + PATCH, column : column + PATCH].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(darkness), self.scale * darkness], dim=1)


def _with(predictor: Predictor, classifier: nn.Module) -> Predictor:
    return Predictor(predictor.checkpoint.with_classifier(classifier))


@pytest.fixture
def one_patch(predictors: dict[str, Predictor]) -> Predictor:
    predictor = predictors["binary"]
    return _with(predictor, _OnePatch(predictor.checkpoint.classifier.spec))


@pytest.fixture
def photo() -> LesionImage:
    """Noise around middle grey, with a black patch where the model looks."""
    pixels = np.random.default_rng(0).integers(100, 156, (SIDE, SIDE, 3), dtype=np.uint8)
    row, column = (PATCH * index for index in SEEN)
    pixels[row : row + PATCH, column : column + PATCH] = 0
    return decode_image(Image.fromarray(pixels))


def _hot(*cells: tuple[int, int]) -> SaliencyMap:
    values = np.zeros((8, 8), dtype=np.float32)
    for cell in cells:
        values[cell] = 1
    return SaliencyMap(values, "others", "by hand")


def test_a_map_of_the_only_evidence_is_faithful(one_patch: Predictor, photo: LesionImage) -> None:
    check = check_saliency(one_patch, photo, _hot(SEEN))
    assert check.faithful
    assert check.drop > 0.3
    assert check.drop > max(check.random_drops)
    assert len(check.random_drops) == 19
    assert check.p_value == 1 / 20
    # A cell is 1/64 of the image; enlarging it smoothly marks a little around it.
    assert 1 / 64 <= check.removed_share < 4 / 64


@pytest.mark.parametrize("elsewhere", [(6, 1), (5, 5), (0, 0)])
def test_a_map_of_something_else_is_not(
    one_patch: Predictor, photo: LesionImage, elsewhere: tuple[int, int]
) -> None:
    check = check_saliency(one_patch, photo, _hot(elsewhere))
    assert not check.faithful
    assert check.drop == pytest.approx(0, abs=1e-6)


def test_evidence_against_the_class_is_not_evidence_for_it(one_patch: Predictor, photo: LesionImage) -> None:
    check = check_saliency(one_patch, photo, replace(_hot(SEEN), class_key="nevus"))
    assert not check.faithful
    assert check.drop < -0.3


def test_the_line_runs_where_the_removed_area_ends_and_nowhere_else() -> None:
    saliency_map, plain = _hot((0, 0), (4, 4)), np.full((150, 200, 3), 128, dtype=np.uint8)
    lined = (outline_removed_area(plain, saliency_map, SIDE) != plain).any(axis=2)
    removed = salient_mask(saliency_map, SIDE)
    mask = np.asarray(Image.fromarray(removed).resize((200, 150)))
    near = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_erosion(mask, iterations=4)
    assert lined.any()
    assert not (lined & ~near).any()
    # Closed, though one of the two areas lies in a corner: from its middle there is no way out.
    assert ndimage.label(~lined)[1] == 3
    nothing = SaliencyMap(np.zeros((8, 8), dtype=np.float32), "others", "by hand")
    assert np.array_equal(outline_removed_area(plain, nothing, SIDE), plain)


def test_an_answer_that_rests_on_the_whole_image_confirms_no_map(
    one_patch: Predictor, photo: LesionImage
) -> None:
    class Everything(_OnePatch):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            brightness = images.mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(brightness), brightness], dim=1)

    flat = decode_image(Image.new("RGB", (SIDE, SIDE), (90, 60, 50)))
    model = _with(one_patch, Everything(one_patch.checkpoint.classifier.spec))
    assert not check_saliency(model, flat, _hot(SEEN, (2, 6), (3, 5))).faithful


def test_a_map_that_marks_nothing_is_not_faithful(one_patch: Predictor, photo: LesionImage) -> None:
    check = check_saliency(one_patch, photo, _hot())
    assert (check.faithful, check.p_value, check.removed_share) == (False, 1, 0)


def test_maps_without_knowledge_are_seldom_called_faithful(one_patch: Predictor, photo: LesionImage) -> None:
    # Every place for the mark once: only those that cover the evidence may pass.
    passed = [
        (row, column)
        for row in range(8)
        for column in range(8)
        if check_saliency(one_patch, photo, _hot((row, column))).faithful
    ]
    assert SEEN in passed
    assert all(max(abs(row - SEEN[0]), abs(column - SEEN[1])) <= 1 for row, column in passed)


def test_the_image_decides_the_masks(one_patch: Predictor, photo: LesionImage) -> None:
    saliency = _hot(SEEN, (3, 5), (4, 4))
    check = check_saliency(one_patch, photo, saliency)
    assert check == check_saliency(one_patch, photo, saliency)
    same_pixels = replace(photo, sha256=hashlib.sha256(b"another file").hexdigest())
    assert check.random_drops != check_saliency(one_patch, same_pixels, saliency).random_drops


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dermadeit", "mobilenetv2"])
def test_threads_get_the_results_of_a_single_one(
    checkpoint_root: Path, lesion_files: list[Path], model: str
) -> None:
    predictor = load_predictor("binary", model, root=checkpoint_root)
    images = [decode_image(path) for path in lesion_files[:4]]

    def check(image: LesionImage) -> object:
        return check_saliency(predictor, image, grad_cam(predictor, image))

    expected = [check(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        checks = list(pool.map(check, images * 3))
    assert checks == expected * 3


def test_unusable_numbers_are_never_a_verdict(one_patch: Predictor, photo: LesionImage) -> None:
    broken = _with(one_patch, _OnePatch(one_patch.checkpoint.classifier.spec, scale=float("nan")))
    with pytest.raises(PredictionError, match="no usable numbers"):
        check_saliency(broken, photo, _hot(SEEN))
    with pytest.raises(TaskError, match="mel"):
        check_saliency(one_patch, photo, replace(_hot(SEEN), class_key="mel"))


def test_random_masks_differ_from_the_map_in_place_alone() -> None:
    # An L has eight different dihedral views, and away from the edges one outline.
    mask = np.zeros((64, 64), dtype=bool)
    mask[16:48, 16:24] = mask[40:48, 16:40] = True
    masks = random_masks(mask, 50, np.random.default_rng(0), step=8)
    assert masks.shape == (50, 64, 64)

    def outline(image: np.ndarray) -> int:
        return sum((image != np.roll(image, 1, axis)).sum() for axis in (0, 1))

    assert {int(other.sum()) for other in masks} == {int(mask.sum())}
    assert {int(outline(other)) for other in masks} == {int(outline(mask))}
    assert max((other & mask).sum() for other in masks) <= mask.sum() / 2
    # They keep to the grid of the patches, and take more than a few places.
    assert all(cell.all() or not cell.any() for other in masks for cell in _cells(other, 8))
    assert len({other.tobytes() for other in masks}) > 40


def _cells(mask: np.ndarray, side: int) -> Iterator[np.ndarray]:
    for row in range(0, len(mask), side):
        for column in range(0, len(mask), side):
            yield mask[row : row + side, column : column + side]


def test_the_mask_takes_the_most_salient_fifth() -> None:
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    mask = salient_mask(SaliencyMap(values, "mel", "ramp"), 10)
    np.testing.assert_array_equal(mask, np.arange(100).reshape(10, 10) >= 80)


def test_nothing_of_what_is_removed_stays_in_the_fill() -> None:
    skin, lesion = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([0.1, 0.9, 0.1])
    pixels = skin.view(3, 1, 1).expand(3, 64, 64).clone()
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, 10:50, 20:60] = True
    pixels[:, mask[0]] = lesion[:, None]
    removed, untouched = fill_from_surroundings(pixels, mask)
    torch.testing.assert_close(removed, skin.view(3, 1, 1).expand(3, 64, 64))
    torch.testing.assert_close(untouched, pixels, rtol=0, atol=0)


def test_the_fill_takes_after_what_is_near() -> None:
    pixels = torch.zeros(3, 64, 64)
    pixels[:, :, 32:] = 1
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 24:40, 16:48] = True
    [filled] = fill_from_surroundings(pixels, mask)
    row = filled[0, 32, 16:48]
    assert row[0] < 0.1
    assert row[-1] > 0.9
    assert (row.diff() >= 0).all()


def test_curves_of_the_right_map_fall_and_rise_at_once(one_patch: Predictor, photo: LesionImage) -> None:
    right = perturbation_curves(one_patch, photo, _hot(SEEN), steps=16)
    wrong = perturbation_curves(one_patch, photo, _hot((6, 1)), steps=16)
    assert right.shares.tolist() == [index / 16 for index in range(17)]
    # Whichever the map, the ends are the whole image and none of it.
    assert right.deletion[[0, -1]] == pytest.approx(wrong.deletion[[0, -1]], abs=1e-6)
    assert right.insertion[[0, -1]] == pytest.approx(wrong.insertion[[0, -1]], abs=1e-6)
    assert right.deletion[0] == pytest.approx(right.insertion[-1], abs=1e-6)
    assert right.deletion[4] < wrong.deletion[4] - 0.2
    assert right.insertion[4] > wrong.insertion[4]
    assert right.deletion_auc < wrong.deletion_auc
    assert right.insertion_auc > wrong.insertion_auc


@pytest.mark.slow
def test_a_map_of_the_model_does_not_outlive_its_weights(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    predictor = predictors["binary"]
    images = [decode_image(path) for path in lesion_files]
    before = {key: value.clone() for key, value in predictor.checkpoint.classifier.state_dict().items()}
    correlations = randomised_correlations(predictor, images, grad_cam, seed=1)
    assert list(correlations) == ["head", *(f"block {number}" for number in range(12, 0, -1)), "embedding"]
    assert all(values.shape == (len(images),) for values in correlations.values())
    assert correlations["embedding"].mean() < 0.5
    after = predictor.checkpoint.classifier.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_same_weights_again_change_nothing(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    # The fixture's weights are those that seed 0 draws, but for their rounding to 16 bits.
    [image] = [decode_image(lesion_files[0])]
    correlations = randomised_correlations(predictors["binary"], [image], grad_cam, seed=0)
    assert min(values[0] for values in correlations.values()) > 0.95


def test_a_method_that_ignores_the_model_is_found_out(
    checkpoint_root: Path, lesion_files: list[Path]
) -> None:
    predictor = load_predictor("binary", "mobilenetv2", root=checkpoint_root)

    def darkness(_: Predictor, image: LesionImage, class_key: str | None) -> SaliencyMap:
        values = 1 - np.asarray(image.to_pil().convert("L").resize((8, 8)), dtype=np.float32) / 255
        return SaliencyMap(values, class_key or "nevus", "darkness")

    correlations = randomised_correlations(predictor, [decode_image(lesion_files[0])], darkness)
    assert list(correlations) == ["head", *(f"block {number}" for number in range(7, 0, -1)), "embedding"]
    assert all(values == pytest.approx(1) for values in correlations.values())


def test_a_flat_map_resembles_nothing(predictors: dict[str, Predictor], lesion_files: list[Path]) -> None:
    def flat(*_: object) -> SaliencyMap:
        return _hot()

    correlations = randomised_correlations(predictors["binary"], [decode_image(lesion_files[0])], flat)
    assert all(values == 0 for values in correlations.values())


def test_central_mass_is_the_share_inside_the_ellipse() -> None:
    assert central_mass(_hot((3, 3), (3, 4), (4, 3), (4, 4))) == pytest.approx(1, abs=0.01)
    assert central_mass(_hot((0, 0), (7, 7))) == pytest.approx(0, abs=0.01)
    even = SaliencyMap(np.ones((4, 4), dtype=np.float32), "mel", "even")
    # The area of a circle whose diameter is two thirds of the square's side.
    assert central_mass(even) == pytest.approx(np.pi / 9, abs=0.005)
    assert central_mass(_hot()) == 0
