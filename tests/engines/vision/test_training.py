"""The recipe from weights to files, small and quick; needs torch."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from engines.vision.config import load_recipe  # noqa: E402
from engines.vision.data import VOID, LabelledFrames  # noqa: E402
from engines.vision.export import export_all  # noqa: E402
from engines.vision.fixed_order import fixed_order  # noqa: E402
from engines.vision.graphs import EncoderGraph, EnergyGraph, StepGraph, tile_cells  # noqa: E402
from engines.vision.losses import disturb, divergence, draw_tiles, judge, overlap_loss, tiles_of  # noqa: E402
from engines.vision.macs import count_macs  # noqa: E402
from engines.vision.nets import MARK, DoubtHead, doubts, normalise_exposure, per_tile  # noqa: E402
from engines.vision.train import (  # noqa: E402
    Trainer,
    draw_batch,
    load_weights,
    rate_between,
    running_average,
    train,
)
from engines.vision.trajectory import Graphs  # noqa: E402
from tests.engines.vision.frames import nuclei_frames  # noqa: E402

pytestmark = [
    pytest.mark.training,
    # Raised inside torch's exporter, whatever is exported.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*axis name.*:UserWarning"),
]
CONFIGS = Path(__file__).parents[3] / "engines" / "vision" / "configs"
ITERATIONS = 25


def to_input(frames):
    """uint8 [B, H, W, 3] as the encoder takes it: float32 [B, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def labelled_frames(recipe, count, seed):
    """Synthetic frames of the recipe's size."""
    height_px, width_px = recipe.net.size_px
    frames, labels = nuclei_frames(count, seed, size_px=width_px)
    return frames[:, :height_px].copy(), labels[:, :height_px].copy()


@pytest.fixture(scope="module", params=["nuclei", "camvid-quick"])
def recipe(request):
    loaded = load_recipe(CONFIGS / f"{request.param}.toml")
    return replace(loaded, train=replace(loaded.train, glance_iterations=0))


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    """A few iterations on two synthetic frames: the losses, and the checkpoint."""
    frames, labels = labelled_frames(recipe, 2, seed=1)
    trainer = Trainer(recipe, ITERATIONS)
    batch = to_input(frames), torch.from_numpy(labels).long()
    losses = [trainer.step(*batch) for _ in range(ITERATIONS)]
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    trainer.save(path)
    return trainer, losses, path


@pytest.fixture(scope="module")
def net(recipe, trained):
    return load_weights(recipe, trained[2])


@pytest.fixture(scope="module")
def models(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    export_all(net, folder)
    return folder


@pytest.fixture(scope="module")
def encoded(recipe, net):
    """Frames with the latent and the context that the net sees in them."""
    frames = labelled_frames(recipe, 3, seed=9)[0]
    with torch.no_grad():
        z, ctx, energy = EncoderGraph(net)(to_input(frames))
    return frames, z, ctx, energy


@pytest.mark.parametrize("part", ["glance", "refined"])
def test_training_overfits_two_frames(trained, part):
    _, losses, _ = trained
    assert losses[-1][part] < 0.7 * losses[0][part]


def test_a_resumed_run_goes_on_where_it_stopped(recipe, trained):
    trainer, _, path = trained
    again = Trainer(recipe, ITERATIONS)
    again.resume(path)
    assert again.iteration == ITERATIONS
    assert again.schedule.get_last_lr() == trainer.schedule.get_last_lr()
    for saved, loaded in zip(trainer.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(saved, loaded)


def test_fitting_the_head_leaves_the_nets_as_they_were(recipe, trained):
    frames, labels = labelled_frames(recipe, 2, seed=1)
    fitted = Trainer(recipe, ITERATIONS, head_of=trained[2])
    before = {name: value.clone() for name, value in fitted.net.state_dict().items()}
    fitted.step(to_input(frames), torch.from_numpy(labels).long())
    changed = {
        name for name, value in fitted.net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_fitting_the_head_asks_for_nets_of_its_recipe(recipe, trained):
    wider = replace(recipe, net=replace(recipe.net, features=recipe.net.features + 8))
    with pytest.raises(ValueError, match="expected weights for"):
        Trainer(wider, ITERATIONS, head_of=trained[2])


def test_doubts_are_entropies_and_what_the_likeliest_class_leaves():
    z = 3 * torch.randn(2, 3 * 4 + 1, 5, 6, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(z[:, :-1].reshape(2, 3, 4, 5, 6), 1).numpy()
    entropies = scipy.stats.entropy(p, axis=1, base=3)
    expected = [entropies.mean(1), entropies.max(1), 1 - p.max(1).mean(1)]
    np.testing.assert_allclose(doubts(z, 3).numpy(), np.stack(expected, 1), atol=1e-6)


def test_a_head_of_doubts_starts_as_the_plain_confidence():
    config = replace(load_recipe(CONFIGS / "camvid-quick.toml").net, limit=8.0)
    z = 3 * torch.randn(2, 11 * 4 + 1, 10, 10, generator=torch.Generator().manual_seed(0))
    z[:, -1] = config.limit  # refined, so that there is nothing more to gain
    head = DoubtHead(config, z.shape[1])
    with torch.no_grad():
        left, gain = head(z, head.remember(z, None))
    p = torch.softmax(z[:, :-1].reshape(2, 11, 4, 10, 10), 1).amax(1).mean(1, keepdim=True)
    torch.testing.assert_close(left.exp(), 1 - p, atol=1e-4, rtol=1e-4)
    assert (gain == 0).all()


def test_a_head_of_doubts_learns_to_mistrust_noise():
    config = load_recipe(CONFIGS / "camvid-quick.toml").net
    torch.manual_seed(0)
    head = DoubtHead(config, 45)
    optimiser = torch.optim.Adam(head.parameters(), 0.03)
    for _ in range(300):
        z = torch.nn.functional.pad(2 * torch.randn(8, 44, 10, 10), MARK, value=config.limit)
        known, noisy = head.remember(z, None), torch.rand(8, 1, 1, 1) < 0.5
        left, _ = head(z + noisy * 2 * torch.randn_like(z), known)
        truth = 0.2 + 0.6 * noisy.float().expand_as(left)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(left, truth).backward()
        optimiser.step()
    clean, disturbed = (left.sigmoid()[mask[:, 0, 0, 0]].mean() for mask in (~noisy, noisy))
    assert disturbed > clean + 0.3


def test_the_refiner_starts_where_the_glance_is(net, encoded):
    _, z, ctx, _ = encoded
    if not net.refiner.reread:
        pytest.skip("this recipe's refiner does not read the glance's features again")
    fresh = copy.deepcopy(net)
    fresh.refiner.start_as(fresh)
    with torch.no_grad():
        refined = fresh.refine_all(z, ctx)
    torch.testing.assert_close(refined[:, :-1], z[:, :-1], atol=1e-4, rtol=1e-4)
    assert (refined[:, -1] == fresh.config.limit).all()


def test_a_step_changes_the_energy_of_the_tiles_it_refines_and_of_no_other(net, encoded):
    _, z, ctx, energy = encoded
    with torch.no_grad():
        delta, after = StepGraph(net)(z, ctx, torch.ones(len(z)))
    touched = per_tile((delta != 0).any(dim=1, keepdim=True).float(), net.config.tile_cells) > 0
    assert (after[touched] != energy[touched]).all()
    if net.config.head == "context":  # which takes the gain off and changes nothing else
        assert (after[touched] < energy[touched]).all()
    torch.testing.assert_close(after[~touched], energy[~touched])


def test_exported_graphs_say_what_torch_says(net, models, encoded):
    frames, z, ctx, energy = encoded
    graphs = Graphs(models, net.config.limit)
    for ours, theirs in zip(graphs.encode(frames), (z, ctx, energy), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-4)  # the order of float32 sums, of values up to 12
    step_size = torch.full((len(z),), 0.5)
    with torch.no_grad():
        expected = StepGraph(net)(z, ctx, step_size)
    for ours, theirs in zip(
        graphs.run("step", z=z.numpy(), ctx=ctx.numpy(), step_size=step_size.numpy()), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-4)  # the order of float32 sums, of values up to 12


def test_a_step_gives_its_tiles_what_refining_everything_would_give_them(net, encoded):
    _, z, ctx, _ = encoded
    with torch.no_grad():
        delta, _ = StepGraph(net)(z, ctx, torch.ones(len(z)))
        dense = net.refine_all(z, ctx) - z
    touched = (delta != 0).any(dim=1, keepdim=True)
    assert touched.any()
    torch.testing.assert_close(delta, dense * touched, atol=1e-5, rtol=0)  # the order of float32 sums


def test_a_step_takes_the_tiles_that_promise_most(net, encoded):
    _, z, ctx, _ = encoded
    with torch.no_grad():
        delta, _ = StepGraph(net)(z, ctx, torch.ones(len(z)))
        p = z[:, :-1].unflatten(1, (net.config.classes, -1)).softmax(1).numpy()
        entropy = torch.from_numpy(scipy.stats.entropy(p, axis=1).mean(axis=1, keepdims=True))
        orders = {"gain": net.predict(z, ctx)[1], "entropy": entropy}
        urgency = per_tile(orders[net.config.order], net.config.tile_cells)
    touched = per_tile((delta != 0).any(dim=1, keepdim=True).float(), net.config.tile_cells) > 0
    for promise, chosen in zip(urgency, touched, strict=True):
        assert chosen.sum() == net.config.tiles_per_step
        assert promise[chosen].min() >= promise[~chosen].max() - 1e-6


def test_a_fixed_order_refines_every_tile_once_all_steps_are_taken(net, encoded):
    _, z, ctx, _ = encoded
    tiles = net.config.tiles_per_step * net.config.max_steps
    step = fixed_order(net, np.random.default_rng(0).permutation(tiles))
    moved = z.numpy()
    for index in range(net.config.max_steps):
        moved, energy = step(moved, ctx.numpy(), index)
    assert (moved[:, -1] == net.config.limit).all()  # the mark of a refined cell
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(energy), EnergyGraph(net)(torch.from_numpy(moved), ctx))


def test_exposure_does_not_change_what_the_net_sees():
    frame = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        normalise_exposure(0.5 * frame),
        normalise_exposure(frame),
        atol=0.2,
        rtol=0.1,  # the 0.02 of dark frames
    )


def test_tiles_cover_every_cell_once():
    rows, columns = tile_cells(16, 24, 8, halo=0)
    cells = sorted(zip(rows.flatten().tolist(), columns.flatten().tolist(), strict=True))
    assert cells == [(row, column) for row in range(16) for column in range(24)]


def test_judging_a_perfect_latent_finds_no_error():
    labels = torch.randint(3, (2, 64, 64))
    logits = 16.0 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2) - 8.0
    z = torch.nn.functional.pad(torch.nn.functional.pixel_unshuffle(logits, 4), MARK)
    loss, wrong = judge(z, labels, torch.tensor([1.0, 1.0, 2.0]), logit_px=1)
    assert loss.max() < 1e-5
    assert wrong.max() == 0


def jaccard_losses(p, truth):
    """One minus the overlap of each class that is there, the Lovasz extension by its definition."""
    losses = []
    for of_class, is_class in zip(p.T, truth.T, strict=True):
        if is_class.any():
            errors = np.abs(is_class - of_class)
            wrong, last, total = set(), 0.0, 0.0
            for pixel in np.argsort(-errors):
                wrong.add(pixel)
                both = sum(is_class[n] and n not in wrong for n in range(len(p)))
                either = sum(is_class[n] or n in wrong for n in range(len(p)))
                total += errors[pixel] * (1 - both / either - last)
                last = 1 - both / either
            losses.append(total)
    return np.mean(losses)


def test_overlap_is_the_lovasz_extension_of_the_jaccard_loss():
    torch.manual_seed(3)
    z = 2 * torch.randn(2, 3 + 1, 3, 4)  # one logit per class and cell
    labels = torch.randint(2, (2, 3, 4))  # the third class is nowhere
    labels[1, 2] = VOID
    whole_cells = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    counted = (labels != VOID).flatten().numpy()
    p = z[:, :-1].softmax(1).permute(0, 2, 3, 1).reshape(-1, 3).numpy()[counted]
    truth = np.eye(3, dtype=bool)[labels.flatten().numpy()[counted]]
    assert overlap_loss(z, whole_cells, logit_px=4).item() == pytest.approx(
        jaccard_losses(p, truth), abs=1e-5
    )


@pytest.mark.parametrize("logit_px", [1, 2])
def test_perfect_labels_overlap_wherever_they_are_drawn(logit_px):
    side = 4 // logit_px
    labels = torch.randint(3, (2, 16 * side, 16 * side))
    logits = 200.0 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    z = torch.nn.functional.pad(torch.nn.functional.pixel_unshuffle(logits, side), MARK)
    pixels = labels.repeat_interleave(logit_px, 1).repeat_interleave(logit_px, 2)
    assert max(overlap_loss(z, pixels, logit_px).item() for _ in range(20)) < 1e-5


def test_an_all_void_batch_has_no_overlap_to_lose():
    z = torch.randn(1, 49, 2, 2, requires_grad=True)
    loss = overlap_loss(z, torch.full((1, 8, 8), VOID), logit_px=1)
    loss.backward()
    assert loss.item() == 0


def test_an_error_counts_as_much_as_its_class():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0, 0] = 2
    says_one = torch.zeros(1, 49, 1, 1)
    says_one[:, 16:32] = 5.0
    _, wrong = judge(says_one, labels, torch.tensor([1.0, 1.0, 2.0]), logit_px=1)
    assert wrong.item() == pytest.approx((15 * 0.5 + 1) / 16)


def test_noise_stays_inside_the_bounds_of_the_state():
    assert disturb(torch.full((4, 3, 8, 8), 7.9), sigma=2.0, limit=8.0).abs().max() <= 8.0


def test_void_pixels_are_neither_loss_nor_error():
    labels = torch.full((1, 4, 4), VOID)
    loss, wrong = judge(torch.randn(1, 49, 1, 1), labels, torch.tensor([1.0, 1.0, 2.0]), logit_px=1)
    assert loss.item() == wrong.item() == 0


def test_a_latent_diverges_from_itself_by_nothing_and_from_another_by_more():
    z, other = torch.randn(2, 1, 13, 4, 4)
    assert divergence(z, z, classes=3).item() == pytest.approx(0, abs=1e-6)  # float32
    assert divergence(z, other, classes=3) > 0.1


def test_drawn_tiles_are_an_even_share_without_repeats():
    torch.manual_seed(0)
    chosen = draw_tiles(500, 12, 0.25, torch.device("cpu"))
    assert chosen.shape == (500, 3)
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    assert chosen.flatten().bincount(minlength=12).float().std() < 30  # 125 each, deviation about 10


def test_a_tile_is_cut_from_where_it_lies():
    cells = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    chosen = torch.tensor([[0, 5], [4, 2]])
    one, two, three, four = tiles_of(cells, 4, chosen)
    torch.testing.assert_close(one, cells[0, :, :4, :4])
    torch.testing.assert_close(two, cells[0, :, 4:, 8:])
    torch.testing.assert_close(three, cells[1, :, 4:, 4:8])
    torch.testing.assert_close(four, cells[1, :, :4, 8:])


def test_the_glance_is_taken_and_the_refiner_starts_as_it(recipe, trained):
    other = replace(recipe, net=replace(recipe.net, refiner_widths=(16, 16)))
    started = Trainer(other, ITERATIONS, start_of=trained[2]).net
    source = load_weights(recipe, trained[2]).state_dict()
    own = started.state_dict()
    same = {name for name in own if torch.equal(own[name], source.get(name, torch.empty(0)))}
    assert {name for name in own if name.startswith(("glance.", "first_guess."))} <= same
    assert "refiner.layers.0.weight" not in same
    if recipe.net.close_look == "lite0":
        seen, close = started.glance.trunk.state_dict(), started.refiner.look.trunk.state_dict()
        assert all(torch.equal(close[name], seen[name]) for name in close)


def test_counted_macs_are_those_of_the_layers(net, models):
    rows, columns = net.grid
    hidden = 32
    of_a_cell = {"context": net.latent * hidden + hidden * 2, "doubts": 8 * 2}[net.config.head]
    assert count_macs(models / "energy.fp32.onnx") == rows * columns * of_a_cell
    assert count_macs(models / "decoder.fp32.onnx") == 0


def test_every_epoch_has_each_frame_once_whatever_the_batch():
    drawn = torch.cat([draw_batch(i, frames=10, batch=4, seed=3) for i in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(tmp_path):
    recipe = load_recipe(CONFIGS / "nuclei.toml")
    recipe = replace(
        recipe,
        train=replace(recipe.train, batch=2),
        augment=replace(recipe.augment, crop_px=(64, 64)),
    )
    ids = ("a", "b", "c")
    data = LabelledFrames(ids, ids, *nuclei_frames(3, seed=4, size_px=64))
    weights = []
    for stops in ((4,), (2, 4)):
        out = tmp_path / str(len(stops))
        for stop in stops:
            trainer = Trainer(recipe, 4)
            train(trainer, recipe, data, out, stop)
            with (out / "losses.jsonl").open("a") as log:  # as if killed after its last checkpoint
                log.write("" if stop == 4 else json.dumps({"iteration": stop + 1}) + "\n")
        weights.append(trainer.net.state_dict())
        assert (out / "losses.png").stat().st_size > 0
        assert len((out / "losses.jsonl").read_text().splitlines()) == 4
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_the_learning_rate_rises_falls_and_ends_at_nothing():
    rates = [rate_between(20, 80, iteration) for iteration in range(20, 81)]
    assert rates.index(max(rates)) == 4
    assert max(rates) == pytest.approx(1)
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_what_starts_late_warms_up_when_it_starts_and_is_not_touched_before():
    recipe = load_recipe(CONFIGS / "camvid-quick.toml")
    recipe = replace(recipe, train=replace(recipe.train, glance_iterations=2))
    trainer = Trainer(recipe, 40)
    frames, labels = labelled_frames(recipe, 2, seed=1)
    batch = to_input(frames), torch.from_numpy(labels).long()
    before = copy.deepcopy(trainer.net.refiner.state_dict())
    rates = []
    for _ in range(3):
        rates.append(
            dict(zip(("glance", "trunk", "refiner", "look"), trainer.schedule.get_last_lr(), strict=True))
        )
        after = copy.deepcopy(trainer.net.refiner.state_dict())
        parts = trainer.step(*batch)
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("last."))
    assert "refined" in parts
    assert rates[2]["refiner"] == pytest.approx(rates[0]["glance"])
    assert rates[2]["glance"] > rates[2]["refiner"]
    assert rates[0]["trunk"] == pytest.approx(recipe.train.trunk_rate * rates[0]["glance"])
    assert rates[2]["look"] == pytest.approx(recipe.train.trunk_rate * rates[2]["refiner"])


def test_no_unit_of_the_refiner_can_die(recipe, trained):
    refiner = copy.deepcopy(trained[0].net.refiner).train()
    width = refiner.layers[0][0].in_channels
    with torch.no_grad():
        refiner.layers[0][0].weight -= 10  # what killed every unit of one that had no norms
        fired = refiner.layers[0](torch.rand(4, width, 8, 8) + 1).amax(dim=(0, 2, 3))
    assert (fired > 0).all()


def test_the_average_forgets_its_start_and_then_follows_slowly():
    mean, steps = torch.full((2,), 100.0), torch.tensor(3)
    update = running_average(decay=0.99)
    for count in range(1, 201):
        update([mean, steps], [torch.zeros(2), torch.tensor(count)], count)
    assert mean.max() < 1e-3  # a plain average would still be at 13
    assert steps == 200
    update([mean], [torch.ones(2)], 10_000)
    assert mean.max() == pytest.approx(0.01, abs=1e-3)
