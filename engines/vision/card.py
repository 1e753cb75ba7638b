"""Writes the model card from what was measured, so that no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engines.vision.config import Recipe

TEMPLATE = """# {name} {version}

Segments {subject} into {classes}, {height} x {width} pixels, by *glance and refine*: a cheap
look at the whole frame at half resolution, then steps that each refine, at full resolution, the {tiles} of
{terms} tiles {that}. The energy is the predicted error rate (every wrong pixel weighed
by its class), per tile; its mean over the tiles says how far the answer is to be trusted.

- Data: {data}. {frames} frames of `val` below, labels scaled to the input: no weight, threshold or
  table was fitted to them, but earlier forms of the model were measured on them too.
- Licence of the weights: {licence}. {pretrained}
- Made by: `{command}`, seed {seed}; then `engines.vision.export`, `calibrate` and `report`.
- {note}
- Halt and trust were fitted on frames of `train` that no weight was fitted to, as they are and spoilt{refit}.
- Measured by `python -m engines.vision.report` with the FP32 graphs in onnxruntime. Intervals are 95 %,
  paired bootstrap over {unit}. *Hard* is the same frames with less light, shot noise and blur, drawn once by
  a fixed seed.

## Compute

{macs}

## mIoU by step

{by_step}

Raster and random refine as many tiles per step, in an order set beforehand.

## The default halt

Range of the last {window} energies below {eps:.3g} of the scale, or {max_steps} steps: the largest threshold
that loses at most {target:.2f} points of mIoU on the frames kept for it.

{halt}

## Trust

What the trust table promises for the answers at the default halt, and what the labels say (mIoU of a frame).

{trust}
{otsu}
## What it is not

{limits}
"""

REFIT = """. The nets, without the head,
  were then refitted on all frames of `train`, those among them that halt and trust were chosen on"""

OTSU = """
## Otsu's threshold on the same frames

Foreground is everything but background; the three-class mIoU gives Otsu a ring of one pixel as boundary.

{table}
"""


def render(recipe: Recipe, described: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Fill the card.

    Args:
        recipe: What the model was made by.
        described: Its manifest.
        metrics: What ``report`` measured, for each set of frames.

    Returns:
        Markdown.
    """
    halting = described["halting"]
    return TEMPLATE.format(
        name=described["name"],
        version=described["version"],
        classes=", ".join(described["classes"]),
        height=described["input"]["height"],
        width=described["input"]["width"],
        subject=recipe.card.subject,
        pretrained=recipe.card.pretrained,
        limits="\n".join(f"- {limit}" for limit in recipe.card.limits),
        unit=f"blocks of {recipe.data.block_frames} frames" if recipe.data.drive_letters else "frames",
        note=recipe.note,
        refit=REFIT if described.get("is_refit") else "",
        tiles=recipe.net.tiles_per_step,
        that=CHOSEN[recipe.net.order],
        terms=described["energy_terms"],
        data=described["data"],
        frames=metrics["clean"]["frames"],
        licence=described["licence"],
        command=described["command"],
        seed=described["seed"],
        macs=_table(
            ("graph", "million MACs per frame"), ((n, f"{m / 1e6:.1f}") for n, m in described["macs"].items())
        ),
        by_step="\n\n".join(_by_step(name, measured) for name, measured in metrics.items()),
        window=halting["K"] + 1,
        eps=halting["eps"],
        max_steps=halting["max_steps"],
        target=100 * recipe.halt.max_loss,
        halt=_table(HALT_HEAD, (_halt_row(name, m["default_halt"]) for name, m in metrics.items())),
        trust=_table(TRUST_HEAD, (_trust_row(name, m["trust"]) for name, m in metrics.items())),
        otsu=_otsu(metrics) if recipe.card.otsu else "",
    )


CHOSEN = {"gain": "that promise the largest gain", "entropy": "whose labels are the least decided"}
HALT_HEAD = (
    "frames",
    "mean steps",
    "mIoU",
    "minus all steps",
    "minus as many steps for every frame",
    "compute saved",
)
TRUST_HEAD = ("frames", "mean promised", "mean true", "mean absolute error", "correlation")
OTSU_HEAD = ("frames", "Otsu foreground IoU", "model", "Otsu mIoU", "model", "model's lead in mIoU")


def _by_step(name: str, measured: dict[str, Any]) -> str:
    others = measured["by_step_in_other_order"]
    rows = (
        (str(k), _with_interval(s["miou"], s["interval"]), *(f"{100 * o[k]:.2f}" for o in others.values()))
        for k, s in enumerate(measured["by_step"])
    )
    over_glance = _with_interval(measured["last_minus_glance"], measured["last_minus_glance_interval"])
    over_first = _with_interval(measured["last_minus_first"], measured["last_minus_first_interval"])
    classes = ", ".join(f"{100 * iou:.1f}" for iou in measured["by_step"][-1]["iou_per_class"])
    table = _table(("step", "in its order", *others), rows)
    return (
        f"*{name}*: the last step minus the first {over_first}, minus the glance {over_glance}; "
        f"IoU of the classes after all steps {classes}.\n\n{table}"
    )


def _halt_row(name: str, halt: dict[str, Any]) -> tuple[str, ...]:
    lead = _with_interval(halt["minus_fixed_steps"], halt["minus_fixed_steps_interval"])
    return (
        name,
        f"{halt['mean_steps']:.2f}",
        _with_interval(halt["miou"], halt["interval"]),
        _with_interval(halt["minus_all_steps"], halt["minus_all_steps_interval"]),
        f"{lead} ({halt['fixed_steps']})",
        f"{halt['compute_saved']:.2f}x",
    )


def _trust_row(name: str, trust: dict[str, float]) -> tuple[str, ...]:
    keys = ("mean_promised", "mean_true", "mean_absolute_error", "correlation")
    return (name, *(f"{trust[key]:.3f}" for key in keys))


def _otsu(metrics: dict[str, Any]) -> str:
    return OTSU.format(table=_table(OTSU_HEAD, (_otsu_row(name, m) for name, m in metrics.items())))


def _otsu_row(name: str, measured: dict[str, Any]) -> tuple[str, ...]:
    otsu, model = measured["otsu"], measured["default_halt"]
    pairs = ((otsu[key], model[key]) for key in ("foreground_iou", "miou"))
    lead = _with_interval(model["miou"] - otsu["miou"], measured["default_halt_minus_otsu_interval"])
    return (name, *(f"{100 * value:.2f}" for pair in pairs for value in pair), lead)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
