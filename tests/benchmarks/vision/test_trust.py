"""What doubts an answer, and how well each doubt finds its failures."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'sage-edge[training]'")

from benchmarks.vision.trust import Fit, Ranked, doubts_of_votes, ranking  # noqa: E402
from sage_edge.quality import auroc  # noqa: E402

pytestmark = pytest.mark.training


def ranked(seed, frames=20, tiles=6, **doubts):
    """Error rates drawn at random, and doubts about them."""
    wrong = np.random.default_rng(seed).uniform(0, 0.5, (frames, tiles))
    return Ranked({name: of(wrong) for name, of in doubts.items()}, wrong, 1 - wrong.mean(axis=1))


def test_voters_that_agree_do_not_disagree():
    vote = np.random.default_rng(0).dirichlet(np.ones(3), (4, 5)).transpose(2, 0, 1)
    doubts = doubts_of_votes([vote, vote])
    np.testing.assert_allclose(doubts["disagreement"], 0, atol=1e-12)
    np.testing.assert_allclose(doubts["max_softmax"], -vote.max(axis=0))


def test_voters_that_are_sure_of_different_classes_disagree_by_a_bit():
    sure = [np.array([a, 1 - a])[:, None, None] for a in (1.0, 0.0)]
    np.testing.assert_allclose(doubts_of_votes(sure)["disagreement"], np.log(2))


def test_a_fit_recovers_the_function_that_made_the_error_rates():
    rng = np.random.default_rng(1)
    doubts = {name: rng.normal(size=(400, 6)) for name in ("a", "b")}
    rates = 1 / (1 + np.exp(1 - 2 * doubts["a"] + 0.5 * doubts["b"]))
    run = Ranked(doubts, rates, rates.mean(axis=1))
    np.testing.assert_allclose(Fit(run, ("a", "b"))(run), rates, atol=0.02)  # the ridge pulls a little


def test_the_lead_is_over_max_softmax_and_its_interval_holds_it():
    knows = {
        "max_softmax": lambda w: w + np.random.default_rng(2).normal(0, 0.3, w.shape),
        "energy": lambda w: w,
    }
    runs = [ranked(seed, **knows) for seed in (0, 1)]
    table = ranking(runs, [f"block-{n // 4}" for n in range(20)], of_frames=False)
    assert table["energy"]["AUROC"] == 1
    plain = np.mean([auroc(run.doubts["max_softmax"].ravel(), run.wrong.ravel() > 0.2) for run in runs])
    assert table["energy"]["lead"] == pytest.approx(1 - plain)
    low, high = table["energy"]["lead_interval"]
    assert 0 < low < 1 - plain < high
    assert table["max_softmax"]["lead_interval"] == [0, 0]


def test_a_tile_without_counted_pixels_is_nobodys_failure():
    run = ranked(3, max_softmax=lambda w: w)
    run.wrong[0, 0] = np.nan
    table = ranking([run], [str(n) for n in range(20)], of_frames=False)
    assert table["max_softmax"]["AUROC"] == 1


def test_where_nothing_fails_there_is_no_auroc():
    run = ranked(4, max_softmax=lambda w: w)
    run.wrong[:] = 0.1
    table = ranking([run], [str(n) for n in range(20)], of_frames=False)
    assert table["max_softmax"] == {"AURC": pytest.approx(0.1)}
