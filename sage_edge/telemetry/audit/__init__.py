"""The auditor: what a telemetry journal proves, recomputed from its files alone."""

from sage_edge.telemetry.audit.findings import Finding
from sage_edge.telemetry.audit.verify import Report, verify

__all__ = ["Finding", "Report", "verify"]
