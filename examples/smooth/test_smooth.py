"""The plugin keeps its contract, and refining a noisy picture takes noise out of it."""

import numpy as np
from smooth import Smooth

from sage_edge import check, refine


def test_it_keeps_the_contract():
    assert [finding for finding in check(Smooth()) if finding.verdict == "FAIL"] == []


def test_a_noisy_picture_comes_out_nearer_to_the_clean_one():
    plugin = Smooth()
    clean = np.full((32, 32, 3), 120.0)
    noisy = clean + np.random.default_rng(0).normal(0, 20, (32, 32, 1))
    answer = plugin.decode(refine(plugin, plugin.prepare(noisy)).best).array
    assert np.abs(answer - 120.0).mean() < 0.5 * np.abs(noisy - 120.0).mean()
