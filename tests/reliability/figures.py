"""Figures of the reliability scripts: one JSON file each, with the date and the command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dermadeit.about import VERSION
from dermadeit.files import write_json

FOLDER = Path(__file__).parent / "figures"


def write_figures(name: str, content: Mapping[str, Any], is_whole: bool = True) -> None:
    """Files the figures of a script where the page finds them; those of a part are only printed."""
    given = f" {' '.join(sys.argv[1:])}" if len(sys.argv) > 1 else ""
    whole = {
        "command": f"python tests/reliability/{Path(sys.argv[0]).name}{given}",
        "date": datetime.now(UTC).date().isoformat(),
        "version": VERSION,
        "cores": os.cpu_count(),
        **content,
    }
    if is_whole:
        write_json(FOLDER / f"{name}.json", whole)
    sys.stdout.write(json.dumps(whole, indent=2) + "\n")
