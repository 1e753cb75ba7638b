"""The settings: one frozen, typed object, and the only reader of configuration files and the environment.

Precedence: command-line flag > environment (``SAGE_<KEY>``) > TOML file > default. An unknown key or
a value of the wrong kind stops the start with the key's name.
"""

from __future__ import annotations

import json
import math
import os
import re
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
#: Names of plugins: they are parts of a route, of a file's tables and of record fields.
_PLUGIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: Largest max_steps that a request may ask for, by profile.
STEP_CAPS = {"edge": 64, "workstation": 1024}


def _setting(default: Any, text: str, *, least: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "least": least, "choices": choices})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. The field's name is the TOML key, ``SAGE_NAME`` and ``--name``.

    ``plugin_config`` has the keys of single plugins: ``[plugins.NAME]`` in the file,
    ``SAGE_PLUGINS__NAME__KEY`` in the environment, ``--set NAME.KEY=VALUE`` on the command line. Each is the
    plugin's own to check, but for ``class``, which says what is served under that name.
    """

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 lets the system choose", least=0)
    profile: str = _setting("edge", "the kind of machine; sets the cap on steps", choices=tuple(STEP_CAPS))
    plugins: tuple[str, ...] = _setting(("vision",), "plugins to serve, each by the name of its route")
    plugin_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata={"help": ""})
    precision: str = _setting(
        "auto",
        "which ONNX files to load; auto: fp16 where the backend is a GPU, else fp32",
        choices=("auto", "fp32", "fp16"),
    )
    backend: str = _setting("cpu", "what runs the networks, by entry-point name")
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
    memory_bytes: int = _setting(
        0, "memory for bodies, inputs, answers and replies; 0: half of what is free, 2 GiB at most", least=0
    )
    max_body_bytes: int = _setting(64 << 20, "largest request body", least=1024)
    body_timeout_s: float = _setting(30.0, "how long a request's body may take to arrive", least=0.001)
    write_timeout_s: float = _setting(
        30.0, "how long a caller may leave its reply unread before it is cut off", least=0.001
    )
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
        for entry in setting_fields():
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
        for name in self.plugins:
            if not _PLUGIN_NAME.fullmatch(name):
                raise ConfigError(f"plugins: expected names of letters, digits, - and _, got {name!r}")
        if len(set(self.plugins)) < len(self.plugins):
            raise ConfigError(f"plugins: expected each name once, got {', '.join(self.plugins)}")

    @property
    def step_cap(self) -> int:
        """Largest max_steps that a request may ask for."""
        return self.max_steps_cap or STEP_CAPS[self.profile]

    @property
    def thread_count(self) -> int:
        """Threads to use: the setting, or the cores that this process may run on."""
        return self.threads or len(os.sched_getaffinity(0))


def setting_fields() -> list[Any]:
    """The fields that are one value each: all of Settings but ``plugin_config``."""
    return [entry for entry in fields(Settings) if entry.name != "plugin_config"]


@dataclass(slots=True)
class _Collected:
    """What was set, and where: settings by name, and keys of plugins by plugin and key."""

    values: dict[str, tuple[Any, str]]
    keys: dict[tuple[str, str], tuple[Any, str]]

    def settings(self) -> Settings:
        """The settings; raises ConfigError naming what cannot be used."""
        config: dict[str, dict[str, Any]] = {}
        for (plugin, key), (value, _) in self.keys.items():
            config.setdefault(plugin, {})[key] = value
        settings = Settings(**{name: value for name, (value, _) in self.values.items()}, plugin_config=config)
        for (plugin, key), (_, origin) in self.keys.items():
            if plugin not in settings.plugins and origin.startswith(("environment", "--set")):
                raise ConfigError(
                    f"{origin}: {key} of a plugin that is not served; plugins: {', '.join(settings.plugins)}"
                )
        return settings


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Build the settings from flags, environment and file.

    Args:
        flags: Values given on the command line; None values are ignored. ``set`` is a list of texts
            NAME.KEY=VALUE, keys of plugins.
        environment: The process environment by default.
        file: A TOML file; by default the one that ``SAGE_CONFIG`` names, if any.

    Raises:
        ConfigError: An unknown key, a bad value, or a file that cannot be read.
    """
    return _collect(flags, environment, file).settings()


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
    settings = given.settings()
    lines = [
        (
            f"{entry.name} = {_to_toml(getattr(settings, entry.name))}",
            given.values.get(entry.name, (None, "default"))[1],
        )
        for entry in setting_fields()
        if entry.name != "plugins" or not given.keys
    ]
    # Tables come last, and name the plugins: TOML has no list and tables of one name.
    tables = settings.plugins if given.keys else ()
    for plugin in tables:
        lines.append((f"[plugins.{plugin}]", given.values.get("plugins", (None, "default"))[1]))
        for (name, key), (value, origin) in given.keys.items():
            if name == plugin:
                lines.append((f"{key} = {_to_toml(value)}", origin))
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines)


