"""Telemetry files read back: the last lines, and a check of each line."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from sage_edge.clock import Clock
from sage_edge.telemetry.schema import TelemetryValidator

_POLL_S = 0.2


class ValidationReport(NamedTuple):
    """What a check of a file found.

    Attributes:
        records: Lines in the file.
        invalid: Line number, from 1, and what is wrong with it.
    """

    records: int
    invalid: list[tuple[int, str]]


def validate_file(path: Path, validator: TelemetryValidator) -> ValidationReport:
    """Check each line of a JSON lines file.

    Raises:
        OSError: The file cannot be read.
    """
    number, invalid = 0, []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            invalid += [(number, error) for error in _line_errors(line, validator)]
    return ValidationReport(number, invalid)


def tail(path: Path, *, limit: int | None = None, follow: bool = False, clock: Clock) -> Iterator[str]:
    """The last ``limit`` complete lines of a file (all by default), and those to come if it is followed.

    A file that rotates is followed into its successor.

    Raises:
        OSError: The file cannot be read.
    """
    file = path.open("rb")
    try:
        yield from deque(_complete_lines(file), maxlen=limit)
        while follow:
            yield from _complete_lines(file)
            if _is_replaced(file, path):
                yield from _complete_lines(file)  # written between the last look and the rotation
                file.close()
                file = path.open("rb")
            else:
                clock.sleep(_POLL_S)
    finally:
        file.close()


def _line_errors(line: bytes, validator: TelemetryValidator) -> list[str]:
    try:
        return validator.errors(json.loads(line, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as exc:
        return [f"not JSON: {exc}"]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _complete_lines(file: BinaryIO) -> Iterator[str]:
    """Lines up to the end of the file; one that is still being written is left for the next time."""
    while (line := file.readline()).endswith(b"\n"):
        yield line[:-1].decode(errors="replace")
    file.seek(-len(line), os.SEEK_CUR)


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Whether another file has taken the name; False while nobody has it."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
