"""How events are queued and who may see them. Events that share a queue have one `concurrency_id`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Updates = dict[Any, Any]
"""Component to its new value."""

# By default a limit would hold for each event by itself.
MODEL_EVENT: Mapping[str, Any] = MappingProxyType({"concurrency_id": "model", "concurrency_limit": 2})
"""One photo and one model."""

COMPARE_EVENT: Mapping[str, Any] = MappingProxyType({"concurrency_id": "comparison", "concurrency_limit": 1})
"""One photo and every model, one at a time: single photos must not wait behind it."""

BATCH_EVENT: Mapping[str, Any] = MappingProxyType({"concurrency_id": "batch", "concurrency_limit": 1})
"""Many photos, one batch at a time: likewise."""

PAGE_EVENT: Mapping[str, Any] = MappingProxyType({"api_visibility": "private", "preprocess": False})
"""Belongs to the page and not to the API, and takes what the page sends as it is."""

LATEST_EVENT: Mapping[str, Any] = MappingProxyType(
    {"trigger_mode": "always_last", "show_progress": "hidden", **PAGE_EVENT}
)
"""Follows a control: of several choices while one is being seen to, only the last counts."""

INSTANT_EVENT: Mapping[str, Any] = MappingProxyType({"queue": False, **LATEST_EVENT})
"""Arithmetic on what is there already, which must not wait behind anybody's photo."""
