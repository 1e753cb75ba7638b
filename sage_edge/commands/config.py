"""``sage-edge config``."""

from __future__ import annotations

import argparse
import sys

from sage_edge.commands.options import Commands, add_command, add_settings, setting_flags
from sage_edge.config import describe_settings


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_settings(add_command(commands, "config", "Print the settings in effect, each with its origin.", run))


def run(options: argparse.Namespace) -> int:
    """Print the settings."""
    sys.stdout.write(describe_settings(setting_flags(options), file=options.config))
    return 0
