"""What else would make the same step on this GPU: torch eager and compiled, Triton, CuPy. Writes JSON.

The step is z <- clip(z + 0.5 delta, -2, 2) with the sums of (z_new - z)^2 and z_new^2, for halting.
Rivals leave the sums on the device, decide nothing, keep no best state and write no records.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

SIZES = [1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26]
FOOTPRINT_BYTES = 1 << 29
REPEATS = 20
ROUNDS = 15


def main() -> None:
    """One failing rival loses its own row, and no other."""
    import torch

    rows = []
    for dtype in (torch.float32, torch.float16):
        for elements in SIZES:
            for name, make in RIVALS.items():
                row = {"rival": name, "dtype": str(dtype).removeprefix("torch."), "elements": elements}
                try:
                    row["us"] = measure(torch, make, dtype, elements)
                except Exception as exc:  # noqa: BLE001 # any rival may be missing or broken
                    row["error"] = f"{type(exc).__name__}: {exc}"[:200]
                rows.append(row)
                torch._dynamo.reset()
    json.dump({"rivals": rows}, sys.stdout)


def measure(torch: Any, make: Callable[..., Callable[[Any, Any], Any]], dtype: Any, elements: int) -> float:
    """Median microseconds of one step; states rotate among buffers that no cache holds."""
    sets = max(2, FOOTPRINT_BYTES // (2 * elements * dtype.itemsize))
    z = torch.rand(sets, elements, device="cuda").to(dtype)
    delta = torch.rand(sets, elements, device="cuda").to(dtype)
    step = make(torch, z[0])
    for number in range(5):
        step(z[number % sets], delta[number % sets])
    times_us = []
    for _ in range(ROUNDS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for number in range(REPEATS):
            step(z[number % sets], delta[number % sets])
        stop.record()
        stop.synchronize()
        times_us.append(1e3 * start.elapsed_time(stop) / REPEATS)
    return sorted(times_us)[ROUNDS // 2]


def plain_step(torch: Any) -> Callable[[Any, Any], Any]:
    """The step in torch's words, sums in float32."""

    def step(z: Any, delta: Any) -> Any:
        after = torch.clamp(z + 0.5 * delta, -2.0, 2.0)
        change = (after - z).float().square().sum()
        state = after.float().square().sum()
        z.copy_(after)
        return change, state

    return step


def make_eager(torch: Any, like: Any) -> Callable[[Any, Any], Any]:
    """One kernel per operation."""
    return plain_step(torch)


def make_compiled(torch: Any, like: Any) -> Callable[[Any, Any], Any]:
    """Fused by torch.compile."""
    compiled: Callable[[Any, Any], Any] = torch.compile(plain_step(torch))
    return compiled


def make_compiled_graph(torch: Any, like: Any) -> Callable[[Any, Any], Any]:
    """The same, replayed as a CUDA graph: for small latents."""
    compiled: Callable[[Any, Any], Any] = torch.compile(plain_step(torch), mode="reduce-overhead")
    return compiled


def make_triton(torch: Any, like: Any) -> Callable[[Any, Any], Any]:
    """One Triton kernel with partial sums, and torch to add those up: reproducible, as ours is."""
    from benchmarks.gpu.triton_step import BLOCK, step_kernel

    blocks = -(-like.numel() // BLOCK)
    sums = torch.empty(2, blocks, device="cuda")

    def step(z: Any, delta: Any) -> Any:
        step_kernel[(blocks,)](z, delta, sums, z.numel(), blocks, size=BLOCK)
        return sums.sum(dim=1)

    return step


def make_cupy(torch: Any, like: Any) -> Callable[[Any, Any], Any]:
    """An elementwise and a reduction kernel, on torch's stream and memory."""
    import cupy

    update = cupy.ElementwiseKernel(
        "T delta",
        "T z, float32 change, float32 state",
        """
        float before = z, after = fminf(fmaxf(before + 0.5f * (float)delta, -2.0f), 2.0f);
        z = (T)after; change = (after - before) * (after - before); state = after * after;
        """,
        "sage_rival_step",
    )
    change, state = (cupy.empty(like.numel(), cupy.float32) for _ in range(2))
    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)

    def step(z: Any, delta: Any) -> Any:
        with stream:
            update(cupy.from_dlpack(delta), cupy.from_dlpack(z), change, state)
            return change.sum(), state.sum()

    return step


RIVALS = {
    "torch eager": make_eager,
    "torch.compile": make_compiled,
    "torch.compile reduce-overhead": make_compiled_graph,
    "triton": make_triton,
    "cupy": make_cupy,
}

if __name__ == "__main__":
    main()
