"""Draws one synthetic, dermoscopy-like picture of a skin lesion from a recipe, with numpy and Pillow alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


@dataclass(frozen=True)
class LesionRecipe:
    """Everything that decides how one picture looks.

    Attributes:
        seed: 0 or more; decides all that is random, so the same recipe gives the same pixels.
        skin: sRGB of the skin, each 0 to 255.
        colours: One to four sRGB colours of the lesion, from its rim to its patches, each 0 to 255.
        radius: Mean radius as a share of the short side, 0.1 to 0.48.
        elongation: Long over short axis, 1 to 1.8.
        irregularity: Roughness of the outline, 0 (smooth ellipse) to 0.5.
        border: Width of the transition to the skin as a share of the radius, 0.03 (sharp) to 0.5.
        strength: How much of the lesion's colour covers the skin, 0 to 1.
        network: Contrast of the pigment network, 0 to 1.
        dots: Number of brown dots and globules, 0 to 150.
        veil: Opacity of the blue-grey veil, 0 to 1.
        vessels: Number of branching vessels, 0 to 12.
        lacunae: Number of red-purple lakes, 0 to 30.
        scale: Amount of white-yellow scale and keratin, 0 to 1.
        cysts: Number of whitish milia-like cysts, 0 to 30.
        scar: Opacity of a white central patch, 0 to 1.
        hairs: Number of hair strokes, 0 to 40.
        vignette: Darkening of the corners, 0 to 1.
    """

    seed: int
    skin: tuple[int, int, int]
    colours: tuple[tuple[int, int, int], ...]
    radius: float = 0.3
    elongation: float = 1.1
    irregularity: float = 0.08
    border: float = 0.15
    strength: float = 0.85
    network: float = 0.0
    dots: int = 0
    veil: float = 0.0
    vessels: int = 0
    lacunae: int = 0
    scale: float = 0.0
    cysts: int = 0
    scar: float = 0.0
    hairs: int = 0
    vignette: float = 0.3


def render_lesion(recipe: LesionRecipe, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Draws a recipe.

    Args:
        recipe: How the picture looks.
        size: Width and height in pixels, each 64 or more.

    Returns:
        An RGB image without metadata, the same for the same arguments.
    """
    rng = np.random.default_rng(recipe.seed)
    width, height = size
    short = min(size)
    x, y = _coordinates(size)
    colour = _skin(recipe, rng, size)
    depth, angle = _depth(recipe, rng, x, y)
    inside = _smoothstep(depth / recipe.border + 0.5)
    lesion = _pigment(recipe, rng, size, depth, angle)
    colour += (recipe.strength * inside)[..., None] * (lesion - colour)
    marks = _Marks(rng, size, depth)
    if recipe.dots:
        colour = marks.blobs(colour, recipe.dots, (0.003, 0.010), np.array(recipe.colours).min(0) * 0.5, 0.65)
    if recipe.lacunae:
        colour = marks.blobs(colour, recipe.lacunae, (0.025, 0.06), np.array((98, 14, 36)), 0.7)
    if recipe.veil:
        haze = 0.9 * _noise(rng, size, 3) + 0.35 * _noise(rng, size, 12)
        patch = _smoothstep(haze + 0.3) * _smoothstep(depth * 2.5 - 0.5)
        colour += (recipe.veil * patch)[..., None] * (np.array((104, 110, 126), np.float32) - colour)
    if recipe.scar:
        patch = _smoothstep(depth * 1.6 - 0.65 + 0.4 * _noise(rng, size, 8) + 0.2 * _noise(rng, size, 22))
        colour += (recipe.scar * patch)[..., None] * (np.array((240, 222, 212), np.float32) - colour)
    if recipe.scale:
        rough = 0.7 * _noise(rng, size, 6) + 0.6 * _noise(rng, size, 18) + 0.5 * _noise(rng, size, 50)
        flakes = _smoothstep(rough * 1.1 - 0.25 + 0.7 * recipe.scale)
        cover = flakes * _smoothstep(depth * 2.5) * (0.35 + 0.45 * recipe.scale)
        colour += cover[..., None] * (np.array((244, 232, 208), np.float32) - colour)
    if recipe.cysts:
        colour = marks.blobs(colour, recipe.cysts, (0.005, 0.012), np.array((240, 224, 196)), 0.6)
    if recipe.vessels:
        colour = marks.vessels(colour, recipe.vessels)
    if recipe.hairs:
        colour = _hairs(colour, rng, size, recipe.hairs)
    light = 1 + 0.07 * (x * np.cos(rng.uniform(0, 6.3)) + y * np.sin(rng.uniform(0, 6.3))) * 2 / short
    distance = (x / (width / 2)) ** 2 + (y / (height / 2)) ** 2
    light *= 1 - recipe.vignette * 0.6 * _smoothstep(distance - 0.75)
    colour *= light[..., None]
    colour += rng.standard_normal((height, width, 1), np.float32) * 2.2
    colour += rng.standard_normal((height, width, 3), np.float32) * 1.2
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))


