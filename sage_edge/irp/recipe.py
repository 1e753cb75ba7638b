"""Recipes: which ONNX file an engine is made of, and at which batch widths it runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from sage_edge.errors import EngineError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an engine is made.

    Attributes:
        name: Names it among all engines: "model.graph.precision".
        path: The ONNX file. Only its first axis, the batch, is dynamic.
        sha256: The digest that the file must have, as hex.
        precision: "fp32" or "fp16"; it is in the file's types already.
        widths: Batch widths that a backend with static shapes builds, ascending; set by whoever serves.
    """

    name: str
    path: Path
    sha256: str
    precision: str
    widths: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Refuse a name that could not be the name of a file."""
        if not self.name or Path(self.name).name != self.name:
            raise EngineError(f"recipe: expected a name without folders, got {self.name!r}")

    @classmethod
    def of(cls, path: Path, *, name: str = "", precision: str = "fp32") -> Recipe:
        """The recipe of a file as it is now.

        Args:
            path: The ONNX file.
            name: Names the engine; the file's name without its ending by default.
            precision: "fp32" or "fp16", as the file's types are.

        Raises:
            EngineError: The file cannot be read.
        """
        return cls(name or path.stem, path, hashlib.sha256(read_onnx(path, None)).hexdigest(), precision)

    def for_slots(self, slots: int) -> Recipe:
        """The same at the widths that serve up to ``slots`` rows."""
        return replace(self, widths=batch_widths(slots))

    def read(self) -> bytes:
        """The ONNX file's content.

        Raises:
            EngineError: The file is missing, or not the one that the digest names.
        """
        return read_onnx(self.path, self.sha256)


def plan_name(recipe: Recipe, width: int) -> str:
    """Names the plan of one width."""
    return f"{recipe.name}.b{width}"


def batch_widths(slots: int) -> tuple[int, ...]:
    """The widths that serve up to ``slots`` rows with little padding: one, half of them, all."""
    return tuple(sorted({1, (slots + 1) // 2, slots}))


def read_onnx(path: Path, sha256: str | None) -> bytes:
    """An ONNX file's content.

    Args:
        path: The file.
        sha256: The digest that it must have, as hex; None accepts any.

    Raises:
        EngineError: The file is missing, or not the one that the digest names.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise EngineError(f"{path}: engine file cannot be read: {exc.strerror}") from exc
    came = hashlib.sha256(content).hexdigest()
    if sha256 is not None and came != sha256:
        raise EngineError(f"{path}: expected sha256 {sha256[:12]}…, got {came[:12]}…; restore the file")
    return content
