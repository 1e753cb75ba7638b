"""The manifest beside a model's files: what they are, and what was chosen for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_edge.errors import EngineError


@contextmanager
def open_manifest(folder: Path, version: int) -> Iterator[dict[str, Any]]:
    """A model's manifest; whatever turns out to be missing in it is an EngineError that names the file.

    Args:
        folder: Where ``manifest.json`` lies.
        version: The ``format`` that it must have.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != version:
            raise EngineError(f"{path}: expected format {version}, got {manifest['format']}")
        yield manifest
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise EngineError(f"{path}: not a usable manifest: {type(exc).__name__}: {exc}") from exc
