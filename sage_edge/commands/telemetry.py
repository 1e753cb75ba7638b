"""``sage-edge telemetry``: print the last records of a file, or check them all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sage_edge.clock import SystemClock
from sage_edge.commands.options import EXIT_INPUT, Commands, add_command, add_group
from sage_edge.telemetry import TelemetryValidator, load_schema, tail, validate_file


def add_parser(commands: Commands) -> None:
    """Add both commands."""
    telemetry = add_group(commands, "telemetry", "Read telemetry files.")
    shown = add_command(telemetry, "tail", "Print the last records of a file.", run_tail)
    shown.add_argument("file", type=Path)
    shown.add_argument("-n", "--lines", type=_count, default=10, help="how many (default 10)")
    shown.add_argument("-f", "--follow", action="store_true", help="go on with new ones")
    checked = add_command(
        telemetry, "validate", "Check every record of a file against the schema.", run_validate
    )
    checked.add_argument("file", type=Path)


def run_tail(options: argparse.Namespace) -> int:
    """Print the last records, and the new ones where that is wanted."""
    for line in tail(options.file, limit=options.lines, follow=options.follow, clock=SystemClock()):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def run_validate(options: argparse.Namespace) -> int:
    """Print what is wrong with the records."""
    report = validate_file(options.file, TelemetryValidator(load_schema()))
    for number, message in report.invalid[:20]:
        sys.stdout.write(f"{options.file}:{number}: {message}\n")
    bad = len({number for number, _ in report.invalid})
    sys.stdout.write(f"{report.records} records, {bad} invalid\n")
    return EXIT_INPUT if bad else 0


def _count(text: str) -> int:
    """A number of things; a ValueError is argparse's word for a usage error."""
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {count}")
    return count
