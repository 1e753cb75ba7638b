"""What goes in and out in JSON, as models: the schemas of /openapi.json are made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sage_edge.irp.reputation import Outcome
from sage_edge.orchestrator import POLICIES


def _no_truth(value: Any) -> Any:
    """Refuse JSON's true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


NUMERIC = BeforeValidator(_no_truth)
Policy = Annotated[
    str, Field(description="How the budget is shared.", json_schema_extra={"enum": list(POLICIES)})
]
_Count = Annotated[int, Field(ge=0)]
_Ratio = Annotated[float, Field(ge=0, le=1)]
_Atp = Annotated[float, Field(ge=0, description="In ATP; 1 ATP = 1 mJ.")]


def _example(example: Any) -> ConfigDict:
    """An example of a model; no null is in it, since FastAPI leaves those out."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class RefusalBound(BaseModel):
    """What the initial answer would have taken: milliseconds that add up to the bound that decided."""

    wait: float = Field(description="From the arrival to a slot: what has passed, and the queue at its best.")
    encode: float = Field(description="The first state.")
    decode: float = Field(description="The answer.")
    reply: float = Field(description="From the answer to the caller.")


class PromiseBound(RefusalBound):
    """What a deadline must leave room for now, in milliseconds, at the size of the last request."""

    step: float = Field(description="One step of all that run; beyond the initial answer.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable, for programs.")
    message: str = Field(description="For people: what was expected and what came.")
    bound_ms: RefusalBound | None = Field(None, description="Of `deadline_too_short`: what decided.")


class Error(BaseModel):
    """The one shape of every error."""

    model_config = _example(
        {"error": {"code": "bad_parameter", "message": "eps: expected 0 or more, got -1"}}
    )

    error: ErrorDetail


class Answer(BaseModel):
    """The decoded answer; what a plugin tells beside these fields stands here too."""

    model_config = ConfigDict(extra="allow")

    shape: list[_Count]
    dtype: str
    classes: dict[str, _Ratio] | None = Field(None, description="Of a mask: the share of each class.")
    png_base64: str | None = Field(None, description="A mask or a picture.")
    base64: str | None = Field(None, description="Another array: its bytes, row-major, little-endian.")


class Times(BaseModel):
    """Milliseconds by stage."""

    queue: float = Field(description="Waiting for a slot.")
    refine: float = Field(description="From the slot to the decoded answer.")
    total: float = Field(description="From the arrival to the reply.")


_RESULT = {
    "request_id": "b3f1",
    "plugin": "vision",
    "backend": "onnxruntime-cpu",
    "halt_reason": "slope<eps",
    "is_partial": False,
    "steps": 4,
    "answer_step": 4,
    "E": 0.021,
    "E_norm": 0.41,
    "E0": 0.052,
    "trust": 0.83,
    "damage": None,
    "monotonicity_ratio": 1.0,
    "ATP_spent": 512.4,
    "branches": 1,
    "branch_id": 0,
    "rewinds": 0,
    "run_id": 7,
    "scene_id": "9c41",
    "time_ms": {"queue": 0.1, "refine": 34.2, "total": 37.0},
    "answer": {
        "shape": [480, 640],
        "dtype": "uint8",
        "classes": {"background": 0.9, "nucleus": 0.08, "boundary": 0.02},
        "png_base64": "iVBORw0KGgo=",
    },
}


class Result(BaseModel):
    """The best answer within the budget, how far to trust it and what it cost."""

    model_config = _example(_RESULT)

    request_id: str
    plugin: str
    backend: str = Field(description="What runs its networks.")
    halt_reason: str | None = Field(description="Why it ended; null while it still runs.")
    is_partial: bool = Field(description="Whether a limit ended it, or it still runs.")
    steps: _Count
    answer_step: _Count = Field(description="The step whose state is the answer.")
    E: float | None = Field(description="The answer's energy, lower is better; null if it is not finite.")
    E_norm: float | None = Field(description="E over the plugin's scale.")
    E0: float | None = Field(description="The energy of the initial answer.")
    trust: _Ratio | None = Field(description="The answer's expected quality; null without a calibration.")
    damage: str | None = Field(
        None, description="What of the input was damaged, and trust is 0 then; null for none."
    )
    monotonicity_ratio: _Ratio = Field(description="The share of steps at which E fell.")
    ATP_spent: _Atp
    branches: int = Field(ge=1, description="Starts that were refined.")
    branch_id: _Count = Field(description="The start that the answer came from.")
    rewinds: _Count = Field(description="How often its run was taken back.")
    run_id: int = Field(description="Of its run in the telemetry.")
    scene_id: str
    time_ms: Times
    answer: Answer


class Queued(BaseModel):
    """The answer is to be fetched later."""

    model_config = _example({"request_id": "b3f1", "state": "queued"})

    request_id: str
    state: Literal["queued"]


class SceneEnergy(BaseModel):
    """H after one state of one run."""

    t_ms: float = Field(description="Since the request's arrival.")
    run_id: int
    step_idx: _Count
    H: float | None = Field(description="The weighted sum of E_norm; null if it is not finite.")


class SceneBudget(BaseModel):
    """What the members shared."""

    policy: Policy
    atp: float | None = Field(description="What they might spend together; null for no limit.")
    ATP_spent: _Atp


class SceneResult(BaseModel):
    """Every result in the order of the members, and the course of the joint energy H."""

    model_config = _example(
        {
            "scene_id": "9c41",
            "results": [_RESULT, {"error": {"code": "bad_engine", "message": "vision: the step failed"}}],
            "H": [{"t_ms": 12.5, "run_id": 7, "step_idx": 0, "H": 0.41}],
            "global_halt": True,
            "budget": {"policy": "greedy", "atp": 900.0, "ATP_spent": 512.4},
        }
    )

    scene_id: str
    results: list[Result | Error]
    H: list[SceneEnergy]
    global_halt: bool = Field(description="Whether H had settled and ended all that still ran.")
    budget: SceneBudget


_Share = Annotated[float, Field(ge=0, le=1), NUMERIC]
_Claims = Annotated[int, Field(ge=0, le=2**53), NUMERIC]


class ValueInputs(BaseModel):
    """What an answer was worth to its user: the inputs of V3, all or none."""

    satisfaction: _Share | None = None
    verified_claims: _Claims | None = None
    total_claims: _Claims | None = None
    witness_confidence: _Share | None = None
    value_transferred: bool | None = Field(None, strict=True)


class QualityReport(ValueInputs):
    """A measured quality."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"request_id": "b3f1", "quality": 0.71, "source": "label"}]},
    )

    request_id: str = Field(min_length=1, max_length=128)
    quality: _Share
    source: Literal["label", "audit"]
    outcome: Outcome | None = None


