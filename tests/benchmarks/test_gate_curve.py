"""The evidence for the limits of the gates: one command writes the curves and what was chosen on them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.evidence.gate_curve import LIMITS, main
from dermadeit.data.tabular import read_csv, write_csv
from dermadeit.trust.gating import NOT_SKIN_FROM


@pytest.mark.slow
def test_one_command_writes_the_curve_that_the_limits_rest_on(
    synthetic_data: Path, checkpoint_root: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    strange = tmp_path / "strange"
    strange.mkdir()
    for index in range(8):
        noise = Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8))
        noise.resize((90, 90), Image.Resampling.NEAREST).save(strange / f"{index}.png")
    names = [path.name for path in lesion_files[:5]]
    external = tmp_path / "external.csv"
    external.write_text("\n".join(["image_id,file", *(f"{name},{name}" for name in names)]))
    for path in lesion_files[:5]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    # Two sources, so that one can be left out.
    table = read_csv(synthetic_data / "manifest.csv")
    rows = [{**row, "dataset": ("one", "two")[index // 2 % 2]} for index, row in enumerate(table.rows)]
    write_csv(tmp_path / "manifest.csv", table.columns, rows)
    (tmp_path / "images").symlink_to(synthetic_data / "images")
    report = tmp_path / "report.json"
    checkpoint = checkpoint_root / "binary" / "dermadeit"
    options = ["--not-skin", strange, "--external", external, "--checkpoint", checkpoint, "--output", report]
    main([str(option) for option in (tmp_path / "manifest.csv", *options)])
    [examined] = json.loads(report.read_text())["checkpoints"]
    assert examined["task"] == "binary"
    assert [point["limit"] for point in examined["curve"]] == list(LIMITS)
    assert examined["chosen"]["limit"] == NOT_SKIN_FROM
    assert (examined["n"]["external"], examined["n"]["not_skin_learned"]) == (5, 4)
    for curve in (examined["curve"], examined["distance"]):
        for kind in ("external", "not_skin_reported", "validation"):
            shares = [point[kind] for point in curve]
            assert shares == sorted(shares, reverse=True)
    for judged in (examined["gates"], examined["without_photos"]):
        assert judged["external"]["images"] == 5
        assert all(0 <= part["withheld"]["value"] <= 1 for part in judged.values())
        assert (
            sum(kind.startswith("left_out ") for kind in judged) == len(examined["curve"][0]["left_out"]) > 1
        )
