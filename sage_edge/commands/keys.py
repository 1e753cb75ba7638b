"""``sage-edge keys``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sage_edge.commands.options import Commands, add_command, add_group, add_settings, settings_of
from sage_edge.errors import ConfigError
from sage_edge.keys import add_key


def add_parser(commands: Commands) -> None:
    """Add the command."""
    keys = add_group(commands, "keys", "API keys.")
    added = add_command(keys, "add", "Make an API key and print it, this once.", run)
    added.add_argument("name", help="whose key it is, as it stands in the log")
    add_settings(added)


def run(options: argparse.Namespace) -> int:
    """Add a key to the file of keys."""
    settings = settings_of(options)
    if not settings.api_keys_file:
        raise ConfigError("api_keys_file: say which file with --api-keys-file or SAGE_API_KEYS_FILE")
    sys.stdout.write(add_key(Path(settings.api_keys_file), options.name) + "\n")
    return 0
