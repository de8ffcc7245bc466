"""A static folder that reads a photo in the browser: our page, the exported network, and onnxruntime-web."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from dermadeit.errors import ConfigurationError, ErrorCode, ModelError
from dermadeit.files import ASSETS, write_atomically
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.publishing.exports import export_onnx, write_description

READER = ASSETS / "reader"
"""Page, style and scripts of our own."""

RUNTIME_PACKAGE = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
"""The version that was tried; another one of 1.x may do."""

RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def export_web(checkpoint: Checkpoint, folder: Path, views: int, runtime: Path | None = None) -> float:
    """Writes the folder. Any server of static files will do for it; nothing is sent back to the server.

    Args:
        checkpoint: What to export.
        folder: Created when missing.
        views: Dihedral views in the graph, 1 to 8.
        runtime: The package onnxruntime-web as npm packs it (`.tgz`); None to let npm fetch it.

    Returns:
        The greatest difference of a logit from the library's on example photos.

    Raises:
        ModelError: onnxruntime-web can't be had; or as `export_onnx` raises it.
        ConfigurationError: The file is no package of onnxruntime-web.
    """
    with tempfile.TemporaryDirectory() as temporary:
        _unpack_runtime(runtime or _fetch_runtime(Path(temporary)), folder)
    for path in READER.iterdir():
        shutil.copyfile(path, folder / path.name)
    write_description(checkpoint, views, folder)
    return export_onnx(checkpoint, folder, views)


def _fetch_runtime(folder: Path) -> Path:
    """Lets npm, as it is set up here, fetch and check the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            f"The browser export needs {RUNTIME_PACKAGE} {RUNTIME_VERSION}, and npm, which would fetch it, is not "
            "installed. Install Node.js, or give the package as a file.",
            code=ErrorCode.MISSING_PACKAGE,
        )
    command = [npm, "pack", "--silent", f"{RUNTIME_PACKAGE}@{RUNTIME_VERSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")  # noqa: S603
    packed = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        raise ModelError(
            f"npm can't fetch {RUNTIME_PACKAGE} {RUNTIME_VERSION}. Check the connection, or give the package as a "
            "file.",
            code=ErrorCode.DOWNLOAD_FAILED,
        )
    return packed[0]


def _unpack_runtime(package: Path, folder: Path) -> None:
    """Takes the few files that are needed out of a package; its name is checked."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            about = json.loads(_read_member(archive, "package/package.json"))
            if about.get("name") != RUNTIME_PACKAGE:
                raise ConfigurationError(f"“{package.name}” is not the package {RUNTIME_PACKAGE}.")
            for name in RUNTIME_FILES:
                content = _read_member(archive, f"package/dist/{name}")
                write_atomically(folder / name, lambda partial, content=content: partial.write_bytes(content))
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"“{package.name}” is not the package {RUNTIME_PACKAGE} {RUNTIME_VERSION} as npm packs it."
        ) from error


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()
