"""``sage-edge serve``."""

from __future__ import annotations

import argparse

from sage_edge.commands.options import Commands, add_command, add_settings, settings_of


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_settings(add_command(commands, "serve", "Serve over HTTP until SIGINT or SIGTERM.", run))


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from sage_edge.service import serve  # FastAPI takes half a second that the other commands need not wait

    serve(settings_of(options))
    return 0
