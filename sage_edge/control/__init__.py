"""Control problems, solved in process: quadratic programs, linear MPC, plane trajectories."""

from sage_edge.control.course import Course, Limits, Track, World
from sage_edge.control.mpc import MPC, MPC_HALTING, MpcProblem, MpcSolution
from sage_edge.control.plan import PLAN_HALTING, Plan, PlanProblem, plan
from sage_edge.control.problem import Iterate, Problem
from sage_edge.control.qp import solve_qp
from sage_edge.control.qp_problem import QpProblem
from sage_edge.control.timing import Motion

__all__ = [
    "MPC",
    "MPC_HALTING",
    "PLAN_HALTING",
    "Course",
    "Iterate",
    "Limits",
    "Motion",
    "MpcProblem",
    "MpcSolution",
    "Plan",
    "PlanProblem",
    "Problem",
    "QpProblem",
    "Track",
    "World",
    "plan",
    "solve_qp",
]
