"""``sage-edge plugin``: whether a plugin keeps its contract, and a new one to begin with."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from sage_edge.commands.options import (
    EXIT_INPUT,
    Commands,
    add_command,
    add_group,
    add_settings,
    settings_of,
)
from sage_edge.config import shared_file
from sage_edge.errors import ConfigError
from sage_edge.plugins import CLASS_KEY, open_plugin
from sage_edge.plugins.check import Finding, check

#: A name that can be a module and a plugin.
_NEW_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def add_parser(commands: Commands) -> None:
    """Add the two commands."""
    within = add_group(commands, "plugin", "Write plugins.")
    text = "Try every method of a plugin, and every way to run it."
    checked = add_command(within, "check", text, run_check)
    checked.add_argument("plugin", metavar="NAME|module:Class", help="a registered plugin, or any class")
    add_settings(checked)
    new = add_command(within, "new", "Write a small package with a plugin and its test.", run_new)
    new.add_argument("name", help="of the plugin and of its module, such as my_plugin")
    new.add_argument("--out", type=Path, default=Path(), help="where the package's folder is made")


def run_check(options: argparse.Namespace) -> int:
    """Print a line for each check; fails where the plugin cannot be served as it is."""
    name, path = options.plugin, {}
    if ":" in name:
        name = re.sub(r"\W", "_", name.partition(":")[2]).lower()
        path = {f"{name}.{CLASS_KEY}": options.plugin}
    plugin = open_plugin(name, settings_of(options, path, only=name))
    findings = check(plugin)
    sys.stdout.write(as_table(findings))
    failed = sum(finding.verdict == "FAIL" for finding in findings)
    profiles = " and ".join(plugin.allowed_profiles())
    sys.stdout.write(f"{name}: {failed or 'nothing'} to mend; for the profiles {profiles}\n")
    return EXIT_INPUT if failed else 0


def as_table(findings: list[Finding]) -> str:
    """Findings for people."""
    width = max(len(finding.check) for finding in findings)
    return "".join(f"{verdict:<4}  {name:<{width}}  {detail}\n" for name, verdict, detail in findings)


def run_new(options: argparse.Namespace) -> int:
    """Write the package; overwrites nothing."""
    name = options.name
    if not _NEW_NAME.fullmatch(name):
        raise ConfigError(f"plugin new: expected a name of lower-case letters, digits and _, got {name!r}")
    folder = options.out / name
    if folder.exists():
        raise ConfigError(f"plugin new: {folder} is there already; choose another name or --out")
    words = {"smooth": name, "Smooth": "".join(part.capitalize() for part in name.split("_"))}
    folder.mkdir(parents=True)
    for source in sorted(shared_file("examples/smooth").iterdir()):
        if source.is_file():
            text = _renamed(source.read_text(encoding="utf-8"), words)
            (folder / source.name.replace("smooth", name)).write_text(text, encoding="utf-8")
    sys.stdout.write(
        f"{folder}: pip install -e {folder} pytest && python -m pytest {folder} && "
        f"sage-edge serve --plugins {name}\n"
    )
    return 0


def _renamed(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = re.sub(rf"\b{old}(?=\b|_)", new, text)
    return text
