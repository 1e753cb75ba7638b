from __future__ import annotations

import itertools
import json
import statistics
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.errors import ConfigError, ShapeError
from sage_edge.irp.rules import spent_uatp
from sage_edge.native import HALT_REASONS, PROTOCOL_REASONS, RECORD_DTYPE, StepForm, write_steps
from sage_edge.telemetry import TelemetryValidator, load_schema, to_line
from sage_edge.telemetry.steps import CHECK_EVERY, step_form, step_run
from tests.oracles.step_record import PROTOCOL_WORD, RawRecord, complete
from tests.sage_edge.telemetry.samples import (
    CLOSING,
    ORIN,
    REWOUND,
    START_NS,
    STEP_NS,
    raw_run,
    run_info,
    written,
)

VALIDATOR = TelemetryValidator(load_schema())
ENERGIES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=12)


def completed(energies, info=None, halt_reason="slope<eps"):
    return written(raw_run(energies, halt_reason=halt_reason), info)


def one(raw, info=None, **options):
    """The record of one state, given as a RawRecord."""
    (record,) = written(np.array([tuple(raw)], RECORD_DTYPE), info, **options)
    return record


def test_a_raw_record_has_the_fields_of_the_mailbox_in_their_order():
    assert RECORD_DTYPE.names == RawRecord._fields


@given(ENERGIES)
def test_statistics_of_a_record_are_those_of_its_energies(energies):
    record = completed(energies)[-1]
    changes = [after - before for before, after in itertools.pairwise(energies)]
    n = len(changes)
    trust = record["trust"]
    single = 1e-6  # the mailbox holds single precision
    assert record["E_norm"] == energies[-1] / 2.0
    assert record["best_E"] == min(energies)
    assert trust["n_dE"] == record["step_idx"] == n
    assert trust["convergence_rate"] == (pytest.approx((energies[0] - energies[-1]) / n) if n else None)
    assert record["dE"] == (pytest.approx(changes[-1], rel=single, abs=single) if n else None)
    assert trust["dE_variance"] == pytest.approx(
        statistics.pvariance(changes) if n else 0.0, rel=1e-5, abs=1e-6
    )
    assert trust["monotonicity_ratio"] == pytest.approx(
        sum(c < 0 for c in changes) / n if n else 0, abs=single
    )


@given(
    values=st.fixed_dictionaries(
        {name: st.floats(width=32) for name in ("E", "dE", "E0", "best_E", "residual")}
    ),
    step_idx=st.integers(0, 2**32 - 1),
    halt_reason=st.integers(0, len(HALT_REASONS) - 1),
    flags=st.integers(0, 255),
)
def test_whatever_the_loop_writes_becomes_a_valid_record_of_finite_numbers(
    values, step_idx, halt_reason, flags
):
    raw = RawRecord(*raw_run([2.0])[0].tolist())._replace(
        **values, step_idx=step_idx, halt_reason=halt_reason, flags=flags
    )
    record = one(raw)
    assert VALIDATOR.errors(record) == []
    assert json.loads(to_line(record)) == record


def test_the_first_state_has_no_change_and_no_residual():
    first, second = completed([2.0, 1.5])
    assert (first["dE"], first["residual"], first["trust"]["convergence_rate"]) == (None, None, None)
    assert (second["dE"], second["residual"]) == (-0.5, 0.5)


def test_only_the_final_record_tells_the_steps_and_the_reason():
    records = completed([2.0, 1.5, 1.25], halt_reason="timeout")
    assert [record["steps"] for record in records] == [None, None, 2]
    assert [record["halt_reason"] for record in records] == [None, None, "timeout"]
    assert [record["halt_cause"] for record in records] == [None, None, "timeout"]


def test_expected_quality_is_that_of_the_best_state_and_not_of_the_last():
    record = completed([2.0, 1.0, 1.6])[-1]
    assert record["trust"]["expected_quality"] == 1.0 - (1.0 / 2.0) / 2.0


def test_without_a_calibration_no_quality_is_expected():
    assert completed([2.0], run_info(calibration=None))[0]["trust"]["expected_quality"] is None


def test_an_energy_that_is_no_number_is_the_worst_there_is_and_what_follows_from_it_is_null():
    raws = raw_run([2.0, 1.5, float("nan")], halt_reason="diverged")
    raws["dE_variance"] = 0.0  # the core's leaves out what is no number
    record = written(raws)[-1]
    assert (record["E"], record["E_norm"], record["dE"]) == (sys.float_info.max, None, None)
    assert (record["halt_reason"], record["halt_cause"]) == ("timeout", "diverged")
    assert record["trust"]["convergence_rate"] is record["trust"]["contribution_to_H"] is None