def _collect(
    flags: Mapping[str, Any] | None, environment: Mapping[str, str] | None, file: Path | None
) -> _Collected:
    """Every value that was set and where, the strongest source last."""
    environment = os.environ if environment is None else environment
    flags = dict(flags or {})
    if file is None and environment.get("SAGE_CONFIG"):
        file = Path(environment["SAGE_CONFIG"])
    given = _Collected({}, {})
    if file is not None:
        _add_file(given, file)
    _add_environment(given, environment)
    _add_flags(given, flags)
    return given


def _add_file(given: _Collected, file: Path) -> None:
    for key, value in _read_toml(file).items():
        if key == "plugins" and isinstance(value, dict):
            _add_tables(given, value, f"{file}")
        else:
            given.values[key] = _convert(key, value, f"{file}"), f"{file}"


def _add_environment(given: _Collected, environment: Mapping[str, str]) -> None:
    for name, text in environment.items():
        if not name.startswith(ENV_PREFIX) or name in _ENV_OTHERS:
            continue
        origin, key = f"environment {name}", name.removeprefix(ENV_PREFIX).lower()
        if key.startswith("plugins__"):
            plugin, _, own = name.removeprefix(f"{ENV_PREFIX}PLUGINS__").partition("__")
            if not plugin or not own:
                raise ConfigError(f"{origin}: expected SAGE_PLUGINS__NAME__KEY")
            given.keys[plugin.lower(), _key_of(own)] = _literal(text), origin
        else:
            given.values[key] = _convert(key, text, origin), origin


def _add_flags(given: _Collected, flags: dict[str, Any]) -> None:
    for text in flags.pop("set", None) or ():
        path, equals, value = text.partition("=")
        plugin, dot, key = path.partition(".")
        if not (equals and dot and plugin and key):
            raise ConfigError(f"--set: expected NAME.KEY=VALUE, got {text!r}")
        given.keys[plugin, key] = _literal(value), f"--set {path}"
    for key, value in flags.items():
        if value is not None:
            flag = f"--{key.replace('_', '-')}"
            given.values[key] = _convert(key, value, flag), flag


def _add_tables(given: _Collected, tables: Mapping[str, Any], origin: str) -> None:
    """``[plugins.NAME]`` tables of a file: they name the plugins, in order, and have their keys."""
    for plugin, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{origin}: plugins.{plugin}: expected a table [plugins.{plugin}], got {table!r}"
            )
        given.keys |= {(plugin, key): (value, origin) for key, value in table.items()}
    given.values["plugins"] = tuple(tables), origin


def _key_of(own: str) -> str:
    """A plugin's key as the environment spells it: lower case, but for the K of the protocol."""
    return "halt_K" if own.lower() == "halt_k" else own.lower()


def _literal(text: str) -> Any:
    """A value as TOML would read it; what is none is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _to_toml(value: Any) -> str:
    """A setting's value in TOML, whose strings, numbers and lists are written as in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_to_toml(key)} = {_to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


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
    defaults = {entry.name: entry.default for entry in setting_fields()}
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
