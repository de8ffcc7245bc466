"""Pictures that show nothing: noise, plain colours and transitions, and drawn documents and screens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

DRAWN_OF_A_KIND = 20


def draw_pictures(seed: int = 0) -> Iterator[Image.Image]:
    """`DRAWN_OF_A_KIND` pictures of each of the five kinds, in RGB, the same for the same seed."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))

    def words(count: int) -> str:
        return " ".join("".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(count))

    def colour(lowest: int = 0) -> tuple[int, ...]:
        return tuple(rng.integers(lowest, 256, 3).tolist())

    for index in range(DRAWN_OF_A_KIND):
        yield Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8))
        yield Image.new("RGB", (200, 200), colour())
        ends = np.array([[colour()], [colour()]], dtype=np.uint8)
        yield Image.fromarray(ends).resize((200, 200), Image.Resampling.BILINEAR)
        document = Image.new("RGB", (400, 520), (255, 255, 255) if index % 2 else (246, 242, 230))
        for top in range(20, 500, 16):
            ImageDraw.Draw(document).text((20, top), words(int(rng.integers(3, 9))), fill=(20, 20, 30))
        yield document
        screen = Image.new("RGB", (480, 300), colour(200))
        draw = ImageDraw.Draw(screen)
        for left, top in rng.integers((0, 30), (400, 270), (12, 2)).tolist():
            draw.rectangle((left, top, left + 90, top + 40), fill=colour())
            draw.text((left + 3, top + 2), words(2), fill=(0, 0, 0))
        yield screen
