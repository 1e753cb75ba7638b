"""Write what a model makes of the golden frame beside it: ``sage-edge jetson-report`` compares with that.

python -m engines.vision.golden engines/vision/models/nuclei
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from sage_edge import Settings
from sage_edge.commands.jetson_report import TOLERANCES, golden_results
from sage_edge.orchestrator import open_hrm


def main(folder: Path) -> None:
    """Write ``golden.json`` into the model's folder: FP32's results on the CPU, digests of each precision."""
    digests, results = [], {}
    for precision in TOLERANCES:
        settings = Settings(
            plugin_config={"vision": {"model": str(folder)}}, precision=precision, telemetry_dir="", slots=1
        )
        with closing(open_hrm(settings)) as hrm:
            digests.append(hrm.plugins["vision"].model_sha256)
            results[precision] = golden_results(hrm)
    golden = {"model_sha256": digests, **results["fp32"]}
    (folder / "golden.json").write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
