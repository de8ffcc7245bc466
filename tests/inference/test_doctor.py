"""The examination finds what would keep photos from being read."""

import shutil
from pathlib import Path

from dermadeit.inference.doctor import examine


def test_an_installation_that_works_has_no_fault(checkpoint_root: Path) -> None:
    findings = {finding.name: finding for finding in examine(checkpoint_root)}
    assert [name for name, finding in findings.items() if not finding.works] == []
    assert "not calibrated" in findings["dermadeit"].text
    assert findings.keys() >= {"torch", "photo, diagnosis", "photo, multiclass"}


def test_missing_and_altered_weights_are_faults(checkpoint_root: Path, tmp_path: Path) -> None:
    def find_faults() -> set[str]:
        return {finding.name for finding in examine(tmp_path) if not finding.works}

    assert find_faults() == {"dermadeit", "photo, diagnosis"}
    shutil.copytree(checkpoint_root / "binary" / "dermadeit", tmp_path / "dermadeit")
    with (tmp_path / "dermadeit" / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    assert find_faults() == {"dermadeit", "photo, binary"}
