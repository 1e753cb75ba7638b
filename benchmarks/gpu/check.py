"""What only a machine with an NVIDIA GPU can tell, in one run of under eight minutes: ``make gpu-check``.

    python -m benchmarks.gpu.check [--out FOLDER] [--budget-s 470] [--step-s 240] [--only STEP ...]

Builds for this GPU, runs the tests marked ``gpu`` (also under compute-sanitizer, where it is), runs the
benchmarks, and writes FOLDER/gpu-<name>-<date>.json and a short table. A step that fails is written down, and
the next one runs. Needs nvcc, CMake, ninja, pybind11, NumPy and pytest; torch, CuPy and Triton are the rivals
and may be missing. No network, and no installation: the package is put together in build/gpu-check.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "gpu-check"
PACKAGE = BUILD / "package"
PROGRAMS = ("kernels", "loop", "mailbox")
SANITIZERS = ("memcheck", "racecheck")
#: Widths at which serving is measured.
SERVED_SLOTS = ("8", "16", "32")
#: Of the host, in a WHILE graph: a launch and its end are shared by all the ticks between them.
MOST_CALLS_PER_TICK = 0.05


class Step(NamedTuple):
    """One part of the check.

    Attributes:
        name: What it is called in the results.
        run: Returns its results; given the seconds that it may take.
    """

    name: str
    run: Callable[[float], Any]


class StepError(Exception):
    """A step could not be done; the message says why."""


def main() -> int:
    """Returns 1 when a step failed."""
    options = parse(sys.argv[1:])
    steps = [step for step in all_steps(options) if not options.only or step.name in options.only]
    document = {
        "benchmark": "gpu-check",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "machine": report.machine(),
        "gpu": describe_gpu(),
        "steps": run_steps(steps, options.budget_s, options.step_s, time.monotonic),
    }
    path = result_path(options.out, document["gpu"].get("name", "none"), document["date"][:10])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print_summary(document)
    print(f"\nwritten: {path}")
    return 0 if all(step["ok"] for step in document["steps"].values()) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--budget-s", type=float, default=470.0, help="for all steps together, seconds")
    parser.add_argument("--step-s", type=float, default=240.0, help="for one step at most, seconds")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", choices=STEP_NAMES)
    parser.add_argument("--chip", default=None, help="compute capability to build for, such as 90")
    parser.add_argument("--dry-run", action="store_true", help="build, and start nothing that needs a GPU")
    return parser.parse_args(arguments)


def run_steps(
    steps: list[Step], budget_s: float, step_s: float, now_s: Callable[[], float]
) -> dict[str, Any]:
    """Results of every step by name, each with ``ok``, ``took_s`` and ``result`` or ``error``."""
    end_s = now_s() + budget_s
    results: dict[str, Any] = {}
    for step in steps:
        start_s = now_s()
        print(f"==> {step.name}", flush=True)
        try:
            if end_s - start_s <= 0:
                raise StepError("the budget of time was spent before it")
            outcome = {"ok": True, "result": step.run(min(end_s - start_s, step_s))}
        except Exception as exc:  # noqa: BLE001 # whatever one step does, the next one runs
            outcome = {"ok": False, "error": f"{type(exc).__name__}: {exc}"[-4000:]}
            print(f"    FAILED: {outcome['error'][-600:]}", flush=True)
        results[step.name] = {**outcome, "took_s": round(now_s() - start_s, 1)}
    return results


def all_steps(options: argparse.Namespace) -> list[Step]:
    """The steps in order: what later ones need comes first, what matters most before what costs most."""
    chip = options.chip or describe_gpu().get("chip") or "90"
    build = Step("build", lambda limit_s: build_all(chip, limit_s))
    if options.dry_run:
        return [build]
    programs = [Step(name, lambda limit_s, name=name: run_program(name, limit_s)) for name in PROGRAMS]  # type: ignore[misc]
    sanitizers = [Step(tool, lambda limit_s, tool=tool: sanitize(tool, limit_s)) for tool in SANITIZERS]  # type: ignore[misc]
    measured = [*programs, Step("rivals", run_rivals), Step("serving", run_serving)]
    return [build, Step("tests", run_tests), *measured, *sanitizers]


STEP_NAMES = ("build", "tests", *PROGRAMS, "rivals", "serving", *SANITIZERS)


def describe_gpu() -> dict[str, str]:
    """Name, compute capability and driver of the first GPU; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    fields = [field.strip() for field in done.stdout.splitlines()[0].split(",")] if done.stdout else []
    if done.returncode != 0 or len(fields) != 3:
        return {}
    return {"name": fields[0], "chip": fields[1].replace(".", ""), "driver": fields[2]}


