"""``sage-edge audit``: prove what happened."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sage_edge.commands.options import EXIT_INPUT, Commands, add_command, add_group
from sage_edge.telemetry import TelemetryValidator, load_schema
from sage_edge.telemetry.audit import verify


def add_parser(commands: Commands) -> None:
    """Add the command."""
    audit = add_group(commands, "audit", "Prove what happened.")
    verified = add_command(audit, "verify", "Verify journals: chain, signatures, budgets and trust.", run)
    verified.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a telemetry folder, or its file"
    )
    verified.add_argument("--public-key", type=Path, metavar="FILE", help="the key that must have signed")
    verified.add_argument("--json", action="store_true", help="print the reports as JSON")


def run(options: argparse.Namespace) -> int:
    """Verify every journal and print what was found."""
    validator = TelemetryValidator(load_schema())
    reports = [verify(path, validator=validator, public_key=options.public_key) for path in options.paths]
    if options.json:
        documents = [report.document() for report in reports]
        sys.stdout.write(json.dumps(documents, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for report in reports for line in report.lines())
    return 0 if all(report.is_sound for report in reports) else EXIT_INPUT
