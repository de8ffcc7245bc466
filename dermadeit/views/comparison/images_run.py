"""What one visitor's comparison on many images is, and what of it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.evaluation.batch import PICTURE_SIDE, BatchResult
from dermadeit.reporting.document import data_address
from dermadeit.views.batch.session import Session
from dermadeit.views.comparison.disagreements import (
    NEXT,
    PREVIOUS,
    disagreements_html,
    nearest_page,
    page_of,
    viewer_html,
)
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.page.case_pictures import load_pictures
from dermadeit.views.page.job import FilesJob
from dermadeit.views.page.pictures import jpeg_address

IMAGES, TABLES, SHIPPED = "images", "tables", "shipped"
"""What a comparison is made of: photos, tables of predictions, or those that ship with the app."""


@dataclass(eq=False)
class ImagesRun:
    """One comparison, from the press of a button on, and what its visitor looks at.

    Attributes:
        source: `IMAGES`, `TABLES` or `SHIPPED`.
        session: Of its files; where it is of photos, of their reading too.
        cases: Folder with a local copy of ISIC 2019 for the pictures of shipped predictions, or None.
        found: As far as the comparison has come; None before there is anything to compare.
        page: The page of the images that the models answer differently.
    """

    source: str
    session: Session
    cases: Path | None = None
    found: ImagesComparison | None = None
    page: int = 0

    @classmethod
    def begin(cls, source: str, payload: Any = None, cases: Path | None = None) -> ImagesRun:
        """A run that may have to wait for its turn; the files of its payload are kept until then."""
        return cls(source, Session(FilesJob.begin(payload)), cases)

    @property
    def job(self) -> FilesJob:
        """The run itself. One of photos can be stopped twice: while they are read, and while they are compared."""
        return self.session.job

    @property
    def batch(self) -> BatchResult | None:
        """What was read of the photos; None before, and where there are none."""
        return self.session.result if self.session.is_read else None

    @property
    def is_reading(self) -> bool:
        """Whether its photos are being read, or still will be."""
        return not self.job.is_over and self.source == IMAGES and self.batch is None

    def stop(self) -> None:
        """Ends the reading of photos, of which what is done is compared; after it, the comparison."""
        if self.job.has_begun:
            self.job.stop()
        else:
            self.job.supersede()

    def turn(self, pick: str) -> None:
        """Follows a button below the images; anything else does nothing."""
        self.job.keep()
        if self.found and pick in (NEXT, PREVIOUS):
            step = 1 if pick == NEXT else -1
            self.page = nearest_page(self.found.differing, self.page + step)

    def opened(self, pick: str) -> str:
        """HTML of one of these images in large, for the button `open number`; empty where there is no such."""
        word, _, place = pick.partition(" ")
        if not self.found or word != "open" or not place.isdecimal():
            return ""
        found, index = self.found, int(place)
        if index >= len(found.differing):
            return ""
        return viewer_html(found, index, self._large_picture(found, found.differing[index].image_id))

    def listed(self) -> str:
        """HTML of the page of images that is looked at."""
        return disagreements_html(self.found, self.page, self._pictures(self.found)) if self.found else ""

    def _large_picture(self, found: ImagesComparison, image_id: str) -> str:
        if found.is_shipped:
            loaded = load_pictures(self.cases, [image_id], PICTURE_SIDE)
            return data_address(loaded[image_id], "png") if image_id in loaded else ""
        items = self.batch.items if self.batch else ()
        item = next((item for item in items if item.image.image_id == image_id), None)
        return jpeg_address(item and (item.picture or item.thumbnail))

    def _pictures(self, found: ImagesComparison) -> dict[str, str] | None:
        """Image id to the address of its picture, for the page that is looked at; None where there are none."""
        shown = [image.image_id for image in page_of(found.differing, self.page)]
        if found.is_shipped:
            loaded = load_pictures(self.cases, shown)
            return {key: data_address(data, "png") for key, data in loaded.items()} or None
        kept = {item.image.image_id: item.thumbnail for item in self.batch.items} if self.batch else {}
        if not any(kept.values()):
            return None
        return {image_id: jpeg_address(kept.get(image_id)) for image_id in shown}
