"""Answers whose quality may still be reported."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from sage_edge.errors import ParameterError, UnknownRequestError
from sage_edge.irp.reputation import V3
from sage_edge.orchestrator.request import Ticket

#: Answers that are remembered; the oldest makes way.
CAPACITY = 4096
_INPUTS = frozenset(V3.__dataclass_fields__) - {"atp_earned", "atp_expected"}


class Answer(NamedTuple):
    """What of an answer its judgement needs.

    Attributes:
        plugin: Who gave it.
        run_id: Of its first branch.
        spent_atp: What it cost.
    """

    plugin: str
    run_id: int
    spent_atp: float

    def value(self, quality: float, inputs: Mapping[str, Any]) -> V3:
        """The value of the answer (docs/AUDIT.md#how-trust-is-earned).

        It earns what it cost, less below a quality of 0.7 and nothing below 0.3.

        Raises:
            ParameterError: An input is missing, unknown or out of its range.
        """
        if set(inputs) != _INPUTS:
            raise ParameterError(f"inputs: expected {', '.join(sorted(_INPUTS))}, got {sorted(inputs)}")
        expected = max(self.spent_atp, 1e-6)
        return V3(atp_earned=expected * payment(quality), atp_expected=expected, **inputs)


def payment(quality: float) -> float:
    """Share of its cost that an answer earns: 0 below 0.3, 1 from 0.7 on, and a line between."""
    return min(max((quality - 0.3) / 0.4, 0.0), 1.0)


class Answered:
    """The newest answers by request id.

    Threads: every method from any thread.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, ticket: Ticket) -> None:
        """Remember a ticket that has ended, if it was answered."""
        if ticket.future.exception() is not None:
            return
        self.put(ticket.request_id, Answer(ticket.plugin, ticket.run_id, ticket.future.result().ATP_spent))

    def put(self, request_id: str, answer: Answer) -> None:
        """Remember an answer."""
        with self._lock:
            self._answers[request_id] = answer
            if len(self._answers) > CAPACITY:
                self._answers.popitem(last=False)

    def take(self, request_id: str) -> Answer:
        """The answer to a request, which is not remembered any more.

        Raises:
            UnknownRequestError: None is remembered.
        """
        with self._lock:
            if request_id not in self._answers:
                raise UnknownRequestError(
                    f"request {request_id!r}: expected one of the last {CAPACITY} answers whose quality was "
                    "not reported yet"
                )
            return self._answers.pop(request_id)
