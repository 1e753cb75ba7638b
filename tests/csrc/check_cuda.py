"""Check the CUDA sources without a GPU: what compiles, for which chips, with which registers and CUDA.

    python tests/csrc/check_cuda.py [STEP...]        steps: kernels, toolkit126, aarch64

Nothing here runs on a GPU. Needs nvcc; without it there is nothing to check, and one line says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "check-cuda"
TABLE = ROOT / "docs" / "CUDA.md"
CHIPS = ("sm_87", "sm_90")
KERNELS = sorted((ROOT / "csrc").rglob("*.cu"))
HOST_SOURCES = sorted((ROOT / "csrc" / "device").glob("*.cpp"))
#: As csrc/cuda.cmake has them.
CUDA_OPTIONS = ["-std=c++17", "-O3", "--fmad=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


class Usage(NamedTuple):
    """What one kernel takes on one chip."""

    kernel: str
    chip: str
    registers: int
    shared_bytes: int
    spilled_bytes: int


def main() -> None:
    """Stops at the first check that fails."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("CUDA: no nvcc here, so none of the CUDA sources was compiled")
        return
    steps = {"kernels": check_kernels, "toolkit126": check_toolkit126, "aarch64": check_aarch64}
    for name in sys.argv[1:] or steps:
        start_s = time.monotonic()
        print(f"==> CUDA, {name}: {steps[name](nvcc)} ({time.monotonic() - start_s:.0f} s)", flush=True)


def find_nvcc() -> Path | None:
    """The CUDA compiler that the PATH leads to, inside its toolkit; or where the toolkit puts it."""
    found = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if found is None:
        return None
    here = re.search(r"_HERE_=(.+)", run(found, "--dryrun", "-c", KERNELS[0]))
    return Path(here[1]) / "nvcc" if here else Path(found)


def run(*command: str | Path, **options: object) -> str:
    """Output of a command; its errors end the check."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(str(c) for c in command)}\n{done.stdout}{done.stderr}")
    return f"{done.stdout}{done.stderr}"


def in_parallel(call: Callable[[Path], T], sources: Sequence[Path]) -> list[T]:
    """The call's results for every source, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(call, sources))


# Kernels: warnings, spills, registers.


def check_kernels(nvcc: Path) -> str:
    """Compile every kernel for every chip; no spills, and registers as docs/CUDA.md says."""
    BUILD.mkdir(parents=True, exist_ok=True)
    usages = [
        usage
        for found in in_parallel(lambda source: compile_kernel(nvcc, source), KERNELS)
        for usage in found
    ]
    spilling = [usage for usage in usages if usage.spilled_bytes]
    if spilling:
        raise SystemExit(f"kernels that spill registers: {spilling}")
    version, documented = read_table(TABLE.read_text())
    found = {(u.kernel, u.chip): (u.registers, u.shared_bytes) for u in usages}
    if nvcc_version(nvcc) == version and found != documented:
        raise SystemExit(f"{TABLE.name} has other registers than nvcc {version}; expected\n{as_table(found)}")
    return f"{len(found)} compilations, none spills"


def compile_kernel(nvcc: Path, source: Path) -> list[Usage]:
    """Compile one file for all chips, warnings being errors."""
    chips = [f"-gencode=arch=compute_{chip[3:]},code={chip}" for chip in CHIPS]
    strict = ["-Xptxas=-v", "-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror"]
    return parse_usage(
        run(nvcc, *CUDA_OPTIONS, *chips, *strict, "-c", source, "-o", BUILD / f"{source.stem}.o")
    )


