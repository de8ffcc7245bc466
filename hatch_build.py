"""Makes the wheel's dependencies out of requirements.txt, so that every package is named once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

TRAINING_HEADING = "\n# Training\n"


class RequirementsHook(MetadataHookInterface):
    """Reads `dependencies` and the extra `train` out of requirements.txt."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds both to the metadata of pyproject.toml."""
        text = Path(self.root, "requirements.txt").read_text(encoding="utf-8")
        app, training = text.split(TRAINING_HEADING)
        metadata["dependencies"] = _requirements(app)
        metadata["optional-dependencies"]["train"] = _requirements(training)


def _requirements(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
