"""Can a saliency map be believed? It is, where taking away what it shows matters more than chance would have it.

The check of one image (`check_saliency`) removes the most salient fifth of it and asks whether the probability of
the explained class falls further than when as much is removed elsewhere. Two choices make the comparison fair:

- *What is removed elsewhere* is the very same mask, turned or mirrored and shifted by whole patches around the
  image's edges. Area, outline, smoothness and alignment with the patches are those of the map's own mask, so
  only the place differs. Scattered pixels, or blobs of another size, disturb a network more or less than the
  map's mask wherever they lie. Masks that still cover more than half of the map's own are left out: they would
  ask whether the map is right to the patch, which it does not claim.
- *What takes its place* is blended from the pixels that stay, the nearer the more. Black, grey or a mean colour
  would be a picture that no network has seen, and the outline of the mask would itself become evidence (Rong et
  al. 2022, ROAD, 2202.00449). A blurred copy of the photo would leave the colour and size of the lesion in it.
  The mean of the photo's border is skin only where there is no dark corner.

The other functions are for judging a method on many images: deletion and insertion curves (Petsiuk et al. 2018,
RISE, 1806.07421), randomised parameters (Adebayo et al. 2018, 1810.03292), and the mass on the central lesion.

Shapes: S side of the model's input, B masks, P points of a curve, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.special import softmax

from dermadeit.errors import ErrorCode, PredictionError
from dermadeit.imaging.decode import LesionImage
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.inference.predictor import NOT_FINITE, Predictor
from dermadeit.inference.saliency import SaliencyMap

if TYPE_CHECKING:
    import torch
    from torch import nn

REMOVED_SHARE = 0.2
"""Share of the image that the check removes, less where the map marks less."""

RANDOM_MASKS = 19
"""The fewest that can reach `SIGNIFICANCE`: none of them may do as much as the map's own mask."""

SIGNIFICANCE = 0.05

CURVE_STEPS = 20

CENTRAL_DIAMETER = 2 / 3
"""Of the ellipse that stands for the lesion, in sides of the image: dermoscopy centres the lesion."""

_LARGEST_OVERLAP = 0.5
# Bicubic enlargement leaves ripples of half a percent around a patch that stands alone.
_FAINTEST = 0.01
_FILL_DEVIATION = 1 / 16
_COARSER = 4
_CENTRE_SIDE = 120
_LINE_WIDTH = 1 / 240
# Dark beside light: one of them stands out from any skin and any colour of the map.
_LINE_COLOURS = (((16, 16, 16), 2.0), ((255, 255, 255), 1.0))

Explain = Callable[[Predictor, LesionImage, str | None], SaliencyMap]


