"""What a caller asks of a refinement beside its frame: budget and place, from query, headers and body."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers

from sage_edge.errors import ParameterError
from sage_edge.orchestrator import LARGEST_BUDGET, MOST_BRANCHES, Budget, Entry
from sage_edge.service.errors import describe_finding
from sage_edge.service.models import NUMERIC, Policy

Model = TypeVar("Model", bound=BaseModel)

#: Of two waiting requests the one with more priority goes first; it lies between minus this and this.
MOST_PRIORITY = 9
#: Visible ASCII: what can stand in a header and in a line of the log.
NAME_PATTERN = r"^[\x21-\x7e]{1,128}$"
_REQUEST_ID = re.compile(NAME_PATTERN)


_MaxSteps = Annotated[
    int, Field(ge=0, description="Largest number of steps; 0 gives the initial answer."), NUMERIC
]
_DeadlineMs = Annotated[
    float, Field(gt=0, le=LARGEST_BUDGET, description="Milliseconds from arrival to the answer."), NUMERIC
]
_Atp = Annotated[
    float, Field(gt=0, le=LARGEST_BUDGET, description="Refinement energy in ATP; 1 ATP = 1 mJ."), NUMERIC
]
_Eps = Annotated[float, Field(ge=0, description="Range of E_norm that counts as converged."), NUMERIC]
_Quality = Annotated[float, Field(gt=0, le=1, description="Expected quality that is good enough."), NUMERIC]
_Branches = Annotated[
    int,
    Field(ge=1, le=MOST_BRANCHES, description="Starts to refine from, as slots are free; the best counts."),
    NUMERIC,
]
_Priority = Annotated[
    int,
    Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY, description="Of two that wait, the one with more goes first."),
    NUMERIC,
]
_StreamId = Annotated[str, Field(pattern=NAME_PATTERN, description="The stream that the frame belongs to.")]
_Keep = Annotated[
    Literal["latest"], Field(description="An older waiting frame of the same stream gives way to this one.")
]


class BudgetFields(BaseModel):
    """What a refinement may spend."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_steps: _MaxSteps | None = None
    deadline_ms: _DeadlineMs | None = None
    atp: _Atp | None = None
    eps: _Eps | None = None
    quality: _Quality | None = None
    branches: _Branches | None = None


class PlaceFields(BaseModel):
    """Its place in the queue, and in a stream."""

    model_config = ConfigDict(extra="forbid")

    priority: _Priority | None = None
    stream_id: _StreamId | None = None
    keep: _Keep | None = None


class RequestFields(PlaceFields, BudgetFields):
    """All options of a refinement."""

    def entry(self, plugin: str, prepared: Any, damage: str = "", needed_bytes: int = 0) -> Entry:
        """A prepared input, what of it is damaged and the memory that it takes, under these options.

        Raises:
            ParameterError: ``keep`` stands without a stream.
        """
        if self.keep and self.stream_id is None:
            raise ParameterError("keep: expected a stream_id beside it, got none")
        return Entry(
            plugin,
            prepared,
            Budget(
                max_steps=self.max_steps,
                deadline_ms=self.deadline_ms,
                atp=self.atp,
                eps=self.eps,
                quality=self.quality,
                branches=self.branches or 1,
            ),
            priority=self.priority or 0,
            stream_id=self.stream_id,
            keeps_latest=self.keep is not None,
            damage=damage,
            needed_bytes=needed_bytes,
        )


class SceneFields(BaseModel):
    """The budget that the members of a scene share, as it stands in a query or a body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    atp: _Atp | None = None
    deadline_ms: _DeadlineMs | None = None
    policy: Policy | None = None


async def given_once(request: Request) -> None:
    """A query has each of its parameters once: of two deadlines none is the one that was meant.

    Raises:
        ParameterError: One stands there more often; the message names it.
    """
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if count > 1:
            raise ParameterError(f"{name}: expected once, got it {count} times")


#: For a route that has query parameters.
ONCE = [Depends(given_once)]


def fields_of_headers(headers: Headers) -> dict[str, str]:
    """The options in headers such as ``Sage-Max-Steps``, by the names that they have elsewhere."""
    named = {name: headers.get(f"sage-{name.replace('_', '-')}") for name in RequestFields.model_fields}
    return {name: value for name, value in named.items() if value is not None}


def read(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Check fields that came with a body.

    Raises:
        ParameterError: One is unknown, of the wrong kind or out of range; the message names it.
    """
    unknown = (
        (name for name in fields if name not in model.model_fields) if isinstance(fields, Mapping) else ()
    )
    for name in unknown:  # the first alone, since there may be as many as a body has room for
        raise ParameterError(f"{name}: unknown parameter")
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise ParameterError(describe_finding(exc.errors()[0])) from exc


def request_id_of(request: Request) -> str:
    """The caller's own name for the request, if it is a usable one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