def draw_hair_curve(rng: np.random.Generator, size: np.ndarray, along: float, longest: float) -> np.ndarray:
    """Draws the course of one hair at random: a curve that begins near the picture and may leave it.

    Args:
        rng: What is drawn from.
        size: int [2], width and height of the picture in pixels.
        along: Direction that the hairs of the picture share, in radians.
        longest: The most that it reaches, as a share of the short side; the least is a half.

    Returns:
        float [24, 2], points (x, y) in pixels.
    """
    start = rng.uniform(-0.1, 1.1, 2) * size
    heading = along + rng.normal(0, 0.35)
    reach = rng.uniform(0.5, longest) * size.min()
    end = start + reach * np.array((np.cos(heading), np.sin(heading)))
    bend = (start + end) / 2 + rng.normal(0, 0.12, 2) * reach
    steps = np.linspace(0, 1, 24)[:, None]
    return (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end


def _coordinates(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x - width / 2, y - height / 2


def _smoothstep(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def _noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise, float32 [H, W], mean about 0 and deviation about 0.5, with `cells` bumps on the short side."""
    width, height = size
    shape = (max(2, cells * height // min(size)) + 2, max(2, cells * width // min(size)) + 2)
    coarse = Image.fromarray(rng.standard_normal(shape, np.float32) * 0.65)
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))


def _skin(recipe: LesionRecipe, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Skin with blotches and fine furrows, float32 [H, W, 3] of 0 to 255."""
    blotches = 0.025 * _noise(rng, size, 4) + 0.015 * _noise(rng, size, 14)
    furrows = np.abs(_noise(rng, size, 26)) * 0.05 + 0.012 * _noise(rng, size, 60)
    redness = np.array((0.2, 1.0, 1.0), np.float32) * (_noise(rng, size, 9) * 0.022)[..., None]
    return np.array(recipe.skin, np.float32) * ((1.02 + blotches - furrows * 0.7)[..., None] + redness)


def _depth(
    recipe: LesionRecipe, rng: np.random.Generator, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far inside the outline each pixel lies in radii (negative outside), and its direction in radians."""
    short = min(x.shape)
    shift = rng.uniform(-0.06, 0.06, 2) * short
    turn = rng.uniform(0, np.pi)
    across, along = x - shift[0], y - shift[1]
    u = across * np.cos(turn) + along * np.sin(turn)
    v = (along * np.cos(turn) - across * np.sin(turn)) * recipe.elongation
    angle = np.arctan2(v, u)
    directions = np.linspace(-np.pi, np.pi, 361)
    outline = np.ones_like(directions)
    for order in range(2, 12):
        weight = recipe.irregularity * rng.normal() / order**0.9
        outline += weight * np.cos(order * directions + rng.uniform(0, 6.3))
    radius = recipe.radius * short * np.sqrt(recipe.elongation)
    ragged = 1 + 0.05 * (_noise(rng, x.shape[::-1], 12) + 0.7 * _noise(rng, x.shape[::-1], 30))
    limit = np.interp(angle, directions, np.clip(outline, 0.45, 1.7)).astype(np.float32) * ragged
    return limit - np.hypot(u, v) / radius, angle


def _pigment(
    recipe: LesionRecipe,
    rng: np.random.Generator,
    size: tuple[int, int],
    depth: np.ndarray,
    angle: np.ndarray,
) -> np.ndarray:
    """Colour of the lesion before its structures, float32 [H, W, 3] of 0 to 255."""
    colours = np.array(recipe.colours, np.float32)
    lesion = np.broadcast_to(colours[0], (*depth.shape, 3)).copy()
    for index, colour in enumerate(colours[1:]):
        # Each further colour sits in its own sector, which makes the lesion asymmetrical.
        sector = np.cos(angle - rng.uniform(0, 6.3)) * np.clip(1.2 - depth, 0, 1)
        mottle = 1.0 * _noise(rng, size, 4 + index) + 0.45 * _noise(rng, size, 15)
        patch = _smoothstep(mottle + 0.7 * sector + 0.15)
        lesion += patch[..., None] * 0.85 * (colour - lesion)
    shade = (
        1.06
        - 0.16 * np.clip(depth, 0, 1)
        + 0.09 * _noise(rng, size, 6)
        + 0.07 * _noise(rng, size, 17)
        + 0.05 * _noise(rng, size, 48)
    )
    if recipe.network:
        shade = shade * (1 - 0.34 * recipe.network * _network(rng, size) * _smoothstep(1.35 - depth))
    # Pigment varies less in red than in blue, so darker parts are also browner.
    return lesion * shade[..., None] ** np.array((0.85, 1.0, 1.1), np.float32)


def _network(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Honeycomb of dark lines, float32 [H, W] of 0 to 1: the pigment network."""
    x, y = _coordinates(size)
    wave = 2 * np.pi * rng.uniform(26, 33) / min(size)
    x = x + (4.2 * _noise(rng, size, 7) + 1.3 * _noise(rng, size, 24)) / wave
    y = y + (4.2 * _noise(rng, size, 7) + 1.3 * _noise(rng, size, 24)) / wave
    turn = rng.uniform(0, np.pi)
    waves = np.zeros_like(x)
    for third in (0, 2 * np.pi / 3, 4 * np.pi / 3):
        waves = waves + np.cos(wave * (x * np.cos(turn + third) + y * np.sin(turn + third)))
    strength = np.clip(0.55 + 0.8 * _noise(rng, size, 5) + 0.5 * _noise(rng, size, 20), 0, 1)
    # The sum of three waves peaks in the holes (3) and is flat and low along the mesh (-1.5).
    return _smoothstep((0.6 - waves) / 1.6) * strength


class _Marks:
    """Structures drawn inside one lesion."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], depth: np.ndarray) -> None:
        self._rng, self._size, self._short = rng, size, min(size)
        rows, columns = np.nonzero(depth > 0.12)
        self._places = np.stack([columns, rows], 1) if len(rows) else np.array([[size[0] // 2, size[1] // 2]])
        self._depth = depth

    def blobs(
        self, colour: np.ndarray, count: int, radii: tuple[float, float], tint: np.ndarray, opacity: float
    ) -> np.ndarray:
        """Blends soft round spots; `radii` are shares of the short side."""
        mask = Image.new("L", self._size, 0)
        draw = ImageDraw.Draw(mask)
        for column, row in self._rng.choice(self._places, count):
            wide, high = self._rng.uniform(*radii, 2) * self._short
            draw.ellipse(
                (column - wide, row - high, column + wide, row + high), int(self._rng.uniform(120, 255))
            )
        return _blend(
            colour, mask.filter(ImageFilter.GaussianBlur(radii[0] * self._short * 0.5)), tint, opacity
        )

    def vessels(self, colour: np.ndarray, count: int) -> np.ndarray:
        """Blends branching red vessels that thin out, as in basal cell carcinoma."""
        mask = Image.new("L", self._size, 0)
        draw = ImageDraw.Draw(mask)
        for place in self._rng.choice(self._places, count):
            self._branch(draw, place.astype(float), self._rng.uniform(0, 6.3), 0.008 * self._short, 2)
        cover = Image.fromarray(
            (
                np.asarray(mask.filter(ImageFilter.GaussianBlur(0.0022 * self._short)))
                * (self._depth > -0.05)
            ).astype(np.uint8)
        )
        return _blend(colour, cover, np.array((166, 52, 58)), 0.75)

    def _branch(
        self, draw: ImageDraw.ImageDraw, start: np.ndarray, heading: float, thick: float, forks: int
    ) -> None:
        point = start
        for step in range(int(self._rng.integers(6, 11))):
            heading += self._rng.normal(0, 0.28)
            after = point + 0.022 * self._short * np.array((np.cos(heading), np.sin(heading)))
            draw.line(
                (*point, *after), 255 if thick > 1 else int(255 * max(thick, 0.4)), max(1, round(thick))
            )
            point, thick = after, thick * 0.9
            if forks and step % 3 == 2:
                side = self._rng.choice((-1, 1)) * self._rng.uniform(0.5, 0.9)
                self._branch(draw, point, heading + side, thick * 0.7, forks - 1)


def _hairs(colour: np.ndarray, rng: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    width, height = size
    # Drawn at twice the size and shrunk, because Pillow's lines are not antialiased.
    mask = Image.new("L", (2 * width, 2 * height), 0)
    draw = ImageDraw.Draw(mask)
    along = rng.uniform(0, np.pi)
    for _ in range(count):
        curve = draw_hair_curve(rng, np.array(mask.size), along, longest=1.1)
        draw.line(list(map(tuple, curve)), int(rng.uniform(120, 230)), max(1, round(0.009 * min(size))))
    mask = mask.resize(size, Image.Resampling.BOX)
    return _blend(colour, mask, np.array((34, 26, 24)), 0.85)


def _blend(colour: np.ndarray, mask: Image.Image, tint: np.ndarray, opacity: float) -> np.ndarray:
    cover = np.asarray(mask, np.float32)[..., None] * (opacity / 255)
    return colour + cover * (tint.astype(np.float32) - colour)