@dataclass(frozen=True)
class SaliencyCheck:
    """What came of removing the area that a map marks.

    Attributes:
        faithful: Whether the map has shown that it marks what the answer rests on: the probability falls, and
            the p-value is at most `SIGNIFICANCE`. False means not shown, which is also the case where the
            answer rests on the whole image, or on nothing in particular.
        drop: Fall of the explained class's probability, -1 to 1.
        random_drops: The same for each random mask.
        p_value: Share of the masks, the map's own among them, whose removal does at least as much.
        removed_share: Share of the image that each mask removes, 0 to `REMOVED_SHARE`.
    """

    faithful: bool
    drop: float
    random_drops: tuple[float, ...]
    p_value: float
    removed_share: float


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """How the probability of the explained class follows the map.

    Attributes:
        shares: float [P], shares of the image, 0 to 1, most salient pixels first.
        deletion: float [P], the probability with that share removed.
        insertion: float [P], the probability with only that share sharp and the rest blurred.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_auc(self) -> float:
        """Area under the deletion curve, 0 to 1; lower is better."""
        return _area(self.shares, self.deletion)

    @property
    def insertion_auc(self) -> float:
        """Area under the insertion curve, 0 to 1; higher is better."""
        return _area(self.shares, self.insertion)


def check_saliency(predictor: Predictor, image: LesionImage, saliency_map: SaliencyMap) -> SaliencyCheck:
    """Does the answer rest on what a map marks? One pass through the model, without test-time augmentation.

    The same image and map give the same result: the masks are drawn from the image's hash.

    Args:
        predictor: The model that the map explains.
        image: The image that it explains.
        saliency_map: The map, for any class.

    Returns:
        The result; a map that marks nothing is not faithful, with a p-value of 1.

    Raises:
        TaskError: The map is about a class that the model doesn't know.
        PredictionError: The model gives no usable numbers for this image.
    """
    import torch

    index = predictor.checkpoint.task.index_of(saliency_map.class_key)
    pixels = _resized(predictor, image)
    mask = salient_mask(saliency_map, pixels.shape[-1])
    rng = np.random.default_rng([0, int(image.sha256, 16)])
    # A shift by anything but whole patches would cut more patches in two than the map's own mask does.
    step = predictor.checkpoint.spec.patch_size or 1
    removed = np.concatenate([mask[None], random_masks(mask, RANDOM_MASKS, rng, step)])
    perturbed = torch.cat([pixels[None], fill_from_surroundings(pixels, torch.from_numpy(removed))])
    intact, *left = _probabilities(predictor, perturbed, index)
    drop, *random_drops = (float(intact - probability) for probability in left)
    p_value = (1 + sum(other >= drop for other in random_drops)) / (1 + RANDOM_MASKS)
    return SaliencyCheck(
        drop > 0 and p_value <= SIGNIFICANCE, drop, tuple(random_drops), p_value, float(mask.mean())
    )


def perturbation_curves(
    predictor: Predictor, image: LesionImage, saliency_map: SaliencyMap, *, steps: int = CURVE_STEPS
) -> PerturbationCurves:
    """Deletion and insertion (Petsiuk et al. 2018, 1806.07421), without test-time augmentation.

    Deletion fills from the surroundings, where RISE fills with zeros; insertion starts from a blurred photo, as
    in RISE.

    Args:
        predictor: The model that the map explains.
        image: The image that it explains.
        saliency_map: The map, for any class.
        steps: The curves have one point more.

    Raises:
        TaskError: The map is about a class that the model doesn't know.
        PredictionError: The model gives no usable numbers for this image.
    """
    import torch

    index = predictor.checkpoint.task.index_of(saliency_map.class_key)
    pixels = _resized(predictor, image)
    size = pixels.shape[-1]
    shares = np.linspace(0, 1, steps + 1)
    ranks = np.empty(size * size)
    ranks[_by_salience(saliency_map, size)] = np.arange(size * size)
    shown = torch.from_numpy(ranks.reshape(size, size) < shares[:, None, None] * size * size)
    nothing = torch.zeros(1, size, size, dtype=torch.bool)
    blurred = fill_from_surroundings(pixels, nothing, everywhere=True)
    inserted = torch.where(shown[:, None], pixels, blurred)
    perturbed = torch.cat([fill_from_surroundings(pixels, shown), inserted])
    deletion, insertion = np.split(_probabilities(predictor, perturbed, index), 2)
    return PerturbationCurves(shares, deletion, insertion)


def randomised_correlations(
    predictor: Predictor, images: Sequence[LesionImage], explain: Explain, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Cascading parameter randomisation (Adebayo et al. 2018, 1810.03292).

    A map that explains the model must change when the model's weights are replaced, one stage after the other
    from the head down to the embedding, by those that a training would start from.

    Args:
        predictor: The model; it is copied, not changed.
        images: N images.
        explain: The method; the class is the one that the intact model predicts.
        seed: Decides the random weights.

    Returns:
        Stage, in the order in which they are randomised, to Spearman's rank correlation with the intact model's
        map, float [N], -1 to 1; 0 where either map is flat.
    """
    import torch

    from dermadeit.models.classifier import create_classifier

    checkpoint = predictor.checkpoint
    classifier = deepcopy(checkpoint.classifier)
    randomised = Predictor(checkpoint.with_classifier(classifier), predictor.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = create_classifier(
            checkpoint.model, len(checkpoint.network.classes), image_size=checkpoint.preprocessing.size
        )
    intact = [explain(predictor, image, None) for image in images]
    correlations = {}
    for stage, state in _stages_from_the_top(fresh.backbone).items():
        classifier.backbone.load_state_dict(state, strict=False)
        maps = [
            explain(randomised, image, known.class_key) for image, known in zip(images, intact, strict=True)
        ]
        correlations[stage] = np.array(
            [_rank_correlation(known.values, other.values) for known, other in zip(intact, maps, strict=True)]
        )
    return correlations


def central_mass(saliency_map: SaliencyMap) -> float:
    """Share of a map's mass inside the central ellipse of `CENTRAL_DIAMETER`; 0 for a map that marks nothing."""
    values = saliency_map.resized(_CENTRE_SIDE, _CENTRE_SIDE)
    total = values.sum(dtype=float)
    return float(values[central_area(_CENTRE_SIDE)].sum(dtype=float) / total) if total > 0 else 0.0


def central_area(side: int) -> np.ndarray:
    """The central ellipse, bool [side, side]; its mean is what `central_mass` gives a map that is even."""
    offsets = (np.arange(side) + 0.5) / side - 0.5
    return np.hypot(*np.meshgrid(offsets, offsets)) <= CENTRAL_DIAMETER / 2


def salient_mask(saliency_map: SaliencyMap, size: int) -> np.ndarray:
    """The most salient pixels: bool [size, size], `REMOVED_SHARE` of them, or fewer where the map marks less."""
    marked = np.count_nonzero(saliency_map.resized(size, size) > _FAINTEST)
    mask = np.zeros(size * size, dtype=bool)
    mask[_by_salience(saliency_map, size)[: min(round(REMOVED_SHARE * size * size), marked)]] = True
    return mask.reshape(size, size)


def outline_removed_area(pixels: np.ndarray, saliency_map: SaliencyMap, side: int) -> np.ndarray:
    """Draws a line around the area that `check_saliency` removes.

    Args:
        pixels: uint8 [H, W, 3], the whole image or the map over it, at any size.
        saliency_map: The map that is checked.
        side: Side of the model's input, in pixels: the area is found there.

    Returns:
        uint8 [H, W, 3]; without a line where the map marks nothing.
    """
    height, width = pixels.shape[:2]
    drawn = pixels.astype(float)
    for colour, cover in _line_covers(saliency_map, side, width, height):
        drawn += cover[..., None] * (np.array(colour) - drawn)
    return np.round(drawn).astype(np.uint8)


def draw_outline(saliency_map: SaliencyMap, side: int, width: int, height: int) -> np.ndarray:
    """The line of `outline_removed_area` alone, to lie over a picture.

    Args:
        saliency_map: The map that is checked.
        side: Side of the model's input, in pixels.
        width: Of the drawing, in pixels.
        height: Likewise.

    Returns:
        uint8 [height, width, 4], RGBA; clear where the map marks nothing.
    """
    colours, opacity = np.zeros((height, width, 3)), np.zeros((height, width))
    for colour, cover in _line_covers(saliency_map, side, width, height):
        # The lower line is the wider one, so that what lies under the upper one need not be known.
        colours += cover[..., None] * (np.array(colour) - colours)
        opacity = np.maximum(opacity, cover)
    return np.round(np.dstack([colours, opacity * 255])).astype(np.uint8)


def _line_covers(
    saliency_map: SaliencyMap, side: int, width: int, height: int
) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """Colour of each part of the line, the lower one first, and how much of each pixel it covers, 0 to 1."""
    mask = Image.fromarray(salient_mask(saliency_map, side).astype(np.uint8) * 255)
    # The frame around the picture closes the line where the area reaches the picture's edge.
    inside = np.pad(np.asarray(mask.resize((width, height), Image.Resampling.BICUBIC)) > 127, 1)
    if not inside.any():
        return
    to_edge, from_edge = (np.asarray(ndimage.distance_transform_edt(area)) for area in (inside, ~inside))
    away = (to_edge + from_edge)[1:-1, 1:-1]
    for colour, widths in _LINE_COLOURS:
        reach = max(1.0, widths * _LINE_WIDTH * max(width, height) / 2)
        yield colour, np.clip(reach + 1 - away, 0, 1)


def random_masks(mask: np.ndarray, count: int, rng: np.random.Generator, step: int = 1) -> np.ndarray:
    """The same mask elsewhere: one of the eight dihedral views, shifted around the edges.

    Args:
        mask: bool [S, S].
        count: How many to draw, with replacement.
        rng: Decides the draws.
        step: Shifts are multiples of this many pixels.

    Returns:
        bool [count, S, S], each of the mask's area. None covers more than half of `mask`, unless a map is so
        regular that three draws for each do not find enough.
    """
    size = len(mask)
    draws = 3 * count
    views = rng.integers(DIHEDRAL_VIEWS, size=draws)
    shifts = step * rng.integers(size // step, size=(draws, 2))
    turned = [np.rot90(np.fliplr(mask) if view >= 4 else mask, view) for view in range(DIHEDRAL_VIEWS)]
    candidates = np.stack(
        [np.roll(turned[view], shift, axis=(0, 1)) for view, shift in zip(views, shifts, strict=True)]
    )
    covered = candidates[:, mask].mean(axis=1) if mask.any() else np.zeros(draws)
    return candidates[np.argsort(covered > _LARGEST_OVERLAP, kind="stable")[:count]]


def fill_from_surroundings(
    pixels: torch.Tensor, masks: torch.Tensor, *, everywhere: bool = False
) -> torch.Tensor:
    """Replaces masked pixels by a blend of the others, weighted by a Gaussian of their distance.

    This is normalised convolution (Knutsson and Westin 1993), on a grid four times coarser than the image: the
    result is smooth anyway. With nothing left to blend, the image's mean colour stands in.

    Args:
        pixels: float32 [3, S, S].
        masks: bool [B, S, S], true where a pixel is to be replaced.
        everywhere: Also show the blend where pixels stay, which makes a blurred image.

    Returns:
        float32 [B, 3, S, S].
    """
    import torch
    from torch.nn import functional as F

    size = pixels.shape[-1]
    side = -(-size // _COARSER)
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    # Untruncated and in double precision, so that the middle of a large mask is reached too.
    blur = torch.exp(-((centres[:, None] - centres) ** 2) / (2 * _FILL_DEVIATION**2))
    kept = (~masks[:, None]).to(pixels.dtype)
    coarse = F.adaptive_avg_pool2d(torch.cat([pixels * kept, kept], dim=1), side).double()
    blended = blur @ coarse @ blur.T
    colours, weight = blended[:, :3], blended[:, 3:]
    mean = pixels.mean(dim=(1, 2), dtype=torch.float64).view(3, 1, 1)
    fill = torch.where(weight > 0, colours / weight.clamp_min(torch.finfo(torch.float64).tiny), mean)
    fill = F.interpolate(fill.to(pixels.dtype), (size, size), mode="bilinear", align_corners=False)
    return fill if everywhere else torch.where(masks[:, None], fill, pixels)


def _resized(predictor: Predictor, image: LesionImage) -> torch.Tensor:
    """The image as the model gets it, before normalisation: float32 [3, S, S] in 0 to 1."""
    return predictor.checkpoint.preprocessing.resize(image.pixels).float() / 255


def _area(shares: np.ndarray, curve: np.ndarray) -> float:
    from sklearn.metrics import auc

    return float(auc(shares, curve))


def _by_salience(saliency_map: SaliencyMap, size: int) -> np.ndarray:
    """Flat pixel positions of the map at [size, size], most salient first."""
    return np.argsort(-saliency_map.resized(size, size), axis=None, kind="stable")


def _probabilities(predictor: Predictor, pixels: torch.Tensor, index: int) -> np.ndarray:
    """Probability of one class: float32 [B, 3, S, S] in 0 to 1 to float64 [B]."""
    with predictor.lock:
        logits = predictor.runtime.logits(pixels.numpy())
    if not np.isfinite(logits).all():
        raise PredictionError(NOT_FINITE, code=ErrorCode.NON_FINITE_OUTPUT)
    return predictor.checkpoint.groups.read(softmax(logits.astype(float), axis=1))[:, index]


def _stages_from_the_top(backbone: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a timm backbone by stage: head, blocks from the last to the first, embedding."""
    stages: dict[str, dict[str, torch.Tensor]] = {}
    stage = "embedding"
    for key, value in backbone.state_dict().items():
        if key.startswith("blocks."):
            stage = f"block {int(key.split('.')[1]) + 1}"
        elif stage != "embedding":
            stage = "head"
        stages.setdefault(stage, {})[key] = value
    return dict(reversed(stages.items()))


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    from scipy import stats

    if not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])
