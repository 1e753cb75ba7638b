"""The servers that benchmarks/http.py measures: ``python -m benchmarks.http_servers NAME PORT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request

from sage_edge import HRM, Encoded, HaltPolicy, Invariants, LatentPlugin, Settings
from sage_edge.service import create_app
from sage_edge.service.front import configure


class InstantPlugin(LatentPlugin):
    """A plugin that returns at once: no step, one number for an answer. What is left is the service.

    State space: float32 [1].
    Noise model: none.
    Energy: 0.
    Coherence contribution: none.
    """

    version, backend = "1", "none"
    invariants = Invariants("scalar", "none", "zero", "none")
    halting = HaltPolicy(max_steps=0)
    state_shape: tuple[int, ...] = (1,)
    lo, hi, noise_sigma = 0.0, 1.0, 0.0

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        zeros = np.zeros((len(inputs), 1), np.float32)
        return Encoded(zeros, {}, zeros)

    def advance(self, z: Any, context: Any, step_size: Any) -> Any:
        return np.zeros_like(z), np.zeros_like(z)

    def energies(self, z: Any, context: Any) -> Any:
        return np.zeros_like(z)


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
    settings = Settings(telemetry_dir="", threads=1)
    if name == "sage_edge":
        hrm = HRM(settings, {"instant": InstantPlugin()})
        hrm.start()
        config = configure(create_app(hrm), settings, port=port)
    elif name == "front":
        config = configure(bare(), settings, port=port)
    else:
        config = uvicorn.Config(
            bare(), port=port, loop="uvloop", http=name, ws="none", lifespan="off", log_config=None
        )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