class TrustChange(BaseModel):
    """One side of the trust, before and after."""

    before: float = Field(alias="from")
    change: float
    after: float = Field(alias="to")


class Trust(BaseModel):
    """The three sides of T3."""

    talent: TrustChange
    training: TrustChange
    temperament: TrustChange


_TRUST_CHANGE = {"from": 0.3, "change": 0.0042, "to": 0.3042}


class TrustUpdate(BaseModel):
    """The trust in a plugin before and after, as its telemetry record has it."""

    model_config = _example(
        {
            "role": "vision",
            "run_id": 7,
            "request_id": "b3f1",
            "t3": dict.fromkeys(["talent", "training", "temperament"], _TRUST_CHANGE),
            "quality": 0.71,
            "quality_source": "label",
            "is_success": True,
            "outcome_class": "standard_success",
            "rule_id": "t3-outcome-1",
            "update_n": 1,
            "repetition_n": 1,
            "idle_months": 0.0,
            "weight_before": 0.3,
            "weight_after": 0.3042,
            "v3": {"valuation": 0.8},
            "lrc": {"policy_id": "edge", "L": 0.3, "R": 0.7, "C": 0.5},
        }
    )

    role: str
    run_id: int
    request_id: str
    t3: Trust
    quality: _Ratio
    quality_source: Literal["label", "audit"]
    is_success: bool
    outcome_class: Outcome | None
    rule_id: str
    update_n: int = Field(ge=1)
    repetition_n: int = Field(ge=1)
    idle_months: float = Field(ge=0)
    weight_before: _Ratio
    weight_after: _Ratio
    v3: dict[str, Any] | None = Field(description="The value of the answer, if its inputs were given.")
    lrc: dict[str, Any] = Field(description="The policy under which it was decided.")


class AuditHead(BaseModel):
    """Sequence number and hash of the last record that was signed, with its signature."""

    model_config = _example(
        {
            "begin_seq": 0,
            "begin_prev_hash": "0" * 64,
            "signed_seq": 1024,
            "signed_hash": "5f1c" * 16,
            "public_key": "8d1b" * 16,
            "signature": "b83a" * 32,
        }
    )

    begin_seq: _Count
    begin_prev_hash: str
    signed_seq: _Count
    signed_hash: str
    public_key: str
    signature: str


class Liveness(BaseModel):
    """The process answers."""

    model_config = _example({"live": True})

    live: bool


class BuildProgress(BaseModel):
    """How far the building of engines has come."""

    plan: str
    done: _Count
    total: _Count
    fraction: _Ratio
    elapsed_s: float
    remaining_s: float | None = Field(description="An estimate; null before there is one.")


