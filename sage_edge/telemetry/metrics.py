"""The service's numbers in Prometheus's format, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sage_edge.memory import MemoryBudget
from sage_edge.telemetry.board import BoardCollector
from sage_edge.telemetry.records import KINDS, Record

#: What ``exposition`` returns, as a Content-Type.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Where a record can be lost on its way from the loop to the journal.
LOSS_STAGES = ("mailbox", "events", "directory", "schema", "journal")

_DURATIONS_S = (0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 50, 64, 100)


class _Registry(CollectorRegistry):
    """Without the ``_created`` series, which double the page and tell nothing that is asked for."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _MemoryCollector(Collector):
    """What each account of memory holds, may hold and has refused."""

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("sage_held_bytes", "Memory that requests hold.", labels=["account"])
        limit = GaugeMetricFamily(
            "sage_held_limit_bytes", "Memory that requests may hold.", labels=["account"]
        )
        refused = CounterMetricFamily("sage_held_refused", "How often there was no room.", labels=["account"])
        for name, account in self._memory.accounts.items():
            used.add_metric([name], account.used)
            limit.add_metric([name], account.limit)
            refused.add_metric([name], account.refused)
        yield from (used, limit, refused)


class Metrics:
    """Counts and times; the names and labels are listed in docs/TELEMETRY.md.

    Attributes:
        board: The board's sensors, read along with the rest.

    Threads: every method from any thread.
    """

    def __init__(self) -> None:
        registry = self._registry = _Registry()

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["plugin"], registry=registry, buckets=_DURATIONS_S)

        self._requests = Counter(
            "sage_requests", "Requests that ended, by outcome.", ["plugin", "outcome"], registry=registry
        )
        self._shed = Counter("sage_shed", "Requests refused at the door.", ["reason"], registry=registry)
        self._replies = Counter(
            "sage_http_replies", "Replies over HTTP, by status.", ["status"], registry=registry
        )
        self._request = seconds("sage_request_duration_seconds", "From arrival to the decoded answer.")
        self._queue = seconds("sage_queue_duration_seconds", "From arrival to a slot.")
        self._refine = seconds("sage_refine_duration_seconds", "From a slot to the decoded answer.")
        self._tick = seconds("sage_tick_duration_seconds", "One step of all live slots.")
        self._engine = seconds("sage_engine_duration_seconds", "The engine's share of a tick.")
        self._queue_length = Gauge(
            "sage_queue_length", "Requests that wait for a slot.", ["plugin"], registry=registry
        )
        self._in_flight = Gauge(
            "sage_in_flight_requests", "Requests under way.", ["plugin"], registry=registry
        )
        self._slots = Gauge("sage_slots", "Slots, in use or free.", ["plugin"], registry=registry)
        self._steps = Counter(
            "sage_refine_steps", "Steps of the runs that halted.", ["plugin"], registry=registry
        )
        self._halts = Counter(
            "sage_halts", "Runs that halted, by reason.", ["plugin", "halt_reason"], registry=registry
        )
        self._steps_to_halt = Histogram(
            "sage_steps_to_halt", "Steps until a run halted.", ["plugin"], registry=registry, buckets=_STEPS
        )
        self._energy = Counter(
            "sage_refine_energy_joules",
            "Energy charged to the runs that halted, by source of its price.",
            ["source"],
            registry=registry,
        )
        self._records = Counter(
            "sage_telemetry_records", "Records published, by kind.", ["kind"], registry=registry
        )
        for kind in KINDS:
            self._records.labels(kind)
        self._lost = Counter("sage_telemetry_lost", "Records lost, by stage.", ["stage"], registry=registry)
        for stage in LOSS_STAGES:
            self._lost.labels(stage)  # an alert needs the zero
        self._build = Info("sage_build", "What is running.", registry=registry)
        self.board = BoardCollector()
        registry.register(self.board)

    def watch_memory(self, memory: MemoryBudget) -> None:
        """Read what requests hold whenever the metrics are read."""
        self._registry.register(_MemoryCollector(memory))

    def describe_build(self, **labels: str) -> None:
        """State what is running, such as its version."""
        self._build.info(labels)

    def watch(
        self, plugin: str, *, queue_length: Callable[[], int], in_flight: Callable[[], int], slots: int
    ) -> None:
        """Read a plugin's state whenever the metrics are read."""
        self._queue_length.labels(plugin).set_function(queue_length)
        self._in_flight.labels(plugin).set_function(in_flight)
        self._slots.labels(plugin).set(slots)

    def request_shed(self, reason: str) -> None:
        """A request was refused before it was queued."""
        self._shed.labels(reason).inc()

    def replied(self, status: int) -> None:
        """A request was replied to over HTTP."""
        self._replies.labels(str(status)).inc()

    def request_ended(self, plugin: str, outcome: str) -> None:
        """A queued request got its answer, or an error in its place."""
        self._requests.labels(plugin, outcome).inc()

    def observe_request(self, plugin: str, *, queue_ns: int, refine_ns: int) -> None:
        """How long an answered request waited for its slot, and was refined."""
        self._queue.labels(plugin).observe(queue_ns / 1e9)
        self._refine.labels(plugin).observe(refine_ns / 1e9)
        self._request.labels(plugin).observe((queue_ns + refine_ns) / 1e9)

    def observe_tick(self, plugin: str, tick_ns: int, engine_ns: int) -> None:
        """How long a tick took, and the engine within it."""
        self._tick.labels(plugin).observe(tick_ns / 1e9)
        self._engine.labels(plugin).observe(engine_ns / 1e9)

    def run_halted(self, record: Record) -> None:
        """A run's final record has come."""
        plugin, steps = record["plugin"], record["step_idx"]
        self._halts.labels(plugin, record["halt_cause"]).inc()
        self._steps.labels(plugin).inc(steps)
        self._steps_to_halt.labels(plugin).observe(steps)
        self._energy.labels(record["budget"]["price_source"]).inc(record["budget"]["ATP_spent"] / 1e3)

    def records_published(self, kind: str, count: int) -> None:
        """Records were chained and handed on."""
        self._records.labels(kind).inc(count)

    def records_lost(self, stage: str, count: int) -> None:
        """Records were lost at one of LOSS_STAGES."""
        self._lost.labels(stage).inc(count)

    def record_counts(self) -> dict[str, int]:
        """Records published, and lost at each of LOSS_STAGES."""
        value = self._registry.get_sample_value
        published = [value("sage_telemetry_records_total", {"kind": kind}) for kind in KINDS]
        counts: dict[str, float | None] = {"published": sum(count or 0 for count in published)}
        for stage in LOSS_STAGES:
            counts[f"lost_{stage}"] = value("sage_telemetry_lost_total", {"stage": stage})
        return {name: int(count or 0) for name, count in counts.items()}

    def exposition(self) -> bytes:
        """All metrics in the text format of CONTENT_TYPE."""
        return generate_latest(self._registry)
