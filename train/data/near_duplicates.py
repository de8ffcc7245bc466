"""Copies of one photo under several names: resized, recompressed or slightly retouched.

Two steps. A 64-bit perceptual hash proposes pairs; many of them are only two lesions in the middle of the same
round frame. So each pair is confirmed on fine detail (hair, skin marks, pigment), away from dark frames, with
strong edges clipped so that neither a lesion's outline nor a frame's fall-off can decide by itself.

The limits were set on 23,187 images of ISIC 2019, 84 to 200 pixels wide, against groups that were found before by
other means: 12,744 of those 12,748 come out alike. By eye, the rest are a copy that they lack, a group that joins
two lesions, and one pair that could be either.
Mirrored and turned copies are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, minimum_filter
from tqdm import tqdm

MAX_HASH_DISTANCE = 10
MIN_DETAIL_CORRELATION = 0.5

_HASH_SIDE = 32
_DETAIL_SIDE = 64
_DETAIL_SIGMA = 2.0
_FRAME_LEVEL = 0.3
_FRAME_REACH = 15
_CLIP = 2.0
_MIN_COMMON_SHARE = 0.15
_BLOCK_IMAGES = 512
_BLOCK_PAIRS = 2048


def perceptual_hash(pixels: np.ndarray) -> int:
    """The 64 lowest frequencies of a photo, each above or below their median.

    The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).

    Args:
        pixels: uint8 [H, W, 3], sRGB.

    Returns:
        64 bits. Copies of a photo differ in few of them, different photos in about half.
    """
    frequencies = np.asarray(dctn(_grey_square(pixels, _HASH_SIDE), norm="ortho"))[:8, :8].ravel()
    # The first one is the mean brightness, on another scale than the rest.
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_near_duplicates(hashes: list[int], read_pixels: Callable[[int], np.ndarray]) -> np.ndarray:
    """Finds the pairs of photos that are copies of each other.

    Args:
        hashes: `perceptual_hash` of N photos.
        read_pixels: Position of a photo to its pixels, uint8 [H, W, 3]. Called once for each photo of a
            proposed pair.

    Returns:
        int64 [P, 2], positions in ascending order, first < second.
    """
    pairs = _similar_hashes(hashes)
    positions, indices = np.unique(pairs, return_inverse=True)
    indices = indices.reshape(pairs.shape)
    details = np.empty((len(positions), _DETAIL_SIDE**2), dtype=np.int8)
    masks = np.empty(details.shape, dtype=bool)
    for index, position in enumerate(tqdm(positions.tolist(), desc="near duplicates", disable=None)):
        details[index], masks[index] = _fine_detail(read_pixels(position))
    confirmed = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _BLOCK_PAIRS):
        first, second = indices[start : start + _BLOCK_PAIRS].T
        correlation = _correlation(details[first], details[second], masks[first] & masks[second])
        confirmed[start : start + _BLOCK_PAIRS] = correlation >= MIN_DETAIL_CORRELATION
    return pairs[confirmed]


def _similar_hashes(hashes: list[int]) -> np.ndarray:
    """All pairs of hashes up to `MAX_HASH_DISTANCE` bits apart, as int64 [P, 2]."""
    packed = np.frombuffer(b"".join(value.to_bytes(8, "big") for value in hashes), dtype=np.uint8)
    signs = np.unpackbits(packed.reshape(len(hashes), 8), axis=1).astype(np.float32) * 2 - 1
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(signs), _BLOCK_IMAGES):
        # A product of signs counts equal bits minus different ones, at the speed of a matrix product.
        agreement = signs[start : start + _BLOCK_IMAGES] @ signs[start:].T
        first, second = np.nonzero(agreement >= 64 - 2 * MAX_HASH_DISTANCE)
        later = second > first
        found.append(np.stack([first[later], second[later]], axis=1) + start)
    return np.concatenate(found)


def _fine_detail(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of a photo without its slow changes: int8 [4096], and where it counts: bool [4096]."""
    grey = _grey_square(pixels, _DETAIL_SIDE)
    detail = grey - gaussian_filter(grey, _DETAIL_SIGMA)
    # Relative to the skin, so that dark skin is not taken for a frame.
    mask = minimum_filter(grey, _FRAME_REACH) > _FRAME_LEVEL * np.percentile(grey, 95)
    limit = _CLIP * np.median(np.abs(detail[mask])) if mask.any() else 0.0
    if limit == 0:
        return np.zeros(detail.size, dtype=np.int8), np.zeros(detail.size, dtype=bool)
    return np.rint(np.clip(detail / limit, -1, 1) * 127).astype(np.int8).ravel(), mask.ravel()


def _correlation(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pearson's correlation of rows within a mask; 0 where too little is common. float32 [P]."""
    weights = mask.astype(np.float32)
    count = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    centred = []
    for values in (first, second):
        values = values.astype(np.float32) * weights
        centred.append((values - values.sum(axis=1, keepdims=True) / count) * weights)
    product = (centred[0] * centred[1]).sum(axis=1)
    scale = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    enough = count[:, 0] >= _MIN_COMMON_SHARE * mask.shape[1]
    return np.where(enough & (scale > 0), product / np.maximum(scale, 1), 0.0)


def _grey_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """A photo squashed to a grey square, float32 [side, side], 0 to 255."""
    grey = Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(grey, dtype=np.float32)
