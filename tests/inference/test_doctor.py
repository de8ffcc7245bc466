"""The examination finds what would keep photos from being read."""

import shutil
from pathlib import Path

import pytest

from dermadeit.inference.doctor import examine


def test_an_installation_that_works_has_no_fault(checkpoint_root: Path) -> None:
    findings = {finding.name: finding for finding in examine(checkpoint_root)}
    assert [name for name, finding in findings.items() if not finding.works] == []
    assert "not calibrated" in findings["dermadeit"].text
    assert findings.keys() >= {"torch", "photo, diagnosis", "photo, multiclass"}
    assert "read by torch" in findings["photo, diagnosis"].text


def test_a_runtime_that_is_not_there_is_a_fault(
    checkpoint_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERMADEIT_RUNTIME", "tensorflow")
    faults = [finding for finding in examine(checkpoint_root) if not finding.works]
    assert faults and all("tensorflow" in finding.text for finding in faults)


def test_missing_and_altered_weights_are_faults(checkpoint_root: Path, tmp_path: Path) -> None:
    def find_faults() -> set[str]:
        return {finding.name for finding in examine(tmp_path) if not finding.works}

    assert find_faults() == {"dermadeit", "photo, diagnosis"}
    shutil.copytree(checkpoint_root / "binary" / "dermadeit", tmp_path / "dermadeit")
    with (tmp_path / "dermadeit" / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    assert find_faults() == {"dermadeit", "photo, binary"}
