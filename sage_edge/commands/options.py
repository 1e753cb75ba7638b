"""What commands share: how they are added, settings as flags, exit codes, and an error in one line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from sage_edge.config import Settings, load_settings, setting_fields
from sage_edge.errors import SageError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Exit codes: 0 done, 1 the input was at fault, 2 the command could not start.
EXIT_INPUT, EXIT_START = 1, 2


def add_command(
    within: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """A command whose ``run`` returns the exit code."""
    parser = within.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def add_group(within: Commands, name: str, text: str) -> Commands:
    """A word that other commands follow."""
    return within.add_parser(name, help=text).add_subparsers(required=True)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Every setting as a flag."""
    parser.add_argument("--config", type=Path, help="a TOML file of settings (or SAGE_CONFIG)")
    parser.add_argument(
        "--set", action="append", metavar="NAME.KEY=VALUE", help="a setting of one plugin (repeatable)"
    )
    for entry in setting_fields():
        shown = ",".join(entry.default) if isinstance(entry.default, tuple) else entry.default
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}",
            metavar=type(entry.default).__name__.upper(),
            help=f"{entry.metadata['help']} (default {shown!r})",
        )


def setting_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The settings given as flags, by name; None where one was not."""
    return {name: getattr(options, name) for name in ("set", *(entry.name for entry in setting_fields()))}


def settings_of(
    options: argparse.Namespace,
    keys: Mapping[str, str | None] | None = None,
    *,
    only: str | None = None,
) -> Settings:
    """The settings in effect; the log goes to stderr from here on.

    Args:
        options: What was parsed.
        keys: Keys of plugins that have flags of their own, as NAME.KEY; None where the flag was not given.
        only: The one plugin that the command is about, whatever ``plugins`` says.
    """
    flags = setting_flags(options)
    if only is not None:
        flags["plugins"] = (only,)
    own = [f"{path}={value}" for path, value in (keys or {}).items() if value is not None]
    settings = load_settings({**flags, "set": [*(flags["set"] or ()), *own]}, file=options.config)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    return settings


def describe(exc: OSError | SageError, path: Path | None = None) -> str:
    """An error in one line that names its file."""
    if isinstance(exc, OSError):
        return f"{exc.filename or path}: {exc.strerror or exc}"
    return f"{path}: {exc}"