@given(ENERGIES, st.floats(0.1, 10.0))
def test_contributions_of_a_run_add_up_to_what_its_weight_took_off_H(energies, weight):
    records = completed(energies, run_info(trust_weight=weight, scene_id="scene-1"))
    contributions = [record["trust"]["contribution_to_H"] for record in records]
    assert contributions[0] is None
    fall = weight * (energies[0] - energies[-1]) / 2.0  # E_scale is 2
    assert sum(contributions[1:]) == pytest.approx(fall, abs=1e-2)  # dE is single precision of up to 1e3
    assert {record["trust_weight"] for record in records} == {weight}
    assert {record["scene_id"] for record in records} == {"scene-1"}


def test_a_record_that_rewinds_names_the_step_that_it_left():
    raw = RawRecord(*raw_run([2.0, 1.5, 9.0])[-1].tolist())
    kept, rewound = (one(raw._replace(flags=flags)) for flags in (0, REWOUND))
    assert (kept["rewound_from"], rewound["rewound_from"]) == (None, 2)


@given(st.floats(0, 1e6, width=32), st.floats(0.001, 1e3), st.floats(0, 1e6))
def test_the_budget_is_exact_in_integer_micro_atp(spent_us, power_w, allocated):
    raw = RawRecord(*raw_run([2.0])[0].tolist())._replace(spent_us=spent_us)
    info = run_info(power_w=power_w, ATP_allocated=allocated)
    budget = one(raw, info)["budget"]
    spent, remaining, total = (
        round(budget[key] * 1e6) for key in ("ATP_spent", "ATP_remaining", "ATP_allocated")
    )
    assert spent + remaining == total
    assert budget["ATP_spent"] == spent / 1e6
    assert abs(spent - power_w * spent_us * 1e3) <= 0.5 * (1 + 1e-6)  # nanojoules, rounded


@given(st.floats(0, 1e7), st.floats(0.001, 1e3))
def test_what_is_settled_from_full_precision_is_what_the_final_record_says(spent_us, power_w):
    raw = raw_run([2.0])
    raw["spent_us"] = spent_us  # the mailbox keeps single precision
    (record,) = written(raw, run_info(power_w=power_w))
    assert round(record["budget"]["ATP_spent"] * 1e6) == spent_uatp(power_w, spent_us)


def test_times_count_from_admission_to_the_queue():
    record = completed([2.0, 1.5])[-1]
    assert record["ts_mono_ns"] == START_NS + 2 * STEP_NS
    assert record["ts_unix_ns"] == 10**18 + START_NS + 2 * STEP_NS
    assert record["budget"]["time_ms"] == 4.0
    assert record["budget"]["deadline_remaining_ms"] == 36.0
    assert record["budget"]["steps_remaining"] == 7


def test_a_request_without_limits_has_nothing_remaining_to_tell():
    budget = completed([2.0], run_info(deadline_ms=None, ATP_allocated=None))[0]["budget"]
    assert budget["deadline_remaining_ms"] is budget["ATP_allocated"] is budget["ATP_remaining"] is None


def test_a_closing_record_says_that_it_repeats_a_state():
    raw = RawRecord(*raw_run([2.0])[0].tolist())
    closing = raw._replace(flags=CLOSING, halt_reason=HALT_REASONS.index("cancelled"))
    assert not one(raw)["closing"]
    assert one(closing)["closing"]


def test_a_line_never_holds_what_json_does_not_know():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_line({"E": float("nan")})


def test_values_of_the_mailbox_are_kept_to_the_last_bit():
    record = completed([float(np.float32(0.1))])[0]
    assert np.float32(record["E"]) == np.float32(0.1)


@pytest.mark.parametrize("power_mode", ["MAXN_SUPER", None])
@pytest.mark.parametrize("temperatures_c", [{}, {"cpu-thermal": -3.5, "gpu-thermal": 0.0}])
@pytest.mark.parametrize("throttled", [True, False, None])
def test_a_final_record_tells_of_the_board_and_null_of_what_the_board_does_not_tell(
    power_mode, temperatures_c, throttled
):
    sample = replace(ORIN, power_mode=power_mode, temperatures_c=temperatures_c, throttled=throttled)
    told = written(raw_run([2.0, 1.5]), board=sample)
    hottest = 0.0 if temperatures_c else None
    expected = {"power_mode": power_mode, "temp_C": hottest, "throttled": throttled}
    assert [record["board"] for record in told] == [None, expected]
    assert [VALIDATOR.errors(record) for record in told] == [[], []]


def test_where_nobody_looks_at_the_board_no_record_tells_of_it():
    assert [record["board"] for record in completed([2.0, 1.5])] == [None, None]


