"""The files that ship, run with onnxruntime alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from engines.vision.trajectory import Graphs
from tests.engines.vision.frames import nuclei_frames

VISION = Path(__file__).parents[3] / "engines" / "vision"
GRAPHS = ("encoder", "step", "energy", "decoder")

pytestmark = pytest.mark.training


@pytest.fixture(scope="module", params=sorted(VISION.glob("*/*/manifest.json")), ids=lambda p: p.parent.name)
def models(request):
    return request.param.parent


@pytest.fixture(scope="module")
def manifest(models):
    return json.loads((models / "manifest.json").read_text())


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def graphs(request, models, manifest):
    return Graphs(models, manifest["state"]["hi"], request.param)


@pytest.fixture(scope="module")
def frames(manifest):
    height, width = manifest["input"]["height"], manifest["input"]["width"]
    return nuclei_frames(4, seed=5, size_px=width)[0][:, :height]


def refined(graphs, frames, steps):
    """Return z, ctx and energy after some steps."""
    z, ctx, energy = graphs.encode(frames)
    for index in range(steps):
        z, energy = graphs.step(z, ctx, index)
    return z, ctx, energy


def test_the_manifest_names_every_file_with_its_hash(models, manifest):
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in models.glob("*.onnx")}
    assert manifest["files"] == hashes
    assert set(hashes) == {f"{name}.{precision}.onnx" for name in GRAPHS for precision in ("fp32", "fp16")}


def test_no_file_tells_of_the_machine_that_made_it(models):
    for path in models.iterdir():
        assert not [word for word in (b".py", b"site-packages", b"/home/") if word in path.read_bytes()], (
            path.name
        )


def test_shapes_are_those_of_the_manifest(graphs, frames, manifest):
    z, ctx, energy = graphs.encode(frames)
    assert list(z.shape[1:]) == manifest["state"]["shape"]
    assert energy.shape == (len(frames), manifest["energy_terms"])
    assert manifest["context"] == ["ctx"]
    assert {a.dtype for a in (z, ctx, energy)} == {np.dtype(np.float32)}
    (logits,) = graphs.run("decoder", z=z)
    height, width = manifest["input"]["height"], manifest["input"]["width"]
    assert logits.shape == (len(frames), len(manifest["classes"]), height, width)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_energy_of_a_step_is_that_of_the_state_it_leads_to(graphs, frames, steps):
    z, ctx, energy = refined(graphs, frames, steps)
    (again,) = graphs.run("energy", z=z, ctx=ctx)
    np.testing.assert_allclose(energy, again, atol=1e-6)  # a few roundings of float32


def test_a_smaller_step_moves_the_state_less_and_its_energy_is_still_its_own(graphs, frames):
    z, ctx, _ = graphs.encode(frames)
    sizes = np.linspace(0.0, 1.0, len(frames), dtype=np.float32)
    delta, energy = graphs.run("step", z=z, ctx=ctx, step_size=sizes)
    moved = np.clip(z + sizes[:, None, None, None] * delta, -graphs.limit, graphs.limit)
    (again,) = graphs.run("energy", z=moved, ctx=ctx)
    np.testing.assert_allclose(energy, again, atol=1e-6)  # a few roundings of float32


def test_frames_of_a_batch_do_not_see_each_other(graphs, frames):
    together = refined(graphs, frames, steps=2)
    for n in range(len(frames)):
        alone = refined(graphs, frames[n : n + 1], steps=2)
        for a, b in zip(together, alone, strict=True):
            # A batch may be summed in another order; in float16 one such rounding is 1e-3 of a logit of 8.
            np.testing.assert_allclose(a[n], b[0], atol=2e-2 if graphs.precision == "fp16" else 1e-4)


def test_a_step_touches_an_eighth_of_the_cells_at_most(graphs, frames):
    z, ctx, _ = graphs.encode(frames)
    delta, _ = graphs.run("step", z=z, ctx=ctx, step_size=np.ones(len(z), np.float32))
    touched = (delta != 0).any(axis=1).mean(axis=(1, 2))
    assert (touched > 0).all()
    assert (touched <= 1 / 8).all()


def test_refining_lowers_the_mean_energy(graphs, frames, manifest):
    energies = [
        refined(graphs, frames, steps)[2].mean() for steps in (0, 1, manifest["halting"]["max_steps"])
    ]
    assert energies[0] > energies[1] > energies[2]


def test_noise_raises_the_energy_of_a_refined_state(graphs, frames, manifest):
    z, ctx, energy = refined(graphs, frames, manifest["halting"]["max_steps"])
    noise = np.random.default_rng(3).normal(0, manifest["state"]["noise_sigma"], z.shape).astype(np.float32)
    (raised,) = graphs.run("energy", z=np.clip(z + noise, -graphs.limit, graphs.limit), ctx=ctx)
    assert (raised.mean(axis=1) > energy.mean(axis=1)).all()


def test_refining_repairs_what_noise_has_spoilt(graphs, frames, manifest):
    steps = manifest["halting"]["max_steps"]
    z, ctx, _ = refined(graphs, frames, steps)
    noise = np.random.default_rng(4).normal(0, manifest["state"]["noise_sigma"], z.shape).astype(np.float32)
    spoilt = np.clip(z + noise, -graphs.limit, graphs.limit)
    repaired = spoilt
    for index in range(steps):
        repaired, _ = graphs.step(repaired, ctx, index)
    answer = graphs.classify(z)
    assert (graphs.classify(repaired) == answer).mean() > (graphs.classify(spoilt) == answer).mean()


def test_half_precision_gives_nearly_the_same_answer(models, frames, manifest):
    steps = manifest["halting"]["max_steps"]
    limit = manifest["state"]["hi"]
    (z32, _, energy32), (z16, _, energy16) = (
        refined(Graphs(models, limit, precision), frames, steps) for precision in ("fp32", "fp16")
    )
    logits32, logits16 = (Graphs(models, limit).run("decoder", z=z)[0] for z in (z32, z16))
    second, first = np.sort(logits32, axis=1)[:, -2:].swapaxes(0, 1)
    agrees = logits32.argmax(axis=1) == logits16.argmax(axis=1)
    assert agrees[first - second > 0.5].mean() > 0.999  # these frames are strange to a model of roads
    np.testing.assert_allclose(
        energy32.mean(axis=1), energy16.mean(axis=1), rtol=0.02
    )  # tiles may be swapped


def test_the_trust_table_falls_as_energy_rises(manifest):
    energies, quality = manifest["trust"]["E_norm"], manifest["trust"]["quality"]
    assert len(energies) == len(quality) >= 2
    assert (np.diff(energies) > 0).all()
    assert (np.diff(quality) <= 0).all()
    assert 0 <= min(quality) <= max(quality) <= 1
