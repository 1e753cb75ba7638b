"""Tickets as the orchestrator makes them, for tests of its parts."""

from __future__ import annotations

from sage_edge.native import HaltPolicy
from sage_edge.orchestrator.ledger import Ledger
from sage_edge.orchestrator.member import Member
from sage_edge.orchestrator.prices import Price
from sage_edge.orchestrator.profile import Profile
from sage_edge.orchestrator.request import Ticket
from sage_edge.orchestrator.scene import Rules, Scene

NEVER_NS = 2**63 - 1


def make_scene(*, budget_uatp=None, rules=None, is_posted=False, ledger=None, notes=None, now_ns=lambda: 0):
    """A scene over a ledger of its own, whose records go to ``notes``."""
    written = [] if notes is None else notes
    return Scene(
        "scene",
        ledger=ledger or Ledger(10**15, recharge_w=0.0, now_ns=now_ns, note=written.append),
        rules=rules or Rules(),
        budget_uatp=budget_uatp,
        now_ns=now_ns,
        note=lambda kind, fields: written.append({"kind": kind} | dict(fields)),
        is_posted=is_posted,
    )


def make_member(scene, run_id, *, weight=1.0, E_scale=1.0, max_steps=20, power_w=1.0, branch=0, profile=None):
    """A member of a scene; power_w = 1 prices a microsecond at 1000 micro-ATP."""
    return Member(
        scene,
        run_id=run_id,
        request_id=f"r{run_id}",
        plugin="quadratic",
        profile=profile or Profile(64),
        weight=weight,
        E_scale=E_scale,
        max_steps=max_steps,
        price=Price(power_w, "declared"),
        branch=branch,
    )


def make_ticket(
    run_id,
    x0=None,
    policy=None,
    *,
    start_ns=0,
    deadline_ns=NEVER_NS,
    branches=1,
    budget_uatp=None,
    power_w=1.0,
    **options,
):
    """A ticket with its own scene, its energy locked."""
    policy = policy or HaltPolicy(deadline_ns=deadline_ns)
    scene = make_scene(budget_uatp=budget_uatp)
    members = [
        make_member(
            scene,
            run_id + 1000 * branch,
            max_steps=policy.max_steps,
            E_scale=policy.E_scale,
            power_w=power_w,
            branch=branch,
        )
        for branch in range(branches)
    ]
    scene.open(members, 10**9 if budget_uatp is None else budget_uatp)
    return Ticket(f"r{run_id}", "quadratic", x0, policy, start_ns, deadline_ns, members, **options)
