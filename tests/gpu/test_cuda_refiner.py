"""The refiner on a real GPU against the one on the CPU, with the same plugin: a way to a target."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sage_edge import native

if native.device_count() == 0:
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)
torch = pytest.importorskip("torch", reason="needs torch with CUDA as the step engine")
pytest.importorskip("onnxruntime", reason="the runtime's engines need onnxruntime")

from sage_edge.runtime import CpuRefiner, CudaRefiner, Encoded, Job, LatentSlots, open_loop  # noqa: E402

pytestmark = pytest.mark.gpu
SIZE = 1000
POLICY = native.HaltPolicy(K=2, eps=1e-3, max_steps=20)


class Quadratic:
    """Half the way to a target at each step; the energy is the mean squared distance."""

    state_shape = (SIZE,)
    context_shapes = {"target": (SIZE,)}  # noqa: RUF012
    dtype = np.dtype(np.float32)
    energy_terms = SIZE
    lo, hi, step_size = -100.0, 100.0, 0.5

    def example(self):
        return np.ones(SIZE, np.float32)

    def encode(self, inputs):
        target = np.stack(inputs)
        return Encoded(np.zeros_like(target), {"target": target}, target**2)

    def advance(self, z, context, step_size):
        delta = context["target"] - z
        return delta, (np.clip(z + step_size[:, None] * delta, self.lo, self.hi) - context["target"]) ** 2

    def bind_step(self, tensors):
        at = {name: torch.from_dlpack(tensor) for name, tensor in tensors.items()}

        def enqueue(stream):
            with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
                torch.sub(at["target"], at["z"], out=at["delta"])
                torch.mul(at["delta"], self.step_size, out=at["energy"])
                at["energy"].add_(at["z"]).clamp_(self.lo, self.hi).sub_(at["target"]).square_()

        return enqueue

    def decode(self, z, inputs):
        return [row.copy() for row in z]


def run(refiner, inputs):
    waiting = [Job(number, x0, POLICY) for number, x0 in enumerate(inputs)]
    finished = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for done in refiner.admit(jobs) + refiner.tick():
            finished[done.job.run_id] = done
    return [finished[number] for number in range(len(inputs))]


def test_every_job_ends_as_on_the_cpu_in_every_bit():
    rng = np.random.default_rng(5)
    inputs = [rng.normal(0, scale, SIZE).astype(np.float32) for scale in np.logspace(-1, 1.5, 30)]
    program = Quadratic()
    slots = LatentSlots(program, capacity=8, threads=1)
    on_cpu = CpuRefiner(slots, ring=native.Ring(4096), plugin_number=0, now_ns=time.monotonic_ns)
    ring = native.mapped_ring(4096)
    sizes = {"widths": [2, 8], "rows": 16}
    loop = open_loop(program, ring, plugin_number=0, **sizes)
    on_gpu = CudaRefiner(program, loop, now_ns=time.monotonic_ns, **sizes)
    on_gpu.warm_up()
    for expected, got in zip(run(on_cpu, inputs), run(on_gpu, inputs), strict=True):
        for name in ("step_idx", "E", "best_step", "halt_reason"):
            assert getattr(got.summary, name) == getattr(expected.summary, name), name
        # NumPy adds the first energies up in pairs, the loop one after the other.
        assert pytest.approx(expected.summary.E0, rel=1e-14) == got.summary.E0
        assert got.answer.tobytes() == expected.answer.tobytes()
