"""Ask questions of texts with all reads, with the early stop and with fixed reads; show what is saved.

    python demos/language_span_mask_irp.py
    python demos/language_span_mask_irp.py --data squad_dev.json.gz --questions 200

Without ``--data`` it asks 60 questions of our own of this repository's documents; the file has the form of
SQuAD 1.1, gzipped. The figure needs matplotlib: `pip install --group demo`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sage_edge import HRM, Settings, open_hrm
from sage_edge.quality import exact_match, token_f1

ROOT = Path(__file__).parents[1]
#: Reads that a run is held against.
MOST = 8
#: What has to hold: reads saved, the F1 that may be lost, points; and answers that stay from this read on.
SAVED, LOST, STABLE_BY, STABLE_SHARE = 2.5, 1.0, 5, 0.95


@dataclass(frozen=True)
class Asked:
    """One question with all its states, from no read to MOST reads.

    Attributes:
        E, em, f1: By state: its energy, and how good its answer is.
        spans: By state, where its likeliest span stands.
        shares: By state, the posterior of that span.
        gaps: By state, how far the likeliest span is ahead of the next.
        seen: By state, the prior of the windows that were read.
        meanings: By state, the meaning latent.
        reads, answered: Where the default halt ended, and the state that answered.
        read_ms: Milliseconds of a read.
    """

    E: list[float]
    em: list[float]
    f1: list[float]
    spans: list[Any]
    shares: list[float]
    gaps: list[float]
    seen: list[float]
    meanings: list[Any]
    reads: int
    answered: int
    read_ms: float


def main() -> int:
    """Returns the exit code: 1 when what has to hold does not, or a record of the telemetry is not valid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="questions of SQuAD's form, gzipped")
    parser.add_argument("--questions", type=int, help="so many of them; all by default")
    parser.add_argument("--model", default="minilm", help="a reader that ships, or its folder")
    parser.add_argument("--threads", type=int, default=0, help="0 means all cores")
    parser.add_argument("--out", type=Path, default=Path("var/demo-language"))
    options = parser.parse_args()
    journal = options.out / "telemetry" / "telemetry.jsonl"
    journal.unlink(missing_ok=True)
    settings = Settings(
        plugins=("language",),
        plugin_config={"language": {"model": options.model}},
        threads=options.threads,
        telemetry_dir=str(journal.parent),
    )
    passages, questions = load(options.data, options.questions)
    with closing(open_hrm(settings)) as hrm:
        text_id = post(hrm, passages)
        gmac = hrm.require("language").model.macs / 1e9
        asked = [ask(hrm, text_id, question, right) for question, right in questions]
    show(asked, len(passages), gmac)
    holds = judge(asked)
    draw(asked, options.out)
    print(f"\ntelemetry: {journal}", flush=True)
    is_valid = (
        subprocess.call([sys.executable, "-m", "sage_edge", "telemetry", "validate", str(journal)]) == 0
    )
    return 0 if holds and is_valid else 1