def parse_usage(report: str) -> list[Usage]:
    """The kernels in what ``ptxas -v`` says."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for '(?P<chip>sm_\d+)'.*?"
        r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    usages = []
    for match in pattern.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        usages.append(
            Usage(
                readable(match["name"]),
                match["chip"],
                int(match["registers"]),
                int(shared[1]) if shared else 0,
                int(match["stores"]) + int(match["loads"]),
            )
        )
    return usages


def readable(mangled: str) -> str:
    """`latent_step<noisy, whole, half>` for the symbol of that kernel."""
    name = re.search(r"\d+([a-z_]+)_kernel", mangled)
    if name is None:
        raise SystemExit(f"kernel {mangled}: expected a name that ends in _kernel")
    flags = re.findall(r"Lb([01])E", mangled)
    if not flags:
        return name[1]
    words = [
        word if flag == "1" else f"not {word}" for word, flag in zip(("noisy", "whole"), flags, strict=True)
    ]
    return f"{name[1]}<{', '.join([*words, 'half' if 'Half' in mangled else 'float'])}>"


def read_table(text: str) -> tuple[str, dict[tuple[str, str], tuple[int, int]]]:
    """The version of nvcc, and registers and shared bytes by kernel and chip, in docs/CUDA.md."""
    version = re.search(r"nvcc (\d+\.\d+)", text)
    rows = re.findall(r"^\| `([^`]+)` \| (sm_\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    if version is None:
        raise SystemExit(f"{TABLE}: expected the version of nvcc that the table is of")
    return version[1], {(kernel, chip): (int(regs), int(shared)) for kernel, chip, regs, shared in rows}


def as_table(found: dict[tuple[str, str], tuple[int, int]]) -> str:
    """The rows of the table."""
    rows = sorted((kernel, chip, *usage) for (kernel, chip), usage in found.items())
    return "\n".join(f"| `{kernel}` | {chip} | {regs} | {shared} |" for kernel, chip, regs, shared in rows)


def nvcc_version(nvcc: Path) -> str:
    """Such as "13.0"."""
    release = re.search(r"release (\d+\.\d+)", run(nvcc, "--version"))
    return release[1] if release else "unknown"


# The same sources with the headers and the assembler of CUDA 12.6, which JetPack 6 has.


def check_toolkit126(nvcc: Path) -> str:
    """Compile the kernels by clang and the host's side by g++ with CUDA 12.6."""
    clang = shutil.which("clang++-19") or install("clang-19", "clang++-19")
    if clang is None:
        return "skipped: needs clang-19, which only root can install here"
    toolkit = make_toolkit126(nvcc)
    in_parallel(lambda source: kernel126(clang, toolkit, source), KERNELS)
    for source in HOST_SOURCES:
        includes = [f"-I{ROOT / 'csrc'}", "-isystem", toolkit / "include"]
        run("g++", "-std=c++17", "-fsyntax-only", *WARNINGS, *includes, source)
    return f"{len(KERNELS)} kernels for sm_87 and {len(HOST_SOURCES)} host sources"


def kernel126(clang: str, toolkit: Path, source: Path) -> None:
    """One kernel for sm_87 by clang."""
    chip = ["--cuda-gpu-arch=sm_87", f"--cuda-path={toolkit}", "-Wno-unknown-cuda-version"]
    options = ["-std=c++17", "-O2", "-ffp-contract=off", f"-I{ROOT / 'csrc'}", "-fPIC"]
    run(clang, "-x", "cuda", *chip, *options, "-c", source, "-o", BUILD / f"{source.stem}.126.o")


