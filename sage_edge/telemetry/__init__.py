"""Telemetry: from the mailbox to the auditor."""

from sage_edge.telemetry.canonical import ZERO_HASH, Draft, Sealed, draft, seal, to_line
from sage_edge.telemetry.chain import Chain
from sage_edge.telemetry.checkpoints import Checkpoints
from sage_edge.telemetry.drain import Drain, Reader
from sage_edge.telemetry.events import Event, Events
from sage_edge.telemetry.files import ValidationReport, tail, validate_file
from sage_edge.telemetry.hub import Hub
from sage_edge.telemetry.journal import FILE_NAME, Journal
from sage_edge.telemetry.metrics import CONTENT_TYPE, Metrics
from sage_edge.telemetry.pipeline import Telemetry
from sage_edge.telemetry.records import Record
from sage_edge.telemetry.runs import PluginInfo, RunDirectory, RunInfo
from sage_edge.telemetry.schema import TelemetryValidator, load_schema

__all__ = [
    "CONTENT_TYPE",
    "FILE_NAME",
    "ZERO_HASH",
    "Chain",
    "Checkpoints",
    "Draft",
    "Drain",
    "Event",
    "Events",
    "Hub",
    "Journal",
    "Metrics",
    "PluginInfo",
    "Reader",
    "Record",
    "RunDirectory",
    "RunInfo",
    "Sealed",
    "Telemetry",
    "TelemetryValidator",
    "ValidationReport",
    "draft",
    "load_schema",
    "seal",
    "tail",
    "to_line",
    "validate_file",
]