def result_path(folder: Path, gpu: str, date: str) -> Path:
    """Such as gpu-nvidia-h100-80gb-hbm3-2026-11-23.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return folder / f"gpu-{slug}-{date}.json"


def call(command: list[str | Path], limit_s: float, **environment: str) -> str:
    """Output of a command.

    Raises:
        StepError: It failed; its last lines say how.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode != 0:
        raise StepError(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def build_all(chip: str, limit_s: float) -> str:
    """The extension modules, the programs, and a package around them that needs no installation."""
    import pybind11

    options = [
        f"-DCMAKE_CUDA_ARCHITECTURES={chip}",
        "-DSAGE_CUDA=ON",
        "-DSAGE_GPU_BENCHMARKS=ON",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DSKBUILD_STATE=editable",  # models and schemas stay where they are
    ]
    call(["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *options], limit_s)
    call(["cmake", "--build", BUILD], limit_s)
    shutil.rmtree(PACKAGE, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "sage_edge", PACKAGE / "sage_edge", ignore=ignored)
    # The door to the core and the runtime alone: what the service imports may be missing here.
    (PACKAGE / "sage_edge" / "__init__.py").write_text('"""A part of sage_edge, for gpu-check."""\n')
    call(["cmake", "--install", BUILD, "--prefix", PACKAGE], limit_s)
    check = "from sage_edge import native; print(native.BUILT_WITH_CUDA, native.cuda_devices())"
    return f"sm_{chip}; " + call([sys.executable, "-c", check], 60, PYTHONPATH=str(PACKAGE)).strip()


def pytest_command(*more: str) -> list[str | Path]:
    """The tests marked gpu, over the package that was just built."""
    options = ["-o", f"pythonpath={PACKAGE}", "-p", "no:cacheprovider", "-W", "default", "-m", "gpu", "-q"]
    return [sys.executable, "-m", "pytest", "tests/gpu", *options, *more]


def run_tests(limit_s: float) -> str:
    """The last line of pytest."""
    return call(pytest_command(), limit_s).strip().splitlines()[-1]


def sanitize(tool: str, limit_s: float) -> str:
    """Some small tests under compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer is None:
        raise StepError("compute-sanitizer is not installed")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    small = "(every_request and 4-) or (half and 8) or (stopped and launches)"
    return call([*command, *pytest_command("-k", small)], limit_s).strip().splitlines()[-1]


def run_program(name: str, limit_s: float) -> Any:
    """What one of the programs wrote, if that is what must be.

    Raises:
        StepError: It failed, or broke a promise.
    """
    results = json.loads(call([BUILD / "benchmarks" / "gpu" / f"gpu_{name}"], limit_s))
    broken = broken_promises(results)
    if broken:
        raise StepError(f"{'; '.join(broken)}: {json.dumps(results)}")
    return results


def broken_promises(results: dict[str, Any]) -> list[str]:
    """What a program's results show that must never be, whatever the speed."""
    broken = []
    for mode in results.get("loop", {}).get("modes", []):
        calls = mode["cuda_calls_per_tick"]
        if mode["mode"] == "while_graph" and calls is not None and calls > MOST_CALLS_PER_TICK:
            broken.append(f"the WHILE graph's host made {calls} CUDA calls per tick")
    mailbox = results.get("mailbox")
    if mailbox and mailbox["torn"]:
        broken.append(f"{mailbox['torn']} torn records")
    if mailbox and mailbox["read"] + mailbox["lost"] != mailbox["records"]:
        broken.append("records that were neither read nor counted as lost")
    return broken


def run_rivals(limit_s: float) -> Any:
    """Times of torch, Triton and CuPy."""
    if importlib.util.find_spec("torch") is None:
        raise StepError("torch is not installed")
    return json.loads(call([sys.executable, "-m", "benchmarks.gpu.rivals"], limit_s))


def run_serving(limit_s: float) -> Any:
    """The vision plugin as it is served: by TensorRT, and the package that is installed here.

    Raises:
        StepError: TensorRT is not here, or the package is not.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise StepError("TensorRT is not installed")
    options = ["--precision", "fp16", "--slots"]
    build = [sys.executable, "-m", "sage_edge", "engines", "build", "--backend", "tensorrt", *options]
    for slots in SERVED_SLOTS:
        call([*build, slots], limit_s)
    out = BUILD / "serving.json"
    call([sys.executable, "-m", "benchmarks.gpu.serving", *options, *SERVED_SLOTS, "--json", out], limit_s)
    return json.loads(out.read_text())["results"]


def print_summary(document: dict[str, Any]) -> None:
    """What a person wants to see first."""
    steps = document["steps"]
    print(f"\n{document['gpu'].get('name', 'no GPU')}, {document['date']}")
    report.table(
        ["step", "ok", "s"], [[name, "yes" if s["ok"] else "NO", s["took_s"]] for name, s in steps.items()]
    )
    results = {name: step["result"] for name, step in steps.items() if step["ok"]}
    if "kernels" in results:
        print_kernels(results["kernels"]["latent_step"], results.get("rivals", {}).get("rivals", []))
    for mode in results.get("loop", {}).get("loop", {}).get("modes", []):
        print(
            f"loop wanted {mode['wanted']}, ran {mode['mode']}: {mode['us_per_tick']} us per tick, "
            f"{mode['cuda_calls_per_tick']} CUDA calls per tick  {mode['reason']}"
        )
    if "mailbox" in results:
        print(f"mailbox: {results['mailbox']['mailbox']}")


def print_kernels(rows: list[dict[str, Any]], rivals: list[dict[str, Any]]) -> None:
    """latent_step in microseconds, as a share of a copy, and each rival's time over ours."""
    names = list(dict.fromkeys(row["rival"] for row in rivals))
    times = {(row["rival"], row["dtype"], row["elements"]): row.get("us") for row in rivals}
    lines = []
    for row in rows:
        ours = [times.get((name, row["dtype"], row["elements"])) for name in names]
        ratios = [f"{us / row['us']:.2f}x" if us else "-" for us in ours]
        lines.append(
            [row["dtype"], row["elements"], row["saves_best"], row["us"], row["share_of_copy"], *ratios]
        )
    report.table(["dtype", "elements", "saves best", "us", "of a copy", *names], lines)


if __name__ == "__main__":
    sys.exit(main())