FACTS = st.fixed_dictionaries(
    {
        "power_w": st.floats(0, 1e4),
        "trust_weight": st.floats(1e-6, 1e6),
        "deadline_ms": st.none() | st.floats(1e-3, 1e6),
        "ATP_allocated": st.none() | st.floats(0, 1e9),
        "scene_id": st.none() | st.text(max_size=5),
        "request_id": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "entity_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        "start_ns": st.integers(0, 2**62),
        "calibration": st.sampled_from([None, run_info().plugin.calibration]),
    }
)
STATES = st.tuples(
    *[st.floats(width=32)] * 5,
    *[st.floats(0, 1, width=32), st.floats(0, 2.0**100, width=32), st.floats(0, 1e6, width=32)],
    *[st.integers(0, 2**32 - 1), st.integers(0, 255), st.just(0)],
    *[st.integers(0, len(HALT_REASONS) - 1), st.integers(0, 15)],
)
EXTRAS = st.none() | st.dictionaries(st.text(max_size=4), st.none() | st.floats(-9, 9) | st.text(max_size=4))


@given(FACTS, st.lists(STATES, min_size=1, max_size=4), st.integers(0, 2**53), st.integers(), EXTRAS)
def test_the_core_writes_what_its_plain_twin_writes(facts, states, seq, time_ns, extra):
    info, time_ns = run_info(**facts), time_ns % 2**62
    raws = np.array([(0, 1, time_ns, *state) for state in states], RECORD_DTYPE)
    raws["halt_reason"][:-1] = 0  # a run ends once
    raws["step_idx"].sort()
    told = written(raws, info, seq=seq, board=ORIN, extras={int(raws["step_idx"][-1]): extra})
    infinite = 0
    for place, raw in enumerate(RawRecord(*values) for values in raws.tolist()):
        infinite += raw.is_step and not np.isfinite(raw.dE)
        is_noted = extra and raw.step_idx == raws["step_idx"][-1]
        expected = complete(
            raw,
            info,
            seq=seq + place,
            unix_offset_ns=10**18,
            n_dE=raw.step_idx - infinite,
            board=ORIN,
            extra=extra if is_noted else None,
        )
        record = told[place]
        quality = record["trust"].pop("expected_quality"), expected["trust"].pop("expected_quality")
        assert quality[0] == (None if quality[1] is None else pytest.approx(quality[1], rel=1e-12))
        del record["record_hash"], expected["record_hash"]
        assert to_line(record) == to_line(expected)


@pytest.mark.parametrize(
    "energy", [0.1, -0.0, 1e16, 9999999999999998.0, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308]
)
def test_numbers_are_written_as_python_writes_them(energy):
    assert number(energy) == repr(energy)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_written_as_python_writes_it(value):
    assert number(value) == repr(value)


def number(value):
    """A double as the core writes it."""
    form = StepForm(["", "", ""], ["prev_hash", "trust_weight"], [], [])
    run = step_run(run_info(trust_weight=value), form)
    ((_, text),) = write_steps(
        np.zeros(1, RECORD_DTYPE), runs=[run], extras={}, board="null", seq=0, unix_offset_ns=0
    )
    return text.decode()


def test_the_protocol_has_a_word_for_every_reason():
    assert dict(zip(HALT_REASONS, PROTOCOL_REASONS, strict=True)) == PROTOCOL_WORD


def test_a_form_that_fails_the_schema_gives_up_every_record_of_its_runs():
    lost = []
    assert written(raw_run([2.0, 1.5]), run_info(role="X"), given_up=lost) == []
    assert [stage for stage, _ in lost] == ["schema"] * 2
    assert "'X' is not one of" in lost[0][1]


def test_a_text_that_is_no_unicode_gives_up_the_records_of_its_run():
    lost = []
    assert written(raw_run([2.0, 1.5]), run_info(request_id="\ud800"), given_up=lost) == []
    assert [stage for stage, _ in lost] == ["schema"] * 2


def test_one_record_in_so_many_is_checked_against_the_schema_in_full(monkeypatch):
    checked = []
    monkeypatch.setattr(TelemetryValidator, "errors", lambda _, record: checked.append(record["seq"]) or [])
    written(raw_run([2.0] * (3 * CHECK_EVERY)), seq=CHECK_EVERY - 1)
    assert checked[1:] == [CHECK_EVERY, 2 * CHECK_EVERY, 3 * CHECK_EVERY], "after the form itself"


def test_what_is_no_batch_for_its_runs_is_refused():
    with pytest.raises(ShapeError, match=r"records: expected .* \[0 runs\]"):
        write_steps(raw_run([2.0]), runs=[], extras={}, board="null", seq=0, unix_offset_ns=0)


@pytest.mark.parametrize(
    ("texts", "fields"), [(["", "", ""], ["prev_hash", "dH"]), (["", ""], ["E"]), ([""], ["prev_hash"])]
)
def test_a_form_of_something_else_is_refused(texts, fields):
    with pytest.raises(ConfigError, match="form: expected"):
        StepForm(texts, fields, [], [])


def test_a_form_has_the_fields_of_the_schema_and_no_others():
    assert isinstance(step_form(run_info()), StepForm)
    assert set(completed([2.0])[0]) == set(load_schema()["$defs"]["step"]["required"])
