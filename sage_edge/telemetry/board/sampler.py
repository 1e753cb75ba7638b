"""The thread that looks at the board, at a rate of its own and never in the loop's way."""

from __future__ import annotations

import logging
import threading

from sage_edge.clock import Clock
from sage_edge.telemetry.board.energy import EnergyCounter, Meter, find_meter
from sage_edge.telemetry.board.reader import Board, BoardSample

log = logging.getLogger(__name__)

#: Periods for which a sample counts as now: one may be late on a busy board.
_FRESH_PERIODS = 3


class BoardSampler:
    """Keeps the newest sample of a board, and its energy.

    Attributes:
        board: The board that is looked at.

    Threads: ``start`` and ``stop`` from one; the rest from any.
    """

    def __init__(self, board: Board, *, period_s: float, clock: Clock) -> None:
        self.board = board
        self._period_s = period_s
        self._newest: BoardSample | None = None
        self._meter: Meter | None = find_meter(board, stale_s=_FRESH_PERIODS * period_s, clock=clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board-sampler", daemon=True)

    @property
    def newest(self) -> BoardSample | None:
        """The newest sample; None before the first."""
        return self._newest

    @property
    def energy(self) -> EnergyCounter | None:
        """The board's energy; None where no sensor measures it."""
        return self._meter

    def start(self) -> None:
        """Take a first sample, and go on on a thread."""
        self.sample_once()
        log.info(
            "board model=%r l4t=%s rails=%s energy=%s",
            self.board.model,
            self.board.l4t,
            ",".join(rail.name for rail in self.board.rails) or None,
            self._meter.source if self._meter else None,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def sample_once(self) -> BoardSample:
        """Look at the board now. Not while the thread runs."""
        sample = self._newest = self.board.sample()
        if self._meter:
            self._meter.observe(sample)
        return sample

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            try:
                self.sample_once()
            except Exception:
                log.exception("telemetry_board_failed action=go_on")
