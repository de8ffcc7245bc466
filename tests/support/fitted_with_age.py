"""The network of eight diagnoses, calibrated on the command line with age and sex of synthetic patients."""

from functools import cache
from pathlib import Path

from eight_diagnoses import VIEWS, eight_diagnoses_root
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.tasks import DIAGNOSES


@cache
def fitted_with_age_root(synthetic_data: Path) -> Path:
    """A folder as `eight_diagnoses_root` gives it, with `printed.txt`, what `calibrate` has printed.

    In `table.csv` the age gives the diagnosis away, but for some images that have none.

    Args:
        synthetic_data: The fixture.
    """
    plain = eight_diagnoses_root(synthetic_data, calibrated=False)
    root = plain.with_name("fitted-with-age")
    (root / "dermadeit").mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (root / "dermadeit" / name).write_bytes((plain / "dermadeit" / name).read_bytes())
    header, *rows = (plain / "table.csv").read_text().splitlines()
    lines = [f"{header},age_approx,gender"]
    for index, row in enumerate(rows):
        age = 15 + 8 * list(DIAGNOSES).index(row.split(",")[2]) + index % 5
        lines.append(f"{row},{'' if index >= 80 else age},{('F', 'male', '')[index % 3]}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    arguments = [root / "table.csv", "--images", synthetic_data / "images", "--model", root / "dermadeit"]
    options = ["--no-similar-cases", "--views", VIEWS]
    done = CliRunner().invoke(app, ["calibrate", *map(str, (*arguments, *options))])
    assert done.exit_code == 0, done.output
    (root / "printed.txt").write_text(done.stdout)
    return root
