"""What the gates withhold and warn of at every limit: what the choice of the limits rests on.

    python -m benchmarks.evidence.gate_curve MANIFEST --not-skin FOLDER --external CSV
        --checkpoint DIR --output FILE

Wanted: of lesion photos of a camera that the gates have never seen, at most 3 % withheld; of photos of anything
but skin, at least 95 %. For each checkpoint the report holds

- `distance`: what is withheld where the limit of the distance to known lesions is raised, as a multiple of the
  limit of the warning: the simplest change, tried first;
- `curve`: what the skin detector withholds at each limit of its score; `chosen` is `gating.NOT_SKIN_FROM`;
- `gates`: what all gates together withhold and warn of at the limits that ship, and why;
- `without_photos`: the same of gates that were given no photos of anything but skin.

Everything is fitted on the calibration split of the checkpoint's task. A `left_out` source is one whose lesions
the gates were refitted without; judged are its lesions of the calibration and validation splits. The network
itself has seen all sources; it is not trained anew. Photos of anything but skin are halved by a fixed seed: the
detector learns from one half, on which the limit is chosen, and the other is only reported. What ships learns from
both.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from dermadeit.data.manifest import ManifestRow, read_source
from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.gate_fitting import FittedGates, GatePhotos, fit_gates, look_at, look_at_drawn
from dermadeit.files import write_json
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.trust.gating import NOT_SKIN_FROM

logger = logging.getLogger("benchmarks.evidence.gate_curve")

SEED = 0
MOST_LESIONS_WITHHELD = 0.03
LEAST_OTHERS_WITHHELD = 0.95
LIMITS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """All photos of one checkpoint.

    Attributes:
        calibration: Lesions that the gates are fitted on.
        validation: Other lesions.
        groups: Lesion of each calibration photo.
        sources: Source of each photo, of `calibration` and of `validation`.
        learned: Photos of anything but skin that the detector learns from, on which the limit is chosen.
        reported: The others.
        external: Lesions of other cameras; None without.
        drawn: Pictures that show nothing, to learn from.
        drawn_anew: Others of the same kinds.
    """

    calibration: GatePhotos
    validation: GatePhotos
    groups: np.ndarray
    sources: tuple[np.ndarray, np.ndarray]
    learned: GatePhotos
    reported: GatePhotos
    external: GatePhotos | None
    drawn: GatePhotos
    drawn_anew: GatePhotos

    def fit(self, *, without: str | None = None, with_photos: bool = True) -> FittedGates:
        """The gates, fitted on all sources or on all but one."""
        kept = np.flatnonzero(self.sources[0] != without)
        others = self.learned if with_photos else None
        return fit_gates(self.calibration.take(kept), self.groups[kept], self.drawn, others)[0]

    def of_source(self, name: str) -> list[GatePhotos]:
        """The lesions of one source."""
        return [
            photos.take(np.flatnonzero(sources == name))
            for photos, sources in zip((self.calibration, self.validation), self.sources, strict=True)
        ]

    @property
    def judged(self) -> dict[str, list[GatePhotos]]:
        """The photos that all gates are tried on, by kind."""
        return {
            "validation": [self.validation],
            **({"external": [self.external]} if self.external else {}),
            "not_skin_learned": [self.learned],
            "not_skin_reported": [self.reported],
            "drawn": [self.drawn_anew],
        }


def see(
    predictor: Predictor,
    rows: Mapping[str, Sequence[ManifestRow]],
    not_skin: Sequence[Path],
    external: Sequence[Path],
) -> Seen:
    """Sends all photos through a network.

    Args:
        predictor: The network.
        rows: The rows of `calibration` and of `validation`.
        not_skin: Photos of anything but skin.
        external: Lesions of other cameras.
    """
    halves = np.random.default_rng(SEED).permutation(len(not_skin))
    learned, reported = np.array_split(halves, 2)
    others = look_at(predictor, _decoded(not_skin))
    calibrating, validating = (
        np.array([row.source for row in rows[split]]) for split in ("calibration", "validation")
    )
    return Seen(
        look_at(predictor, _decoded([row.path for row in rows["calibration"]])),
        look_at(predictor, _decoded([row.path for row in rows["validation"]]), with_copies=False),
        np.array([row.lesion_group for row in rows["calibration"]]),
        (calibrating, validating),
        others.take(np.sort(learned)),
        others.take(np.sort(reported)),
        look_at(predictor, _decoded(external), with_copies=False) if external else None,
        look_at_drawn(predictor),
        look_at_drawn(predictor, seed=SEED + 1),
    )


def examine(predictor: Predictor, seen: Seen) -> dict[str, Any]:
    """Everything about one checkpoint, JSON-ready."""
    sources = sorted(set(seen.sources[0]) - {""})
    fits = {None: seen.fit()} | {name: seen.fit(without=name) for name in sources if len(sources) > 1}
    bare = {name: seen.fit(without=name, with_photos=False) for name in fits}
    skins = {name: fit.skin for name, fit in fits.items() if fit.skin is not None}
    detector = {name: lambda photos, skin=skin: skin.score(photos.embeddings) for name, skin in skins.items()}
    distance = {
        name: lambda photos, fit=fit: (
            fit.out_of_distribution.score(photos.embeddings) / fit.gates.ood_threshold
        )
        for name, fit in fits.items()
    }
    curve = _curve(seen, detector, LIMITS)
    return {
        "model": predictor.checkpoint.model,
        "task": predictor.checkpoint.task.key,
        "weights_sha256": predictor.checkpoint.weights_sha256,
        "wanted": {"lesions_at_most": MOST_LESIONS_WITHHELD, "not_skin_at_least": LEAST_OTHERS_WITHHELD},
        "seed_of_halves": SEED,
        "n": {kind: sum(map(len, parts)) for kind, parts in seen.judged.items()}
        | {f"left_out {name}": sum(map(len, seen.of_source(name))) for name in sources},
        "distance": _curve(seen, distance, FACTORS),
        "curve": curve,
        "chosen": next(point for point in curve if point["limit"] == NOT_SKIN_FROM),
        "gates": _judged(seen, fits),
        "without_photos": _judged(seen, bare),
    }


def _curve(seen: Seen, scores: Mapping[str | None, Any], limits: Sequence[float]) -> list[dict[str, Any]]:
    """Shares with a score at or above each limit; `scores` are of all gates, and of those without each source."""
    full = scores[None]
    known = {kind: _scored(full, parts) for kind, parts in seen.judged.items()}
    left_out = {name: _scored(score, seen.of_source(name)) for name, score in scores.items() if name}
    points = []
    for limit in limits:
        shares = {kind: float((found >= limit).mean()) for kind, found in known.items()}
        without = {name: float((found >= limit).mean()) for name, found in left_out.items()}
        most = max([*without.values(), shares.get("external", 0.0)])
        points.append(
            {
                "limit": limit,
                "left_out": without,
                **shares,
                "meets_both": most <= MOST_LESIONS_WITHHELD
                and shares["not_skin_learned"] >= LEAST_OTHERS_WITHHELD,
            }
        )
    return points


def _scored(score: Any, parts: Sequence[GatePhotos]) -> np.ndarray:
    return np.concatenate([score(photos) for photos in parts if len(photos)])


def _judged(seen: Seen, fits: Mapping[str | None, FittedGates]) -> dict[str, Any]:
    """What all gates together do with each kind of photos, and with each source that they have not seen."""
    whole = {kind: _shares(fits[None], parts) for kind, parts in seen.judged.items()}
    left_out = {f"left_out {name}": _shares(fit, seen.of_source(name)) for name, fit in fits.items() if name}
    return {**left_out, **whole}


def _shares(fit: FittedGates, parts: Sequence[GatePhotos]) -> dict[str, Any]:
    verdicts = [verdict for photos in parts if len(photos) for verdict in fit.judge(photos)]
    return {
        "images": len(verdicts),
        "withheld": _point(sum(verdict.abstain for verdict in verdicts), len(verdicts)),
        "warned": _point(sum(bool(verdict.warning_codes) for verdict in verdicts), len(verdicts)),
        "codes": dict(Counter(code for verdict in verdicts for code in verdict.codes)),
        "warning_codes": dict(Counter(code for verdict in verdicts for code in verdict.warning_codes)),
    }


def _point(count: int, among: int) -> dict[str, Any]:
    """A share of images with its 95 % interval (Wilson)."""
    interval = binomtest(count, among).proportion_ci(method="wilson")
    return {"value": count / among, "interval": [float(interval.low), float(interval.high)], "n": among}


def _decoded(paths: Sequence[Path]) -> Iterator[LesionImage]:
    return map(decode_image, paths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines each checkpoint, logs what was chosen, and writes all of it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="a CSV with splits, sources and ISIC 2019 diagnoses")
    parser.add_argument("--not-skin", type=Path, required=True, help="a folder of photos of anything else")
    parser.add_argument(
        "--external", type=Path, help="a CSV whose column “file” names lesions of other cameras"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, nargs="+", help="checkpoint folders")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    not_skin = sorted(options.not_skin.iterdir())
    external = []
    if options.external:
        external = [options.external.parent / row["file"] for row in read_csv(options.external).rows]
    reports = []
    for folder in options.checkpoint:
        predictor = Predictor(load_checkpoint(folder))
        manifest = read_source(options.manifest, predictor.checkpoint.task)
        rows = {split: manifest.select(split).rows for split in ("calibration", "validation")}
        report = examine(predictor, see(predictor, rows, not_skin, external))
        for kind, shares in report["gates"].items():
            logger.info(
                "%s, %s: %.1f %% withheld, %.1f %% warned",
                report["task"],
                kind,
                100 * shares["withheld"]["value"],
                100 * shares["warned"]["value"],
            )
        reports.append(report)
    if options.output:
        write_json(options.output, {"checkpoints": reports})


if __name__ == "__main__":
    main()
