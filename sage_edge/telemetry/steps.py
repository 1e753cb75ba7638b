"""From 64 bytes in the mailbox to the record of a step, whose text the core writes without the GIL."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.native import PROTOCOL_REASONS, RECORD_DTYPE, StepForm, StepRun, write_steps
from sage_edge.telemetry.board import BoardSample
from sage_edge.telemetry.canonical import ZERO_HASH, Draft, encode, seal
from sage_edge.telemetry.records import SCHEMA_VERSION
from sage_edge.telemetry.runs import OpenRun, RunDirectory, RunInfo
from sage_edge.telemetry.schema import TelemetryValidator

#: One record in so many is decoded and checked against the schema; each form is, before it is used.
CHECK_EVERY = 64

#: Marks the place of a field that changes from state to state, in the JSON of a form.
_PLACE = re.compile(r'"\\u0000(\w+)\\u0000"')
#: Between the two hashes there is no other field.
_MIDDLE = b'",'


class StepWriter:
    """Joins what the loop wrote with what is known of its runs.

    A form, which is what the records of a plugin have in common, is checked against the schema when it is
    made. Of what changes, the core writes numbers that are finite or null, and refuses those that the schema
    would; of the records themselves one in CHECK_EVERY is checked.

    Threads: one at a time.
    """

    def __init__(
        self, directory: RunDirectory, validator: TelemetryValidator, give_up: Callable[[str, str], None]
    ) -> None:
        """Nothing is written yet.

        Args:
            directory: Where runs are described.
            validator: Knows the schema.
            give_up: Told of each record that is lost here: at which stage, and why.
        """
        self._directory = directory
        self._validator = validator
        self._give_up = give_up
        self._forms: dict[tuple[object, ...], StepForm] = {}

    def write(
        self, batch: NDArray[Any], *, seq: int, unix_offset_ns: int, board: BoardSample | None
    ) -> list[Draft]:
        """The records of a batch, but for those that have to be given up.

        Args:
            batch: RECORD_DTYPE [n], in the order of the mailbox.
            seq: Place of the first among all records of the service.
            unix_offset_ns: Unix time minus monotonic time, in nanoseconds.
            board: The newest look at the board, which final records tell of; None without one.
        """
        run_ids = batch["run_id"].tolist()
        runs = [self._directory.get(run_id) for run_id in run_ids]
        texts = write_steps(
            batch,
            runs=[self._text_of(run) for run in runs],
            extras=_extras(runs, batch),
            board=encode(_board(board) if board else None),
            seq=seq,
            unix_offset_ns=unix_offset_ns,
        )
        drafts = []
        codes = batch["halt_reason"].tolist()
        for place, (run, text) in enumerate(zip(runs, texts, strict=True)):
            if codes[place]:
                self._directory.close(run_ids[place])
            if run is None:
                self._give_up("directory", "no such run is open")
            elif isinstance(text, str):
                self._give_up("schema", f"{text}: out of range: {batch[place]}")
            elif text is not None:
                known = {
                    "kind": "step",
                    "seq": seq + place,
                    "run_id": run_ids[place],
                    "request_id": run.info.request_id,
                    "halt_reason": PROTOCOL_REASONS[codes[place]],
                }
                drafts.append(Draft(text[0], _MIDDLE, text[1], known))
        return [made for made in drafts if made.known["seq"] % CHECK_EVERY or self._is_valid(made)]

    def _text_of(self, run: OpenRun | None) -> StepRun | None:
        """What the core needs to know of a run; None, and a record given up, where it has no record."""
        if run is None or run.text:
            return run.text if run else None
        try:
            run.text = step_run(run.info, self._form_of(run.info))
        except ValueError as exc:
            self._give_up("schema", f"{type(exc).__name__}: {exc}")
        return run.text

    def _form_of(self, info: RunInfo) -> StepForm:
        """The form of a run's records, checked.

        Raises:
            ValueError: Records of that form would fail the schema.
        """
        key = (info.plugin, info.entity_id, info.role, info.price_source, info.lrc)
        if key not in self._forms:
            form = step_form(info)
            (text,) = write_steps(
                np.zeros(1, RECORD_DTYPE),
                runs=[step_run(info, form)],
                extras={},
                board="null",
                seq=0,
                unix_offset_ns=0,
            )
            record = _decoded(Draft(text[0], _MIDDLE, text[1], {})) if isinstance(text, tuple) else None
            if errors := self._validator.errors(record):
                raise ValueError(errors[0])
            self._forms[key] = form
        return self._forms[key]

    def _is_valid(self, made: Draft) -> bool:
        """Check a record as it will stand in the journal; one that fails is given up."""
        errors = self._validator.errors(_decoded(made))
        if errors:
            self._give_up("schema", errors[0])
        return not errors


def step_form(info: RunInfo) -> StepForm:
    """What the records of a plugin's steps have in common: their JSON, with places for what changes.

    Raises:
        ValueError: A text is not Unicode.
    """
    plugin = info.plugin
    record = _places(
        *("seq", "ts_unix_ns", "ts_mono_ns", "prev_hash", "run_id", "request_id", "scene_id", "branch_id"),
        *("rewound_from", "E_scale", "eps", "step_idx", "steps", "E", "E_norm", "dE", "E0", "best_E"),
        *("residual", "feasible", "closing", "halt_reason", "halt_cause", "trust_weight", "board", "extra"),
    ) | {
        "schema_version": SCHEMA_VERSION,
        "kind": "step",
        "entity_id": info.entity_id,
        "role": info.role,
        "plugin": plugin.name,
        "plugin_version": plugin.version,
        "model_sha256": plugin.model_sha256,
        "backend": plugin.backend,
        "device": plugin.device,
        "state_space": plugin.invariants.state_space,
        "noise_model": plugin.invariants.noise_model,
        "energy_fn": plugin.invariants.energy_fn,
        "energy_units": plugin.invariants.energy_units,
        "trust": _places(
            *("monotonicity_ratio", "dE_variance", "convergence_rate", "contribution_to_H", "n_dE"),
            "expected_quality",
        ),
        "budget": _places(
            *("ATP_allocated", "ATP_spent", "ATP_remaining", "power_w", "time_ms", "deadline_remaining_ms"),
            "steps_remaining",
        )
        | {"ATP_unit": "mJ", "price_source": info.price_source},
        "LRC_context": info.lrc.context(),
    }
    pieces = _PLACE.split(_unicode(record))
    texts, fields = pieces[::2], pieces[1::2]
    place = fields.index("prev_hash")
    texts[place] += '"'
    texts[place + 1] = texts[place + 1].removeprefix(",")  # as _MIDDLE says
    table = plugin.calibration
    return StepForm(texts, fields, list(table.E_norm) if table else [], list(table.quality) if table else [])


def step_run(info: RunInfo, form: StepForm) -> StepRun:
    """What the core needs to know of a run.

    Raises:
        ValueError: A text is not Unicode.
    """
    return StepRun(
        form,
        request_id=_unicode(info.request_id),
        scene_id=_unicode(info.scene_id),
        start_ns=info.start_ns,
        E_scale=info.policy.E_scale,
        eps=info.policy.eps,
        trust_weight=info.trust_weight,
        power_w=info.power_w,
        deadline_ms=info.deadline_ms,
        ATP_allocated=info.ATP_allocated,
        max_steps=info.policy.max_steps,
    )


def _decoded(made: Draft) -> dict[str, Any]:
    return dict(seal(made, ZERO_HASH))


def _extras(runs: Sequence[OpenRun | None], batch: NDArray[Any]) -> dict[Any, str]:
    """What plugins add, as JSON, by place in the batch."""
    having = [(place, run) for place, run in enumerate(runs) if run and run.extras]
    extras = {place: run.take_extra(int(batch["step_idx"][place])) for place, run in having}
    return {place: encode(extra) for place, extra in extras.items() if extra}


def _unicode(value: Any) -> str:
    """A value in canonical form; raises ValueError for half a surrogate pair too, a text in Python alone."""
    text = encode(value)
    text.encode()
    return text


def _places(*names: str) -> dict[str, Any]:
    return {name: f"\0{name}\0" for name in names}


def _board(sample: BoardSample) -> dict[str, Any]:
    return {"power_mode": sample.power_mode, "temp_C": sample.temp_c, "throttled": sample.throttled}
