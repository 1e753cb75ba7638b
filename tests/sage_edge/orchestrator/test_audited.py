"""The same random interleavings, seen by the auditor: it has nothing to say of an honest orchestrator."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from sage_edge.telemetry import TelemetryValidator, load_schema
from sage_edge.telemetry.audit import verify
from tests.fakes import FakeClock
from tests.sage_edge.orchestrator.test_hrm import Interleavings

VALIDATOR = TelemetryValidator(load_schema())


class Audited(Interleavings):
    """Leaves a journal, and verifies it at the end."""

    @initialize(
        capacity=st.sampled_from([1e6, 200.0]),
        recharge_w=st.sampled_from([0.0, 0.5]),
        power_w=st.floats(0.9, 1.1),
    )
    def begin(self, capacity, recharge_w, power_w):
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.hrm, self.plants = self.open(
            atp_capacity=capacity,
            recharge_w=recharge_w,
            power_w=power_w,
            telemetry_dir=self.folder.name,
            audit_every=32,
        )
        self.tickets = []
        self.refused = 0

    def teardown(self):
        if not hasattr(self, "hrm"):
            return
        with self.folder:
            super().teardown()
            report = verify(Path(self.folder.name), validator=VALIDATOR)
            assert report.findings == []
            assert report.cut_off == 0
            charged = sum(member.spent_uatp for ticket in self.tickets for member in ticket.members)
            assert report.spent_uatp == charged


Audited.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAudited = Audited.TestCase
