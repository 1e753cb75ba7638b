"""The servers that benchmarks/http.py measures: ``python -m benchmarks.http_servers NAME PORT``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request

from sage_edge import HRM, Answer, Encoded, Invariants, LatentSlots, Settings
from sage_edge.native import HaltPolicy
from sage_edge.service import create_app


class InstantPlugin:
    """A plugin that returns at once: no step, one number for an answer. What is left is the service."""

    name, version, backend, model_sha256, takes = "instant", "1", "none", None, "frame"
    invariants = Invariants("scalar", "none", "zero", "none")
    halting = HaltPolicy(max_steps=0)
    state_shape: tuple[int, ...] = (1,)
    context_shapes: Mapping[str, tuple[int, ...]] = {}
    lo, hi, step_size, noise_sigma = 0.0, 1.0, 1.0, 0.0
    carry_over = None

    def open_slots(self, capacity: int, threads: int, history: int = 0) -> LatentSlots:
        return LatentSlots(self, capacity=capacity, threads=threads, history=history)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def example(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def trust(self, E_norm: float) -> None:
        return None

    def E_norm_for(self, quality: float) -> float:
        return -np.inf

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        zeros = np.zeros((len(inputs), 1), np.float32)
        return Encoded(zeros, {}, zeros)

    def advance(self, z: Any, context: Any, step_size: Any) -> Any:
        return np.zeros_like(z), np.zeros_like(z)

    def energies(self, z: Any, context: Any) -> Any:
        return np.zeros_like(z)

    def decode(self, z: Any, inputs: Sequence[Any]) -> list[Answer]:
        return [Answer(row) for row in z]


def bare() -> FastAPI:
    """The floor: FastAPI that reads the body and says how long it was."""
    app = FastAPI()

    @app.post("/frame")
    async def frame(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return app


def main() -> None:
    """Serve until the process is ended."""
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "sage_edge":
        hrm = HRM(Settings(telemetry_dir="", threads=1), {"instant": InstantPlugin()})
        hrm.start()
        app = create_app(hrm)
    else:
        app = bare()
    uvicorn.run(
        app, port=port, loop="uvloop", http="httptools", lifespan="off", log_level="error", access_log=False
    )


if __name__ == "__main__":
    main()
