"""The board's own sensors, read from files: no daemon, no NVML, nothing written."""

from sage_edge.telemetry.board.collector import BoardCollector
from sage_edge.telemetry.board.energy import EnergyCounter, RailMeter, RaplMeter, find_meter
from sage_edge.telemetry.board.memory import available_bytes, resident_bytes
from sage_edge.telemetry.board.power_mode import mode_in_force, mode_names
from sage_edge.telemetry.board.reader import Board, BoardSample
from sage_edge.telemetry.board.sampler import BoardSampler

__all__ = [
    "Board",
    "BoardCollector",
    "BoardSample",
    "BoardSampler",
    "EnergyCounter",
    "RailMeter",
    "RaplMeter",
    "available_bytes",
    "find_meter",
    "mode_in_force",
    "mode_names",
    "resident_bytes",
]