def load(data: Path | None, count: int | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The passages, and the questions with their right answers."""
    if data is None:
        entries = json.loads((ROOT / "demos" / "questions" / "docs.json").read_text(encoding="utf-8"))
        pages = sorted({entry["page"] for entry in entries})
        passages = [(ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages]
        return passages, [(entry["question"], entry["answers"]) for entry in entries][:count]
    with gzip.open(data, "rt", encoding="utf-8") as file:
        paragraphs = [p for article in json.load(file)["data"] for p in article["paragraphs"]]
    asked = [
        (entry["question"], [answer["text"] for answer in entry["answers"]])
        for paragraph in paragraphs
        for entry in paragraph["qas"]
    ]
    order = np.random.default_rng(0).permutation(len(asked))
    return [paragraph["context"] for paragraph in paragraphs], [asked[n] for n in order[:count]]


def post(hrm: HRM, passages: list[str]) -> str:
    """Send the text once, without a question; its id stands for it from then on."""
    sent = hrm.prepare("language", {"text": passages})
    return str(hrm.submit("language", sent).future.result().answer.details["text_id"])


def ask(hrm: HRM, text_id: str, question: str, right: list[str]) -> Asked:
    """Ask once as anybody would, and walk through all MOST reads."""
    prepared = hrm.prepare("language", {"question": question, "text_id": text_id})
    served = hrm.submit("language", prepared).future.result()
    plugin = hrm.require("language")
    z, context, terms = plugin.encode([prepared])
    energies, answers, taken_s = [float(terms.mean())], [plugin.answers(z, [prepared])[0]], 0.0
    for _ in range(MOST):
        start_s = time.perf_counter()
        delta, terms = plugin.advance(z, context, np.ones(1, np.float32))
        taken_s += time.perf_counter() - start_s
        z = z + delta
        energies.append(float(terms.mean()))
        answers.append(plugin.answers(z, [prepared])[0])
    prior = context["prior"][0]
    found = [ranked(answer.details) for answer in answers]
    texts = [answer.details["text"] for answer in answers]
    return Asked(
        E=energies,
        em=[exact_match(text, right) for text in texts],
        f1=[token_f1(text, right) for text in texts],
        spans=[span for span, _, _ in found],
        shares=[share for _, share, _ in found],
        gaps=[gap for _, _, gap in found],
        seen=[float(prior[:reads].sum()) for reads in range(MOST + 1)],
        meanings=[answer.array for answer in answers],
        reads=served.run.step_idx,
        answered=served.run.best_step,
        read_ms=1e3 * taken_s / MOST,
    )


def ranked(details: Any) -> tuple[Any, float, float]:
    """Where the likeliest span stands, told or not, its share, and how far it is ahead of the next."""
    told = [] if details["text"] is None else [details]
    spans = [*told, *details["rivals"], {"share": 0.0}, {"share": 0.0}]
    place = tuple(spans[0].get(name) for name in ("source", "start", "end"))
    return place, spans[0]["share"], spans[0]["share"] - spans[1]["share"]


def answer_of(one: Asked, reads: int) -> int:
    """The state that answers a run of so many reads: the one of lowest energy."""
    return int(np.argmin(one.E[: reads + 1]))


def mean_of(asked: list[Asked], stops: list[int]) -> dict[str, float]:
    """Mean reads, EM and F1 of runs that stop there."""
    states = [answer_of(one, stop) for one, stop in zip(asked, stops, strict=True)]
    return {
        "reads": float(np.mean(stops)),
        "EM": 100 * float(np.mean([one.em[state] for one, state in zip(asked, states, strict=True)])),
        "F1": 100 * float(np.mean([one.f1[state] for one, state in zip(asked, states, strict=True)])),
    }


def first(values: list[float], threshold: float) -> int:
    """The first read after which a signal has reached a threshold; else the last."""
    return next((step for step in range(1, MOST) if values[step] >= threshold), MOST)


def rules(asked: list[Asked]) -> dict[str, list[dict[str, float]]]:
    """Every rule at many thresholds: what it costs and gives."""
    repeats = [
        [gap if one.spans[k] == one.spans[max(k - 1, 0)] else -1.0 for k, gap in enumerate(one.gaps)]
        for one in asked
    ]
    looks = {
        "posterior (the default's)": [one.shares for one in asked],
        "prior mass": [one.seen for one in asked],
        "answer repeats": repeats,
        "top-2 gap": [one.gaps for one in asked],
    }
    found = {"fixed": [mean_of(asked, [reads] * len(asked)) for reads in range(1, MOST + 1)]}
    for name, signals in looks.items():
        levels = np.unique(
            np.quantile([value for one in signals for value in one[1:]], np.linspace(0, 1, 25))
        )
        found[name] = [mean_of(asked, [first(one, level) for one in signals]) for level in levels]
    best = [int(np.argmax(one.f1)) for one in asked]
    oracle = {
        "reads": float(np.mean(best)),
        "EM": 100 * float(np.mean([one.em[step] for one, step in zip(asked, best, strict=True)])),
        "F1": 100 * float(np.mean([max(one.f1) for one in asked])),
    }
    return found | {"oracle": [oracle]}


def stable_from(one: Asked) -> int:
    """The read from which on the span is the last one, and the meaning within a cosine of .99 of its last."""
    step = MOST
    while (
        step > 1
        and one.spans[step - 1] == one.spans[MOST]
        and one.meanings[step - 1] @ one.meanings[MOST] >= 0.99
    ):
        step -= 1
    return step


def default_of(asked: list[Asked]) -> dict[str, float]:
    """What the service's own halt costs and gives."""
    return {
        "reads": float(np.mean([one.reads for one in asked])),
        "EM": 100 * float(np.mean([one.em[one.answered] for one in asked])),
        "F1": 100 * float(np.mean([one.f1[one.answered] for one in asked])),
    }


def show(asked: list[Asked], passages: int, gmac: float) -> None:
    """The table: what each way of reading costs and gives, and when answers settle."""
    every, one_read = mean_of(asked, [MOST] * len(asked)), mean_of(asked, [1] * len(asked))
    default = default_of(asked)
    fixed = [mean_of(asked, [reads] * len(asked)) for reads in range(MOST + 1)]
    same = {
        key: float(np.interp(default["reads"], range(MOST + 1), [run[key] for run in fixed]))
        for key in default
    }
    read_ms = float(np.median([one.read_ms for one in asked]))
    print(f"\n{len(asked)} questions, each of all {passages} passages\n")
    print(f"{'':26}  reads   GMAC  reads saved    EM    F1     ms")
    for name, run in (
        ("1 read", one_read),
        (f"{MOST} reads", every),
        ("default halt", default),
        ("fixed, as many on average", same),
        ("oracle", rules(asked)["oracle"][0]),
    ):
        print(
            f"{name:26} {run['reads']:6.2f} {gmac * run['reads']:6.1f} "
            f"{MOST / max(run['reads'], 1e-9):11.2f}x {run['EM']:5.1f} {run['F1']:5.1f} "
            f"{read_ms * run['reads']:6.0f}"
        )
    stable = [stable_from(one) for one in asked]
    print("\nfinal span and meaning from read  questions    EM    F1")
    for step in range(1, MOST + 1):
        those = [one for one, since in zip(asked, stable, strict=True) if since == step]
        if those:
            run = mean_of(those, [MOST] * len(those))
            print(f"{step:33d}  {len(those):9d} {run['EM']:5.1f} {run['F1']:5.1f}")


def judge(asked: list[Asked]) -> bool:
    """Whether what has to hold holds; says so."""
    every, default = mean_of(asked, [MOST] * len(asked)), default_of(asked)
    saved, lost = MOST / default["reads"], every["F1"] - default["F1"]
    stable = float(np.mean([stable_from(one) <= STABLE_BY for one in asked]))
    checks = {
        f"reads saved {saved:.2f}x, at least {SAVED}x": saved >= SAVED,
        f"F1 lost {lost:.2f} points, at most {LOST}": lost <= LOST,
        f"final from read {STABLE_BY} on: {100 * stable:.0f} %, at least {100 * STABLE_SHARE:.0f} %": stable
        >= STABLE_SHARE,
    }
    print("\nacceptance:")
    for said, holds in checks.items():
        print(f"  {'holds' if holds else 'FAILS'}: {said}")
    return all(checks.values())


def draw(asked: list[Asked], out: Path) -> None:
    """Draw F1 over mean reads of every rule, and how near the meaning is to its last by read."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("\nno figure: matplotlib is not installed (pip install --group demo)")
        return
    figure = Figure(figsize=(11, 4.5), layout="tight")
    left, right = figure.subplots(1, 2)
    for name, runs in rules(asked).items():
        ordered = sorted(runs, key=lambda run: run["reads"])
        style = "k^" if name == "oracle" else "o-" if name == "fixed" else "-"
        left.plot([run["reads"] for run in ordered], [run["F1"] for run in ordered], style, label=name)
    default = default_of(asked)
    left.plot(default["reads"], default["F1"], "k*", markersize=14, label="the default halt")
    left.set(xlabel="mean reads", ylabel="F1")
    cosines = np.array([[float(m @ one.meanings[MOST]) for m in one.meanings[1:]] for one in asked])
    for share in (10, 50, 90):
        right.plot(
            range(1, MOST + 1),
            np.percentile(cosines, share, axis=0),
            label=f"{share} % of the questions below",
        )
    right.plot(range(1, MOST + 1), cosines.mean(axis=0), "k--", label="mean")
    right.set(xlabel="read", ylabel="cosine to the final meaning latent")
    left.legend()
    right.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "saved.png", dpi=110)
    print(f"\nfigure: {out / 'saved.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