class Readiness(BaseModel):
    """Whether requests are served."""

    model_config = _example({"ready": True, "state": "ready", "problems": []})

    ready: bool
    state: Literal["ready", "draining", "failed", "building_engine"]
    problems: list[str] | None = Field(
        None, description="What serving outlives; not while engines are built."
    )
    progress: BuildProgress | None = Field(None, description="While engines are built.")


class Cuda(BaseModel):
    """What this build can use of CUDA."""

    built: bool
    devices: list[str]


class Price(BaseModel):
    """By how many watts compute is charged."""

    power_w: float
    source: str


class Ledger(BaseModel):
    """The energy account."""

    ATP_initial: _Atp
    ATP_available: _Atp
    ATP_locked: _Atp
    ADP: float = Field(description="Spent and not yet recharged.")
    energy_ratio: _Ratio
    scenes: int = Field(ge=0, description="Those that hold some of it; a single request is one too.")


class Memory(BaseModel):
    """What requests hold of one account of memory."""

    used_bytes: _Count
    limit_bytes: _Count
    refused: int = Field(ge=0, description="How often there was no room.")


class Loop(BaseModel):
    """Where a plugin's steps run."""

    mode: str
    reason: str = Field(description="Why it is not the best mode that the backend has; empty where it is.")


class ServedPlugin(BaseModel):
    """What runs of one plugin, and how fast."""

    version: str
    backend: str
    model_sha256: str | None
    loop: Loop
    can_rewind: bool
    slots: _Count
    live: _Count
    waiting: _Count
    history_bytes: _Count
    tick_ms: float
    encode_ms: float
    decode_ms: float
    bound_ms: PromiseBound


_LANE = {
    "version": "1.0.0",
    "backend": "onnxruntime-cpu",
    "model_sha256": "9f2c" * 16,
    "loop": {"mode": "host", "reason": ""},
    "can_rewind": True,
    "slots": 8,
    "live": 1,
    "waiting": 0,
    "history_bytes": 1_966_080,
    "tick_ms": 4.2,
    "encode_ms": 11.0,
    "decode_ms": 1.1,
    "bound_ms": {"wait": 0.0, "encode": 16.0, "step": 6.1, "decode": 2.0, "reply": 4.5},
}
_LEDGER = {
    "ATP_initial": 1e6,
    "ATP_available": 999_487.6,
    "ATP_locked": 0.0,
    "ADP": 512.4,
    "energy_ratio": 0.9995,
    "scenes": 0,
}


class Status(BaseModel):
    """What runs where."""

    model_config = _example(
        {
            "version": "0.1.0",
            "state": "ready",
            "profile": "edge",
            "uptime_s": 12.5,
            "cuda": {"built": False, "devices": []},
            "prices": {"vision": {"power_w": 15.0, "source": "declared"}},
            "allocation": "greedy",
            "ledger": _LEDGER,
            "memory": {"bodies": {"used_bytes": 0, "limit_bytes": 218_000_000, "refused": 0}},
            "plugins": {"vision": _LANE},
            "telemetry": {"published": 5, "lost_mailbox": 0},
        }
    )

    version: str
    state: str
    profile: str
    uptime_s: float
    cuda: Cuda
    prices: dict[str, Price]
    allocation: Policy
    ledger: Ledger
    memory: dict[str, Memory]
    plugins: dict[str, ServedPlugin]
    telemetry: dict[str, int] = Field(description="Records published, and lost at each stage.")


class PluginInvariants(BaseModel):
    """The names of a plugin's invariants."""

    state_space: str
    noise_model: str
    energy_fn: str
    energy_units: str
    noise_schedule: Literal["used", "ignored"]


class HaltingRule(BaseModel):
    """When a plugin's refinement ends by default."""

    K: int
    eps: float
    max_steps: int
    E_scale: float


class PluginInfo(BaseModel):
    """A plugin that is loaded."""

    model_config = _example(
        {
            "version": "1.0.0",
            "takes": "frame",
            "invariants": {
                "state_space": "latent",
                "noise_model": "gaussian",
                "energy_fn": "expected-error",
                "energy_units": "share of pixels",
                "noise_schedule": "ignored",
            },
            "state_kind": "latent",
            "profiles": ["edge", "workstation"],
            "halting": {"K": 3, "eps": 1e-4, "max_steps": 8, "E_scale": 0.13},
            "max_steps_cap": 64,
        }
    )

    version: str
    takes: str = Field(description="The kind of its input.")
    state_kind: Literal["latent", "solver", "pixels"] = Field(description="What is refined.")
    profiles: list[str] = Field(description="The profiles that it may be served on.")
    invariants: PluginInvariants
    halting: HaltingRule
    max_steps_cap: int
