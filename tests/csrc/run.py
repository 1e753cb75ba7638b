"""Build and run the C++ tests: plain, with the address sanitizer, with the thread sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Name, sanitizers, which tests.
BUILDS = (
    ("plain", "", "."),
    ("address", "address,undefined", "."),
    ("thread", "thread", "ring|thread_pool|latent_step|admm"),
)


def tool(name: str) -> str:
    """A build tool: the one installed beside this Python, or the system's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} is not installed: run `make test`, which installs it")
    return found


def main() -> None:
    """Stops at the first build or test that fails."""
    cmake, ctest, ninja = tool("cmake"), tool("ctest"), tool("ninja")
    for name, sanitizers, tests in BUILDS:
        print(f"==> C++ tests, {name}", flush=True)
        build = ROOT / "build" / f"ctest-{name}"
        options = ["-DSAGE_PYTHON=OFF", "-DSAGE_CUDA=OFF", "-DSAGE_TESTS=ON", f"-DSAGE_SANITIZE={sanitizers}"]
        options += [f"-DCMAKE_MAKE_PROGRAM={ninja}", "-G", "Ninja"]
        subprocess.run([cmake, "-S", ROOT, "-B", build, *options, "--log-level=WARNING"], check=True)
        subprocess.run([cmake, "--build", build], check=True)
        subprocess.run([ctest, "--test-dir", build, "-R", tests, "--output-on-failure"], check=True)


if __name__ == "__main__":
    main()
