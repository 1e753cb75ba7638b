"""The command ``sage-edge``: its words, and how it ends. What it does is in ``sage_edge.commands``."""

from __future__ import annotations

import argparse
import os
import sys

from sage_edge.commands import (
    audit,
    calibration,
    config,
    doctor,
    engines,
    evaluate,
    jetson_report,
    keys,
    plugin,
    refine,
    serve,
    telemetry,
)
from sage_edge.commands.options import EXIT_INPUT, EXIT_START, describe
from sage_edge.config import VERSION
from sage_edge.errors import ConfigError, EngineError, PluginError, SageError

#: In the order in which --help lists them.
_COMMANDS = (
    serve,
    refine,
    evaluate,
    telemetry,
    engines,
    plugin,
    audit,
    jetson_report,
    config,
    keys,
    calibration,
    doctor,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, EngineError, PluginError) as exc:
        cause = f": {exc.__cause__}" if isinstance(exc, PluginError) and exc.__cause__ else ""
        print(f"sage-edge: {exc}{cause}", file=sys.stderr)
        return EXIT_START
    except SageError as exc:
        print(f"sage-edge: {exc}", file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # `| head` has seen enough; nothing more can be written at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as exc:
        print(f"sage-edge: {describe(exc)}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage-edge", description="An anytime inference server.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
