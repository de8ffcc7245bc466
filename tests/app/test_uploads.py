"""What the app keeps of an upload, and for how long."""

import os
import time
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from dermadeit.views.uploads import CACHE_SECONDS, private_cache, sweep


def test_the_private_cache_is_where_gradio_looks_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with private_cache() as folder:
        assert Path(get_upload_folder()) == folder
        assert folder.parent == tmp_path / "cache"
        (folder / "photo.png").write_bytes(b"pixels")
    assert list((tmp_path / "cache").iterdir()) == []
    assert get_upload_folder() == str(tmp_path / "cache")


def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "old.png", tmp_path / "b" / "new.png"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"pixels")
    before = time.time() - CACHE_SECONDS - 1
    os.utime(old, (before, before))
    sweep(tmp_path, CACHE_SECONDS)
    assert not old.exists()
    assert new.exists()
