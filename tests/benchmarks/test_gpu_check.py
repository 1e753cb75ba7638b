"""The script for a machine with a GPU, as far as it can be tried without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import check


def test_a_step_that_fails_is_written_down_and_the_next_one_runs():
    def fail(limit_s):
        raise check.StepError("no such tool")

    steps = [check.Step("first", fail), check.Step("second", lambda limit_s: {"limit_s": limit_s})]
    results = check.run_steps(steps, 100.0, 240.0, iter([0.0, 1.0, 3.0, 3.0, 8.0]).__next__)
    assert results["first"] == {"ok": False, "error": "StepError: no such tool", "took_s": 2.0}
    assert results["second"] == {"ok": True, "result": {"limit_s": 97.0}, "took_s": 5.0}


def test_no_step_begins_when_the_budget_is_spent():
    steps = [check.Step("late", lambda limit_s: pytest.fail("it ran"))]
    results = check.run_steps(steps, 10.0, 240.0, iter([0.0, 10.0, 10.0]).__next__)
    assert "budget" in results["late"]["error"]


def test_no_step_gets_more_than_its_share():
    results = check.run_steps(
        [check.Step("one", lambda limit_s: limit_s)], 1e6, 240.0, iter([0.0, 0.0, 1.0]).__next__
    )
    assert results["one"]["result"] == 240.0


@pytest.mark.parametrize("arguments", [[], ["--only", "build", "kernels"], ["--dry-run", "--chip", "87"]])
def test_every_step_has_a_name_that_can_be_asked_for(arguments):
    names = [step.name for step in check.all_steps(check.parse(arguments))]
    assert names == (["build"] if "--dry-run" in arguments else list(check.STEP_NAMES))


def test_a_command_that_fails_says_how():
    with pytest.raises(check.StepError, match=r"exit status 3: .*ouch"):
        check.call(["sh", "-c", "echo ouch; exit 3"], 10)


def test_results_are_named_after_the_gpu_and_the_day():
    path = check.result_path(Path("out"), "NVIDIA H100 80GB HBM3", "2026-11-23")
    assert path == Path("out/gpu-nvidia-h100-80gb-hbm3-2026-11-23.json")


def test_the_summary_shows_each_size_beside_its_rivals(capsys):
    row = {"dtype": "float16", "elements": 1024, "saves_best": False, "us": 2.0, "share_of_copy": 0.9}
    mode = {
        "wanted": "while_graph",
        "mode": "while_graph",
        "us_per_tick": 9.0,
        "cuda_calls_per_tick": 0.001,
        "reason": "",
    }
    rivals = [{"rival": "triton", "dtype": "float16", "elements": 1024, "us": 3.0}]
    rivals.append({"rival": "cupy", "dtype": "float16", "elements": 1024, "error": "missing"})
    results = {
        "kernels": {"latent_step": [row]},
        "rivals": {"rivals": rivals},
        "loop": {"loop": {"modes": [mode]}},
    }
    steps = {name: {"ok": True, "result": result, "took_s": 1.0} for name, result in results.items()}
    steps["memcheck"] = {"ok": False, "error": "StepError: not installed", "took_s": 0.0}
    document = json.loads(json.dumps({"gpu": {"name": "H100"}, "date": "today", "steps": steps}))
    check.print_summary(document)
    shown = capsys.readouterr().out
    assert "1.50x" in shown
    assert "while_graph: 9.0 us per tick" in shown
    assert "NO" in shown


def loop_of(mode, calls):
    return {"loop": {"modes": [{"mode": mode, "cuda_calls_per_tick": calls}]}}


def mailbox_of(**fields):
    return {"mailbox": {"records": 100, "read": 90, "lost": 10, "torn": 0} | fields}


@pytest.mark.parametrize(
    "results",
    [
        {"latent_step": []},
        loop_of("while_graph", 0.01),
        loop_of("while_graph", None),
        loop_of("launches", 4.0),
        mailbox_of(),
    ],
)
def test_results_that_keep_every_promise_pass(results):
    assert check.broken_promises(results) == []


@pytest.mark.parametrize(
    ("results", "what"),
    [
        (loop_of("while_graph", 1.0), "made 1.0 CUDA calls per tick"),
        (mailbox_of(torn=2), "2 torn records"),
        (mailbox_of(lost=9), "neither read nor counted"),
    ],
)
def test_a_broken_promise_is_named(results, what):
    assert what in check.broken_promises(results)[0]
