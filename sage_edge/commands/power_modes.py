"""A board's power modes, visited one after the other: switch, settle, measure, and switch back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from sage_edge.errors import DeviceError
from sage_edge.telemetry.board import mode_in_force, mode_names

Measured: TypeAlias = dict[str, Any]

#: A switch takes a second or two; one that asks for a reboot waits for an answer that never comes.
_SWITCH_WITHIN_S = 60.0


class PowerModes:
    """The modes of nvpmodel, read from its files and switched by its command.

    Attributes:
        names: Names by number; empty on a machine without nvpmodel.
    """

    def __init__(self, root: Path = Path("/"), command: str = "nvpmodel") -> None:
        self.names = mode_names(root)
        self._root = root
        self._command = command

    @property
    def in_force(self) -> int | None:
        """Number of the mode that the board is in; None where it is not known."""
        return mode_in_force(self._root)

    def switch(self, number: int) -> None:
        """Bring the board into a mode.

        Raises:
            DeviceError: It stays in another one: we are not root, or it asks for a reboot, which is declined.
        """
        if number == self.in_force:
            return
        if os.geteuid() != 0:
            raise DeviceError("expected root, who alone may switch power modes")
        command = [self._command, "-m", str(number)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SWITCH_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise DeviceError(f"{' '.join(command)}: {exc}") from exc
        if self.in_force != number:
            said = " ".join(f"{done.stdout} {done.stderr}".split())
            raise DeviceError(f"{' '.join(command)}: expected that mode, got {self.in_force}: {said[:200]}")


def visit(
    modes: PowerModes, *, measure: Callable[[], Measured], settle: Callable[[], None]
) -> dict[str, Measured]:
    """Measure in every mode, and end in the one that it began in, whatever happens.

    Returns:
        What was measured, by name of the mode; ``{"not_allowed": why}`` where it could not be switched to.

    Raises:
        DeviceError: It is not known where to go back to, or the way back failed.
    """
    first = modes.in_force
    if first is None:
        raise DeviceError("power modes: expected to know the one in force, to go back to it")
    found: dict[str, Measured] = {}
    try:
        for number, name in modes.names.items():
            try:
                modes.switch(number)
            except DeviceError as exc:
                found[name] = {"not_allowed": str(exc)}
                continue
            settle()
            found[name] = measure()
    finally:
        modes.switch(first)
    return found
