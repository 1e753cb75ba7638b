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

from sage_edge import Answer, Encoded, LatentPlugin  # noqa: E402
from sage_edge.irp.engine import TensorSpec  # noqa: E402
from sage_edge.runtime import (  # noqa: E402
    CpuRefiner,
    CudaLoops,
    CudaRefiner,
    DeviceProgram,
    Job,
    Unled,
    open_slots,
)

pytestmark = pytest.mark.gpu
SIZE = 1000
POLICY = native.HaltPolicy(K=2, eps=1e-3, max_steps=20)


ROW = TensorSpec((SIZE,), np.dtype(np.float32))


class Quadratic(LatentPlugin):
    """Half the way to a target at each step; the energy is the mean squared distance."""

    name = "quadratic"
    state_shape = (SIZE,)
    context_shapes = {"target": (SIZE,)}  # noqa: RUF012
    lo, hi, step_size, noise_sigma = -100.0, 100.0, 0.5, 1.0
    #: Ends of its step as an engine.
    ends = {"z": ROW, "delta": ROW, "energy": ROW, "target": ROW, "step_size": ROW._replace(shape=())}  # noqa: RUF012

    def example(self):
        return np.ones(SIZE, np.float32)

    def encode(self, inputs):
        target = np.stack(inputs)
        return Encoded(np.zeros_like(target), {"target": target}, target**2)

    def advance(self, z, context, step_size):
        delta = context["target"] - z
        return delta, (np.clip(z + step_size[:, None] * delta, self.lo, self.hi) - context["target"]) ** 2

    def energies(self, z, context):
        return (z - context["target"]) ** 2

    def bind(self, tensors):
        at = {name: torch.from_dlpack(tensor) for name, tensor in tensors.items()}

        def enqueue(stream):
            with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
                torch.sub(at["target"], at["z"], out=at["delta"])
                torch.mul(at["delta"], self.step_size, out=at["energy"])
                at["energy"].add_(at["z"]).clamp_(self.lo, self.hi).sub_(at["target"]).square_()

        return enqueue

    def answers(self, z, inputs):
        return [Answer(row.copy()) for row in z]


def run(refiner, inputs, policy=POLICY, follower=None):
    followers = [follower or Unled() for _ in inputs]
    waiting = [Job(number, x0, policy, followers[number]) for number, x0 in enumerate(inputs)]
    finished = {}
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        for done in refiner.admit(jobs) + refiner.tick():
            finished[done.job.run_id] = done
    return [finished[number] for number in range(len(inputs))]


def on_the_gpu(plugin, slots=8):
    """A refiner that is warm, and a reader of its mailbox."""
    loops = CudaLoops()
    ring = loops.make_ring(4096)
    program = DeviceProgram(plugin, plugin)
    refiner = CudaRefiner(program, loops, ring, slots=slots, plugin_number=0, now_ns=time.monotonic_ns)
    refiner.warm_up()
    return refiner, native.RingReader(ring)


def test_every_job_ends_as_on_the_cpu_in_every_bit():
    rng = np.random.default_rng(5)
    inputs = [rng.normal(0, scale, SIZE).astype(np.float32) for scale in np.logspace(-1, 1.5, 30)]
    plugin = Quadratic()
    slots = open_slots(plugin, capacity=8, threads=1, history=0)
    ring = native.Ring(4096)
    on_cpu = CpuRefiner(slots, plugin.example, ring=ring, plugin_number=0, now_ns=time.monotonic_ns)
    on_gpu, _ = on_the_gpu(plugin)
    for expected, got in zip(run(on_cpu, inputs), run(on_gpu, inputs), strict=True):
        for name in ("step_idx", "E", "best_step", "halt_reason"):
            assert getattr(got.summary, name) == getattr(expected.summary, name), name
        # NumPy adds the first energies up in pairs, the loop one after the other.
        assert pytest.approx(expected.summary.E0, rel=1e-14) == got.summary.E0
        assert got.answer.array.tobytes() == expected.answer.array.tobytes()


class Recorder(Unled):
    """Remembers what it was told."""

    def __init__(self):
        self.seen = []

    def observe(self, E, spent_us):
        self.seen.append((E, spent_us))


def test_followers_are_told_what_the_records_say():
    refiner, reader = on_the_gpu(Quadratic())
    follower = Recorder()
    [done] = run(refiner, [np.ones(SIZE, np.float32)], follower=follower)
    records = reader.drain(4096)
    assert follower.seen == list(zip(records["E"].tolist(), records["spent_us"].tolist(), strict=True))
    assert len(follower.seen) == done.summary.step_idx + 1


def test_a_budget_that_is_taken_away_and_a_peek_reach_the_loop_while_it_runs():
    refiner, _ = on_the_gpu(Quadratic())
    follower = Unled()
    follower.budget_us = 1e9
    endless = native.HaltPolicy(eps=0.0, K=2, max_steps=1 << 30)
    refiner.admit([Job(1, np.full(SIZE, 9.0, np.float32), endless, follower)])
    assert refiner.tick() == []
    shown = refiner.peek(1)
    assert shown.summary.halt_reason is None
    np.testing.assert_allclose(shown.answer, 9.0 * (1 - 0.5**shown.summary.best_step), rtol=1e-6)
    follower.budget_us = 0.0
    done = []
    while not done:
        done = refiner.tick()
    assert done[0].summary.halt_reason == "budget"
    assert done[0].summary.step_idx >= shown.summary.step_idx


def test_warming_up_teaches_how_long_a_step_takes_at_every_width():
    refiner, reader = on_the_gpu(Quadratic())
    assert 0 < refiner.tick_time.mean_ns(1) < 1e9
    assert 0 < refiner.tick_time.mean_ns(8) < 1e9
    assert len(reader.drain(10)) == 0
