from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.irp.rules import spent_uatp
from sage_edge.native import HALT_REASONS, RECORD_DTYPE
from sage_edge.telemetry import RawRecord, TelemetryValidator, complete, load_schema, to_line
from tests.sage_edge.telemetry.samples import CLOSING, ORIN, REWOUND, START_NS, STEP_NS, raw_run, run_info

VALIDATOR = TelemetryValidator(load_schema())
ENERGIES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=12)


def completed(energies, info=None, halt_reason="slope<eps"):
    raws = raw_run(energies, halt_reason=halt_reason)
    return [
        complete(RawRecord(*raw), info or run_info(), seq=seq, unix_offset_ns=10**18, n_dE=seq)
        for seq, raw in enumerate(raws.tolist())
    ]


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
    record = complete(raw, run_info(), seq=0, unix_offset_ns=0, n_dE=step_idx)
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


def test_expected_quality_is_that_of_the_best_state_and_not_of_the_last():
    record = completed([2.0, 1.0, 1.6])[-1]
    assert record["trust"]["expected_quality"] == 1.0 - (1.0 / 2.0) / 2.0


def test_without_a_calibration_no_quality_is_expected():
    assert completed([2.0], run_info(calibration=None))[0]["trust"]["expected_quality"] is None


def test_energies_that_are_no_numbers_are_null():
    record = completed([2.0, 1.5, float("nan")], halt_reason="diverged")[-1]
    assert (record["E"], record["E_norm"], record["dE"]) == (None, None, None)
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
    kept, rewound = (
        complete(raw._replace(flags=flags), run_info(), seq=0, unix_offset_ns=0, n_dE=2)
        for flags in (0, REWOUND)
    )
    assert (kept["rewound_from"], rewound["rewound_from"]) == (None, 2)


@given(st.floats(0, 1e6, width=32), st.floats(0.001, 1e3), st.floats(0, 1e6))
def test_the_budget_is_exact_in_integer_micro_atp(spent_us, power_w, allocated):
    raw = RawRecord(*raw_run([2.0])[0].tolist())._replace(spent_us=spent_us)
    info = run_info(power_w=power_w, ATP_allocated=allocated)
    budget = complete(raw, info, seq=0, unix_offset_ns=0, n_dE=0)["budget"]
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
    budget = complete(RawRecord(*raw[0].tolist()), run_info(power_w=power_w), seq=0, unix_offset_ns=0, n_dE=0)
    assert round(budget["budget"]["ATP_spent"] * 1e6) == spent_uatp(power_w, spent_us)


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
    assert not complete(raw, run_info(), seq=0, unix_offset_ns=0, n_dE=0)["closing"]
    assert complete(closing, run_info(), seq=0, unix_offset_ns=0, n_dE=0)["closing"]


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
    told = [
        complete(RawRecord(*raw), run_info(), seq=0, unix_offset_ns=0, n_dE=0, board=sample)
        for raw in raw_run([2.0, 1.5]).tolist()
    ]
    hottest = 0.0 if temperatures_c else None
    expected = {"power_mode": power_mode, "temp_C": hottest, "throttled": throttled}
    assert [record["board"] for record in told] == [None, expected]
    assert [VALIDATOR.errors(record) for record in told] == [[], []]


def test_where_nobody_looks_at_the_board_no_record_tells_of_it():
    assert [record["board"] for record in completed([2.0, 1.5])] == [None, None]