def install(package: str, program: str) -> str | None:
    """A Debian package, where we may."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for before in (None, ["apt-get", "update", "-qq"]):
        if before is not None:
            subprocess.run(before, capture_output=True, check=False)
        if subprocess.run(command, capture_output=True, check=False, env=environment).returncode == 0:
            break
    return shutil.which(program)


def wheels(folder: str, platform: str, *packages: str) -> Path:
    """Unpacked wheels, without what they depend on."""
    target = BUILD / folder
    if not target.is_dir():
        options = [
            "--no-deps",
            "--only-binary=:all:",
            f"--platform={platform}",
            "--target",
            target,
            "--quiet",
        ]
        run(sys.executable, "-m", "pip", "install", *options, *packages)
    return target


def make_toolkit126(nvcc: Path) -> Path:
    """What clang needs of a toolkit, put together from wheels."""
    toolkit = BUILD / "toolkit126"
    if (toolkit / "complete").exists():
        return toolkit
    host = wheels(
        "cuda126",
        "manylinux_2_17_x86_64",
        "nvidia-cuda-runtime-cu12==12.6.*",
        "nvidia-cuda-cccl-cu12==12.6.*",
    )
    compiler = (
        wheels("nvcc126", "manylinux_2_5_x86_64", "nvidia-cuda-nvcc-cu12==12.6.*") / "nvidia" / "cuda_nvcc"
    )
    parts = [host / "nvidia" / name for name in ("cuda_runtime", "cuda_cccl")]
    for part in (*parts, compiler):
        shutil.copytree(part / "include", toolkit / "include", dirs_exist_ok=True)
    shutil.copytree(compiler / "nvvm" / "libdevice", toolkit / "nvvm" / "libdevice", dirs_exist_ok=True)
    (toolkit / "include" / "curand_mtgp32_kernel.h").touch()  # clang includes it, and no wheel here has it
    (toolkit / "bin").mkdir(exist_ok=True)
    shutil.copy(compiler / "bin" / "ptxas", toolkit / "bin" / "ptxas")
    shutil.copy(Path(__file__).with_name("fatbinary126.sh"), toolkit / "bin" / "fatbinary")
    (toolkit / "bin" / "fatbinary-13").symlink_to(nvcc.parent / "fatbinary")
    for program in ("ptxas", "fatbinary"):
        (toolkit / "bin" / program).chmod(0o755)
    (toolkit / "complete").touch()
    return toolkit


# The whole module for a Jetson Orin.


def check_aarch64(nvcc: Path) -> str:
    """Cross-compile the wheel for aarch64 and sm_87, and look at what its sage_edge._cuda holds."""
    compiler = shutil.which("aarch64-linux-gnu-g++") or install(
        "g++-aarch64-linux-gnu", "aarch64-linux-gnu-g++"
    )
    if compiler is None:
        return "skipped: needs aarch64-linux-gnu-g++, which only root can install here"
    folder = BUILD / "aarch64"
    shutil.rmtree(folder, ignore_errors=True)
    headers = sysconfig.get_path("include")  # of this machine's Python: both have the same sizes of types
    environment = {**os.environ, "SAGE_CUDA": "ON", "PATH": f"{os.environ['PATH']}{os.pathsep}{nvcc.parent}"}
    run(ROOT / "cross" / "arm64_wheel.sh", sys.executable, headers, folder, env=environment)
    [wheel] = folder.glob("*_aarch64.whl")
    shutil.unpack_archive(wheel, folder, "zip")
    [module] = folder.glob("sage_edge/_cuda.*.so")
    return inspect(module)


def inspect(module: Path) -> str:
    """It is for aarch64, has machine code for sm_87 and nothing else, and needs no CUDA library to load."""
    tools = (
        wheels("cuobjdump", "manylinux_2_17_x86_64", "nvidia-cuda-cuobjdump==13.2.51")
        / "nvidia"
        / "cu13"
        / "bin"
    )
    (tools / "cuobjdump").chmod(0o755)
    chips = set(re.findall(r"\.(sm_\d+)\.cubin", run(tools / "cuobjdump", "--list-elf", module)))
    if chips != {"sm_87"}:
        raise SystemExit(f"{module.name}: expected machine code for sm_87 alone, got {sorted(chips)}")
    about = run("readelf", "--file-header", "--dynamic", module)
    if "AArch64" not in about:
        raise SystemExit(f"{module.name}: expected AArch64, got\n{about}")
    needed = re.findall(r"NEEDED.*\[(.+)\]", about)
    if any("cuda" in name for name in needed):
        raise SystemExit(f"{module.name}: expected no CUDA library to be needed at load, got {needed}")
    return f"AArch64 with sm_87 code, {module.stat().st_size >> 10} KiB, needs {', '.join(sorted(needed))}"


if __name__ == "__main__":
    main()
