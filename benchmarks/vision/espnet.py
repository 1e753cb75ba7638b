"""Our model beside ESPNet, whose CamVid weights are published, on the same frames and labels.

python -m benchmarks.vision.espnet --data CAMVID --split val --weights FILE --model camvid-quick
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import report
from benchmarks.vision.espnet_net import ESPNet, load_espnet
from engines.vision.bootstrap import by_block, miou_interval
from engines.vision.data import blocks_of
from sage_edge import Budget, Settings, open_hrm
from sage_edge.evaluation import Labelled, find_labelled
from sage_edge.quality import confusion, mean_iou

#: Of the CamVid training frames in BGR, the mean over frames of each frame's own deviation.
MEAN_BGR = np.array([110.795, 109.029, 105.870], np.float32)
DEVIATION_BGR = np.array([72.201, 72.800, 70.114], np.float32)
VOID, CLASSES = 11, 11
BLOCK_FRAMES, DRIVE_LETTERS = 10, 6
#: Multiply-adds of ESPNet p = 2, q = 8 for a frame of 360 x 480, in millions.
ESPNET_MMAC = 1335


def main() -> None:
    """Read the command line, measure both, print and write."""
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path, required=True, help="espnet_p2_q8_camvid.safetensors")
    parser.add_argument("--model", default="camvid-quick", help="ours: a model that ships, or a folder")
    parser.add_argument("--frames", type=int, help="only every so many-th frame, for a first look")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frames = find_labelled(options.data, options.split)
    frames = Labelled(frames.images[:: options.frames or 1], frames.labels)
    blocks = blocks_of((path.stem for path in frames.images), DRIVE_LETTERS, BLOCK_FRAMES)
    names = [blocks[path.stem] for path in frames.images]
    theirs = espnet_confusions(load_espnet(options.weights), frames)
    settings = Settings(
        plugin_config={"vision": {"model": options.model}}, threads=options.threads, telemetry_dir="", slots=1
    )
    rows = {"ESPNet": summary(theirs, names, float(ESPNET_MMAC))}
    for name, budget in (("all steps", Budget(eps=0.0)), ("early stop", Budget())):
        ours, mmac = our_confusions(settings, frames, budget)
        lead = miou_interval(by_block(ours, names), by_block(theirs, names))
        rows[name] = {**summary(ours, names, mmac), "minus_espnet_interval": lead}
    report.table(
        ("", "mIoU", "low", "high", "MMAC per frame"),
        [(name, row["mIoU"], *row["interval"], row["MMAC"]) for name, row in rows.items()],
    )
    results = {"split": options.split, "model": options.model, "frames": len(frames), "rows": rows}
    report.write(options.json, "vision.espnet", results)


def summary(confusions: NDArray[np.int64], blocks: list[str], mmac: float) -> dict[str, Any]:
    """MIoU with its interval over blocks, and the compute of a frame."""
    interval = miou_interval(by_block(confusions, blocks))
    return {"mIoU": mean_iou(confusions.sum(axis=0)), "interval": interval, "MMAC": mmac}


def espnet_confusions(net: ESPNet, frames: Labelled) -> NDArray[np.int64]:
    """The confusion of every frame: int64 [N, 11, 11]."""
    return np.stack(
        [
            confusion(labelled.labels, segment(net, labelled.frame), CLASSES, VOID)
            for labelled in tqdm(frames, "ESPNet")
        ]
    )


def segment(net: ESPNet, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The likeliest class of every pixel, void aside: uint8 [H, W, 3] RGB -> int64 [H, W]."""
    bgr = (frame[..., ::-1].astype(np.float32) - MEAN_BGR) / DEVIATION_BGR / 255
    with torch.no_grad():
        logits = net(torch.from_numpy(np.ascontiguousarray(bgr.transpose(2, 0, 1)))[None])
    classes: NDArray[np.int64] = logits[0, :CLASSES].argmax(0).numpy()
    return classes


def our_confusions(settings: Settings, frames: Labelled, budget: Budget) -> tuple[NDArray[np.int64], float]:
    """The confusion of every frame, and the mean compute of a frame in million multiply-adds."""
    confusions, steps = [], []
    with closing(open_hrm(settings)) as hrm:
        macs = hrm.require("vision").model.macs
        for labelled in tqdm(frames, "ours"):
            result = hrm.submit("vision", hrm.prepare("vision", labelled.frame), budget).future.result()
            confusions.append(confusion(labelled.labels, result.answer.array, CLASSES, VOID))
            steps.append(result.run.step_idx)
    mmac = (macs["encoder"] + macs["decoder"] + float(np.mean(steps)) * macs["step"]) / 1e6
    return np.stack(confusions), mmac


if __name__ == "__main__":
    main()
