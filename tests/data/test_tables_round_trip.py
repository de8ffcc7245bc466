"""Whatever a cell holds, it is read back as it was, and no spreadsheet takes it for a formula."""

import csv
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dermadeit.data.tabular import read_csv, write_csv

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=5))
def test_cells_come_back_and_run_nothing(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_csv(path, ["image_id", "note"], [{"image_id": first, "note": second} for first, second in rows])
        with path.open(encoding="utf-8", newline="") as stream:
            raw = list(csv.reader(stream))
        assert not [cell for row in raw for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        read = read_csv(path).rows
    assert [(row["image_id"], row["note"]) for row in read] == rows
