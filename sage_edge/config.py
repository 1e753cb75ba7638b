"""The settings: one frozen, typed object, and the only reader of configuration files and the environment.

Precedence: command-line flag > environment (``SAGE_<KEY>``) > TOML file > default. An unknown key or
a value of the wrong kind stops the start with the key's name.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sage_edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERSION = version("sage-edge")
ENV_PREFIX = "SAGE_"
#: Names in the environment that steer the build or the reading itself, and are no settings.
_ENV_OTHERS = {"SAGE_CONFIG", "SAGE_CUDA"}
#: Largest max_steps that a request may ask for, by profile.
STEP_CAPS = {"edge": 64, "workstation": 1024}


def _setting(default: Any, text: str, *, least: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "least": least, "choices": choices})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. The field's name is the TOML key, ``SAGE_NAME`` and ``--name``."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 lets the system choose", least=0)
    profile: str = _setting("edge", "the kind of machine; sets the cap on steps", choices=tuple(STEP_CAPS))
    plugins: tuple[str, ...] = _setting(("vision",), "plugins to load, by entry-point name")
    vision_model: str = _setting("nuclei", "a model that ships, or the path of a model folder")
    precision: str = _setting("fp32", "which ONNX files to load", choices=("fp32", "fp16"))
    backend: str = _setting("cpu", "what runs the networks", choices=("cpu", "tensorrt"))
    engine_dir: str = _setting("var/engines", "where built TensorRT plans are kept")
    slots: int = _setting(8, "requests that each plugin refines together", least=1)
    queue_size: int = _setting(64, "requests that may wait for each plugin", least=1)
    threads: int = _setting(0, "threads of the engines and kernels; 0 means all cores", least=0)
    max_steps_cap: int = _setting(0, "largest max_steps of a request; 0 means the profile's", least=0)
    power_w: float = _setting(15.0, "declared board power in watts: the price of a millisecond", least=0.001)
    prices_file: str = _setting(
        "", "what `sage-edge calibrate` wrote; empty: the board's sensor, else power_w"
    )
    atp_capacity: float = _setting(1e6, "ATP (mJ) that the service's account holds", least=1.0)
    recharge_w: float = _setting(
        0.0, "watts at which spent ATP comes back; 0: at once when needed", least=0.0
    )
    allocation: str = _setting(
        "greedy",
        "how a scene shares its budget",
        choices=("equal", "proportional", "trust", "greedy"),
    )
    scene_eps: float = _setting(1e-3, "range of a scene's H below which all of it halts; 0: never", least=0.0)
    scene_steps: int = _setting(3, "steps of every member over which that range is taken", least=1)
    rewinds: int = _setting(2, "how often a run that goes astray is taken back", least=0)
    rewind_rise: float = _setting(1.0, "E_norm above its best at which a run is astray", least=0.0)
    history_states: int = _setting(2, "earlier states kept of each slot, beside the best one", least=0)
    results_kept: int = _setting(256, "requests that can be asked for by their id", least=1)
    results_keep_s: float = _setting(60.0, "how long an answer can be asked for after it came", least=0.0)
    entity_id: str = _setting("sage-edge", "who signs as the entity of the telemetry records")
    telemetry_dir: str = _setting(
        "var/telemetry", "where the JSONL files go; empty keeps them in memory only"
    )
    telemetry_max_bytes: int = _setting(64 << 20, "size at which a telemetry file is rotated", least=4096)
    telemetry_backups: int = _setting(4, "rotated telemetry files to keep", least=0)
    telemetry_memory: int = _setting(4096, "newest records kept for /v1/telemetry", least=1)
    audit_every: int = _setting(1024, "records between two signed checkpoints", least=1)
    audit_key: str = _setting(
        "", "the Ed25519 key that signs them, in PEM; empty means audit_key.pem in telemetry_dir"
    )
    reputation_file: str = _setting(
        "", "where trust is kept; empty means reputation.sqlite in telemetry_dir, or memory without one"
    )
    lrc_profile: str = _setting(
        "edge", "how stiff the budget policy is", choices=("edge", "safety", "learning", "performance")
    )
    mailbox_records: int = _setting(8192, "records in each plugin's mailbox, a power of two", least=2)
    board_period_s: float = _setting(
        1.0, "how often the board's own sensors are read; 0 switches them off", least=0.0
    )
    max_body_bytes: int = _setting(64 << 20, "largest request body", least=1024)
    body_timeout_s: float = _setting(30.0, "how long a request's body may take to arrive", least=0.001)
    max_frame_pixels: int = _setting(32 << 20, "largest frame, width x height", least=1)
    api_keys_file: str = _setting("", "file of API keys, made by `sage-edge keys add`; empty asks for none")
    key_rate_per_s: float = _setting(0.0, "requests a second that each key may send; 0: as many", least=0.0)
    key_burst: int = _setting(20, "requests that a key may send at once after a pause", least=1)
    open_metrics: bool = _setting(False, "whether /metrics needs no key")
    cors_origins: tuple[str, ...] = _setting((), "origins whose pages may call from a browser")
    tls_cert_file: str = _setting("", "certificate chain (PEM); empty serves plain HTTP")
    tls_key_file: str = _setting("", "the certificate's private key (PEM)")
    drain_s: float = _setting(20.0, "how long SIGTERM waits for requests in flight", least=0.0)
    log_level: str = _setting(
        "info", "least severe event to log", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        """Check ranges and choices; raises ConfigError naming the key."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            least, choices = entry.metadata["least"], entry.metadata["choices"]
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{entry.name}: expected a finite number, got {value}")
            if least is not None and not value >= least:
                raise ConfigError(f"{entry.name}: expected at least {least:g}, got {value}")
            if choices and value not in choices:
                raise ConfigError(f"{entry.name}: expected one of {', '.join(choices)}, got {value!r}")
        if self.mailbox_records & (self.mailbox_records - 1):
            raise ConfigError(f"mailbox_records: expected a power of two, got {self.mailbox_records}")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ConfigError("tls_cert_file and tls_key_file: expected both or neither, got one")
        if self.port > 65535:
            raise ConfigError(f"port: expected at most 65535, got {self.port}")

    @property
    def step_cap(self) -> int:
        """Largest max_steps that a request may ask for."""
        return self.max_steps_cap or STEP_CAPS[self.profile]

    @property
    def thread_count(self) -> int:
        """Threads to use: the setting, or the cores that this process may run on."""
        return self.threads or len(os.sched_getaffinity(0))


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Build the settings from flags, environment and file.

    Args:
        flags: Values given on the command line; None values are ignored.
        environment: The process environment by default.
        file: A TOML file; by default the one that ``SAGE_CONFIG`` names, if any.

    Raises:
        ConfigError: An unknown key, a bad value, or a file that cannot be read.
    """
    return Settings(**{key: value for key, (value, _) in _collect(flags, environment, file).items()})


def describe_settings(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> str:
    """The settings in effect as TOML, each with its origin; the arguments are those of ``load_settings``.

    Raises:
        ConfigError: As ``load_settings``.
    """
    given = _collect(flags, environment, file)
    settings = Settings(**{key: value for key, (value, _) in given.items()})
    origins = {key: origin for key, (_, origin) in given.items()}
    lines = [
        (f"{entry.name} = {_to_toml(getattr(settings, entry.name))}", origins.get(entry.name, "default"))
        for entry in fields(settings)
    ]
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines)


def _collect(
    flags: Mapping[str, Any] | None, environment: Mapping[str, str] | None, file: Path | None
) -> dict[str, tuple[Any, str]]:
    """Every value that is given, with its origin; the strongest origin of each key."""
    environment = os.environ if environment is None else environment
    if file is None and environment.get("SAGE_CONFIG"):
        file = Path(environment["SAGE_CONFIG"])
    values: dict[str, tuple[Any, str]] = {}
    for key, value in (_read_toml(file) if file else {}).items():
        values[key] = _convert(key, value, f"{file}"), f"{file}"
    for name, text in environment.items():
        if name.startswith(ENV_PREFIX) and name not in _ENV_OTHERS:
            key = name.removeprefix(ENV_PREFIX).lower()
            values[key] = _convert(key, text, f"environment {name}"), f"environment {name}"
    for key, value in (flags or {}).items():
        if value is not None:
            flag = f"--{key.replace('_', '-')}"
            values[key] = _convert(key, value, flag), flag
    return values


def _to_toml(value: Any) -> str:
    """A setting's value in TOML, whose strings, numbers and lists are written as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def shared_file(relative: str) -> Path:
    """The path of a file that ships beside the code, such as ``schemas/telemetry.schema.json``.

    An installed wheel carries these under ``sage_edge/_share``; in a checkout they stand at its root.
    """
    package = Path(__file__).parent
    installed = package / "_share"
    return (installed if installed.is_dir() else package.parent) / relative


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: not valid TOML: {exc}") from exc


def _convert(key: str, value: Any, source: str) -> Any:
    """A value as its field's type, from TOML, text or a flag."""
    defaults = {entry.name: entry.default for entry in fields(Settings)}
    if key not in defaults:
        raise ConfigError(f"{source}: unknown setting {key!r}; known: {', '.join(sorted(defaults))}")
    kind: type[Any] = type(defaults[key])
    try:
        if kind is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(part for part in parts if part)
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"{source}: {key}: expected {kind.__name__}, got {value!r}") from None
