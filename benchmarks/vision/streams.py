"""What a stream's last answer saves its next frame, and what it costs.

python -m benchmarks.vision.streams --data FOLDER --split val --model NAME_OR_FOLDER

``sequence`` has the frames of the split as they follow each other (CamVid: one a second), each drive a
stream; ``pan N px`` has clips of one frame that moves N pixels to the right from frame to frame, with fresh
noise. Each is refined once with its stream's name and once without, at the default halt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import report
from engines.vision.data import VOID
from engines.vision.streams import moved
from sage_edge import HRM, Settings, open_hrm
from sage_edge.evaluation import Labelled, find_labelled
from sage_edge.plugins.vision import VisionPlugin
from sage_edge.quality import confusion, mean_iou

PANS_PX = (0, 1, 2, 4, 8)
CLIP_FRAMES = 6
SEED = 3


class Shown(NamedTuple):
    """A frame of a clip, uint8 [H, W, 3], and its labels, uint8 [H, W] with VOID."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class Refined(NamedTuple):
    """What a set of clips came to: int64 [classes, classes], and the steps of each frame."""

    confusion: NDArray[np.int64]
    steps: list[int]


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="nuclei", help="a model that ships, or a folder")
    parser.add_argument("--clips", type=int, default=8, help="clips of each pan")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    frames = find_labelled(options.data, options.split)
    settings = Settings(
        plugin_config={"vision": {"model": options.model}}, threads=options.threads, telemetry_dir="", slots=1
    )
    results = {}
    with closing(open_hrm(settings)) as hrm:
        plugin = hrm.require("vision")
        rng = np.random.default_rng(SEED)
        kinds = {"sequence": sequences(plugin, frames)} if plugin.model.drive_letters else {}
        for pan_px in PANS_PX:
            kinds[f"pan {pan_px} px"] = pans(plugin, frames, options.clips, pan_px, rng)
        for kind, clips in kinds.items():
            results[kind] = compare(hrm, plugin, kind, clips)
    report.table(
        ("", "steps anew", "steps carried", "compute saved", "mIoU anew", "mIoU carried"),
        [(kind, *row.values()) for kind, row in results.items()],
    )
    report.write(options.json, "vision.streams", {"model": options.model, "rows": results})


def sequences(plugin: VisionPlugin, frames: Labelled) -> list[list[Shown]]:
    """The frames of each drive, in order."""
    drives = defaultdict(list)
    for labelled in frames:
        drives[labelled.name[: plugin.model.drive_letters]].append(
            Shown(labelled.frame, counted(labelled.labels, plugin.model.void))
        )
    return list(drives.values())


def pans(
    plugin: VisionPlugin, frames: Labelled, clips: int, pan_px: int, rng: np.random.Generator
) -> list[list[Shown]]:
    """Clips of frames taken evenly from the split."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, clips).astype(int))
    some = Labelled(tuple(frames.images[n] for n in chosen), frames.labels)
    return [
        [
            Shown(*moved(one.frame, counted(one.labels, plugin.model.void), pan_px * at, rng))
            for at in range(CLIP_FRAMES)
        ]
        for one in some
    ]


def counted(labels: NDArray[Any], void: int | None) -> NDArray[np.uint8]:
    """Labels with VOID in the place of the data set's own."""
    return np.where(labels == void, VOID, labels).astype(np.uint8)


def compare(hrm: HRM, plugin: VisionPlugin, kind: str, clips: Sequence[Sequence[Shown]]) -> dict[str, float]:
    """Refine all clips without and with their streams."""
    anew, carried = (refine(hrm, kind, clips, len(plugin.model.classes), keep=keep) for keep in (False, True))
    macs = plugin.model.macs
    compute = [
        macs["encoder"] + macs["decoder"] + macs["step"] * float(np.mean(run.steps))
        for run in (anew, carried)
    ]
    return {
        "steps_anew": float(np.mean(anew.steps)),
        "steps_carried": float(np.mean(carried.steps)),
        "compute_saved": compute[0] / compute[1],
        "mIoU_anew": mean_iou(anew.confusion),
        "mIoU_carried": mean_iou(carried.confusion),
    }


def refine(hrm: HRM, kind: str, clips: Sequence[Sequence[Shown]], classes: int, *, keep: bool) -> Refined:
    """Refine every frame, one after the other."""
    total, steps = np.zeros((classes, classes), np.int64), []
    for number, clip in enumerate(tqdm(clips, f"{kind}, {'carried' if keep else 'anew'}")):
        for shown in clip:
            stream_id = f"{kind} {number}" if keep else None
            prepared = hrm.prepare("vision", shown.frame)
            result = hrm.submit("vision", prepared, stream_id=stream_id).future.result()
            total += confusion(shown.labels, result.answer.array, classes, VOID)
            steps.append(result.run.step_idx)
    return Refined(total, steps)


if __name__ == "__main__":
    main()
