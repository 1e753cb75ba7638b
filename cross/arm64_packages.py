"""Fetch what the project and its tests need as aarch64 wheels, with this machine's pip.

Usage: cross/arm64_packages.py FOLDER. Environment markers are judged for this machine, whose Python must
therefore be of the version that the packages are for: 3.11 or later, where tomllib is.
"""

import subprocess
import sys
from pathlib import Path

import tomllib

#: Tools that only build and check, which the cross build uses from this machine.
NOT_NEEDED = ("cmake", "ninja", "pybind11-stubgen")
#: pip takes a platform literally: each that aarch64 wheels are tagged with has to be named.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def main() -> None:
    """Install into the folder that the command line names."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    chosen = [name for name in wanted if not name.startswith(NOT_NEEDED)]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--only-binary=:all:", python]
    subprocess.run([*pip, *platforms, "--implementation=cp", f"--target={sys.argv[1]}", *chosen], check=True)


if __name__ == "__main__":
    main()
