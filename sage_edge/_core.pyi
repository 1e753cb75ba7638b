"""
The compiled core of sage_edge. Use it through sage_edge.native.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['HaltPolicy', 'Horizon', 'QpRun', 'QpSolution', 'QpSolutions', 'QpSolver', 'Ring', 'RingReader', 'SlotTable', 'StepForm', 'StepRun', 'ThreadPool', 'advance_many', 'grid_way', 'halt_reason', 'halt_reasons', 'latent_step', 'protocol_reasons', 'record_dtype', 'solve_chain_qp', 'solve_qp', 'trust_statistics', 'write_steps']
class HaltPolicy:
    """
    When a run stops. Immutable; energies are compared as E_norm = E / E_scale.
    
    Args:
        eps: Range of E_norm that counts as converged, >= 0.
        K: The range is taken over the last K + 1 states, 1 to 15.
        max_steps: Steps, not states: 50 leaves 51 states.
        E_scale: Energy units per unit of E_norm, finite and > 0.
        divergence_factor: E_norm may rise by (factor - 1) * max(abs(E_norm_0), 1), >= 1.
        target_E_norm: A feasible state at or below it halts with "confidence".
        gap_tolerance: Gap at or below which a feasible state may halt with "feasible", >= 0.
        halt_when_feasible: Whether it does.
        budget_us: Compute that may be charged to the run, microseconds, >= 0.
        deadline_ns: On the caller's monotonic clock, >= 0.
        rewinds: How often the run may go back to an earlier state instead of ending as "diverged", >= 0.
        rise: E_norm above the best one that counts as going astray too, >= 0.
    
    Raises:
        ConfigError: A value is out of its range; the message names it.
    """
    def __eq__(self, arg0: typing.Any) -> bool:
        ...
    def __hash__(self) -> int:
        ...
    def __init__(self, *, eps: typing.SupportsFloat | typing.SupportsIndex = 0.0001, K: typing.SupportsInt | typing.SupportsIndex = 3, max_steps: typing.SupportsInt | typing.SupportsIndex = 50, E_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0, divergence_factor: typing.SupportsFloat | typing.SupportsIndex = 10.0, target_E_norm: typing.SupportsFloat | typing.SupportsIndex = ..., gap_tolerance: typing.SupportsFloat | typing.SupportsIndex = 0.0, halt_when_feasible: bool = False, budget_us: typing.SupportsFloat | typing.SupportsIndex = ..., deadline_ns: typing.SupportsInt | typing.SupportsIndex = 9223372036854775807, rewinds: typing.SupportsInt | typing.SupportsIndex = 0, rise: typing.SupportsFloat | typing.SupportsIndex = ...) -> None:
        ...
    def __repr__(self) -> str:
        ...
    def replace(self, **kwargs: typing.Any) -> HaltPolicy:
        """
        A copy with some fields changed, and checked again.
        """
    @property
    def E_scale(self) -> float:
        ...
    @property
    def K(self) -> int:
        ...
    @property
    def budget_us(self) -> float:
        ...
    @property
    def deadline_ns(self) -> int:
        ...
    @property
    def divergence_factor(self) -> float:
        ...
    @property
    def eps(self) -> float:
        ...
    @property
    def gap_tolerance(self) -> float:
        ...
    @property
    def halt_when_feasible(self) -> bool:
        ...
    @property
    def max_steps(self) -> int:
        ...
    @property
    def rewinds(self) -> int:
        ...
    @property
    def rise(self) -> float:
        ...
    @property
    def target_E_norm(self) -> float:
        ...
class Horizon:
    """
    A linear plant x[k + 1] = A x[k] + B u[k] over N stages, played under feedback:
    
        u[k] = clip(lead[k] + gain[k] x[k] + spread[k] w[k])
    
    Its cost is the sum of (x - x_ref)' Q (x - x_ref) over the states 1 .. N, the last by QN, and of
    (u - u_ref)' R (u - u_ref) over the inputs. Immutable.
    
    Args:
        A, B: float64 [nx, nx], [nx, nu].
        Q, QN, R: float64 [nx, nx], [nx, nx], [nu, nu], symmetric.
        gain: float64 [N, nu, nx].
        spread: float64 [N, nu, nu].
        settle: float64 [N, nu, nu], the inverses of R + B' (cost to go) B.
        x_min, x_max, u_min, u_max: float64 [nx] and [nu]; infinite where there is no limit.
    
    Raises:
        ShapeError: An array has the wrong shape, dtype or layout.
    """
    def __init__(self, A: numpy.typing.NDArray[numpy.float64], B: numpy.typing.NDArray[numpy.float64], Q: numpy.typing.NDArray[numpy.float64], QN: numpy.typing.NDArray[numpy.float64], R: numpy.typing.NDArray[numpy.float64], gain: numpy.typing.NDArray[numpy.float64], spread: numpy.typing.NDArray[numpy.float64], settle: numpy.typing.NDArray[numpy.float64], x_min: numpy.typing.NDArray[numpy.float64], x_max: numpy.typing.NDArray[numpy.float64], u_min: numpy.typing.NDArray[numpy.float64], u_max: numpy.typing.NDArray[numpy.float64]) -> None:
        ...
    def lead(self, x_ref: numpy.typing.NDArray[numpy.float64], u_ref: numpy.typing.NDArray[numpy.float64]) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [N, nu]: the lead that is best for references float64 [N, nx] and [N, nu].
        """
    def play(self, x0: numpy.typing.NDArray[numpy.float64], lead: numpy.typing.NDArray[numpy.float64], w: numpy.typing.NDArray[numpy.float64] | None, x_ref: numpy.typing.NDArray[numpy.float64], u_ref: numpy.typing.NDArray[numpy.float64], clips: bool) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], float, float]:
        """
        Plays from x0 float64 [nx] with w float64 [N nu] (None: 0), inputs clipped to their limits if `clips`.
        
        Returns:
            States float64 [N + 1, nx], inputs float64 [N, nu], the cost, and by how much a state leaves its limits.
        """
class Ring:
    """
    A mailbox in ordinary memory: the newest `capacity` records.
    
    One producer thread; any number of readers. The producer never waits, and overwrites the oldest record.
    
    Args:
        capacity: Records it holds, a power of two.
    
    Raises:
        ConfigError: The capacity is no power of two.
    """
    def __init__(self, capacity: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def push(self, record: numpy.typing.NDArray[numpy.void]) -> None:
        """
        Publishes one record (0-d, or of one element; copied); its `seq` is replaced by the ring's ticket.
        
        Raises:
            ShapeError: It is not one record of RECORD_DTYPE.
        """
    def push_many(self, records: numpy.typing.NDArray[numpy.void]) -> None:
        """
        Publishes records [n] in order (copied), without the GIL.
        
        Raises:
            ShapeError: It is not a contiguous vector of RECORD_DTYPE.
        """
    @property
    def capacity(self) -> int:
        ...
    @property
    def published(self) -> int:
        """
        Records pushed so far.
        """
class RingReader:
    """
    A reader of a ring with its own cursor, from the oldest record on. One thread at a time.
    
    Once it has caught up, records read + lost == published.
    
    Args:
        ring: Kept alive by the reader.
    """
    def __init__(self, ring: Ring) -> None:
        ...
    def drain(self, max_records: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.void]:
        """
        Copies what is there, oldest first, without the GIL. Never waits.
        
        Args:
            max_records: At most so many, and never more than the ring's capacity at once.
        
        Returns:
            RECORD_DTYPE [n], a new array; `seq` is each record's ticket 0, 1, 2, ...
        """
    def wait(self, max_records: typing.SupportsInt | typing.SupportsIndex, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.void]:
        """
        `drain`, after waiting without the GIL until there is something.
        
        Args:
            max_records: As for `drain`.
            timeout_s: Longest wait, seconds.
        
        Returns:
            As `drain`; empty after the timeout.
        """
    @property
    def cursor(self) -> int:
        """
        Records read so far, plus those lost.
        """
    @property
    def lost(self) -> int:
        """
        Records overwritten before they were read.
        """
class SlotTable:
    """
    The runs of one refiner; the live slots are always 0 .. live - 1.
    
    One thread at a time: the producer of the ring. A slot that is not live raises IndexError.
    
    Args:
        capacity: Number of slots, at least 1.
        ring: Where every state is published; kept alive by the table.
        plugin: Small integer that names the plugin in the records.
    """
    def __init__(self, capacity: typing.SupportsInt | typing.SupportsIndex, ring: Ring, plugin: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        ...
    def admit(self, run_id: typing.SupportsInt | typing.SupportsIndex, policy: HaltPolicy, E0: typing.SupportsFloat | typing.SupportsIndex, *, now_ns: typing.SupportsInt | typing.SupportsIndex, margin_ns: typing.SupportsInt | typing.SupportsIndex = 0, charge_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, feasible: bool = True, gap: typing.SupportsFloat | typing.SupportsIndex = 0.0, branch: typing.SupportsInt | typing.SupportsIndex = 0, halt: typing.SupportsInt | typing.SupportsIndex = 0) -> tuple[int, str | None]:
        """
        Opens a run in slot `live` with its state 0, and publishes that state.
        
        Args:
            run_id: Names the run in its records.
            policy: When it stops.
            E0: Energy of state 0.
            now_ns: Monotonic time.
            margin_ns: Time that finishing the answer takes, >= 0.
            charge_us: Compute that led to state 0, microseconds, >= 0.
            feasible: Whether state 0 is.
            gap: Its optimality gap.
            branch: Names the branch in the records.
            halt: Code of the halt reason with which the plugin ends the run at state 0; 0: it does not. As for `observe`.
        
        Returns:
            The slot, and why the run has already ended, or None.
        
        Raises:
            CapacityError: Every slot is live.
            ConfigError: margin_ns or charge_us is negative, or `halt` no code.
        """
    def astray(self) -> list[int]:
        """
        The slots whose run must be rewound before its next step.
        """
    def close(self, slot: typing.SupportsInt | typing.SupportsIndex, reason: str, now_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Ends a run between two steps and publishes its closing record, with the same step_idx.
        
        Raises:
            ConfigError: The run has ended already, or `reason` is none of HALT_REASONS.
        """
    def energies(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [live], the energy of each live run's current state.
        """
    def observe(self, slot: typing.SupportsInt | typing.SupportsIndex, E: typing.SupportsFloat | typing.SupportsIndex, *, now_ns: typing.SupportsInt | typing.SupportsIndex, margin_ns: typing.SupportsInt | typing.SupportsIndex = 0, charge_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, feasible: bool = True, gap: typing.SupportsFloat | typing.SupportsIndex = 0.0, halt: typing.SupportsInt | typing.SupportsIndex = 0) -> str | None:
        """
        Hands a run its next state, and publishes that.
        
        Args:
            slot: Of the run.
            E: Energy of the state.
            now_ns: Monotonic time.
            margin_ns: Time that another step and finishing the answer take, >= 0.
            charge_us: Compute that led to the state, microseconds, >= 0.
            feasible: Whether the state is.
            gap: Its optimality gap.
            halt: Code of the halt reason with which the plugin ends the run here; 0: it leaves that to the policy. A state that
                has diverged ends its run as "diverged" all the same, but there is no rewind from a state at which the plugin
                ends the run.
        
        Returns:
            Why the run has ended with it, or None.
        
        Raises:
            ConfigError: The run has ended already, margin_ns or charge_us is negative, or `halt` no code.
        """
    def remove(self, slot: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Frees a slot; the last live run moves into the hole.
        
        Returns:
            Where the run that is in `slot` now came from; `slot` itself if it was the last.
        """
    def rewind(self, slot: typing.SupportsInt | typing.SupportsIndex, E: typing.SupportsFloat | typing.SupportsIndex, *, now_ns: typing.SupportsInt | typing.SupportsIndex, feasible: bool = True, branch: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Takes a run that went astray back to an earlier state, as another branch, and publishes that state.
        
        Its record has the step_idx of the state that was given up, and dE leads from that one to the restored state.
        
        Args:
            slot: One of `astray()`.
            E: Energy of the restored state.
            now_ns: Monotonic time.
            feasible: Whether the restored state is.
            branch: Names the branch in the records from here on.
        
        Raises:
            ConfigError: No rewind is due.
        """
    def set_budget(self, slot: typing.SupportsInt | typing.SupportsIndex, budget_us: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        """
        Moves the limit of what may be charged to a run, microseconds.
        
        Returns:
            Whether it pays for another step like the last one.
        
        Raises:
            ConfigError: It is negative or no number.
        """
    def spent_us(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [live], the compute charged to each live run, microseconds.
        """
    def summary_fields(self, slot: typing.SupportsInt | typing.SupportsIndex) -> tuple[int, int, float, float, float, int, str | None, float, float, float, float, float, bool, bool, int, int, bool]:
        """
        The run in a slot, as the fields of sage_edge.native.RunSummary.
        """
    @property
    def capacity(self) -> int:
        ...
    @property
    def live(self) -> int:
        ...
class StepForm:
    """
    The canonical JSON of a step with its changing fields left out.
    
    Args:
        texts: What stands before each field, and after the last.
        fields: Their names.
        knots: E_norm of the calibration, ascending; empty without one.
        qualities: The expected quality at each knot.
    
    Raises:
        ConfigError: A field is unknown, or there is not one text more than fields.
    """
    def __init__(self, texts: collections.abc.Sequence[str], fields: collections.abc.Sequence[str], knots: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], qualities: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        ...
class StepRun:
    """
    What is known of one run before its first step; see RunInfo.
    
    Args:
        form: Of its plugin; kept alive.
        request_id: As JSON, like `scene_id`.
    """
    def __init__(self, form: StepForm, *, request_id: str, scene_id: str, start_ns: typing.SupportsInt | typing.SupportsIndex, E_scale: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, trust_weight: typing.SupportsFloat | typing.SupportsIndex, power_w: typing.SupportsFloat | typing.SupportsIndex, deadline_ms: typing.SupportsFloat | typing.SupportsIndex | None, ATP_allocated: typing.SupportsFloat | typing.SupportsIndex | None, max_steps: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class ThreadPool:
    """
    Threads that stay, to share the work of latent_step.
    
    Args:
        threads: 1 to 256, the calling thread included.
    
    Raises:
        ConfigError: The number is out of range.
    """
    def __init__(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def threads(self) -> int:
        ...
class QpSolution:
    """
    One solved QP. Its arrays are views of its memory.
    """
    @property
    def certificate(self) -> typing.Any:
        """
        Why there is no solution, in place of y or x; None when there may be one.
        
        Of a primal infeasibility, float64 [m + n] y: A'y = 0, and the sum of y times the limit that its sign points to (upper
        where positive) is negative. Of a dual infeasibility, float64 [n] d: P d = 0, q'd < 0, and no limit stands against it.
        """
    @property
    def dual_residual(self) -> float:
        """
        max |P x + q + A'y|.
        """
    @property
    def gap(self) -> float:
        """
        |primal objective - dual objective|.
        """
    @property
    def iterations(self) -> int:
        """
        Changes of the active set plus ADMM steps.
        """
    @property
    def objective(self) -> float:
        """
        1/2 x'Px + q'x.
        """
    @property
    def primal_residual(self) -> float:
        """
        Largest violation of a limit.
        """
    @property
    def status(self) -> str:
        """
        'solved', 'max_iterations', 'primal_infeasible' or 'dual_infeasible'.
        """
    @property
    def x(self) -> numpy.ndarray:
        """
        float64 [n].
        """
    @property
    def y(self) -> numpy.ndarray:
        """
        float64 [m + n], multipliers of the rows of A and of the box: P x + q + A' y[:m] + y[m:] = 0, positive at an
        upper limit and negative at a lower one.
        """
class QpSolutions:
    """
    Many solved QPs of one solver; row i belongs to problem i.
    """
    def __len__(self) -> int:
        ...
    @property
    def dual_residual(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [count], a copy.
        """
    @property
    def gap(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [count], a copy.
        """
    @property
    def iterations(self) -> numpy.typing.NDArray[numpy.int64]:
        """
        int64 [count], a copy.
        """
    @property
    def objective(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [count], a copy.
        """
    @property
    def primal_residual(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [count], a copy.
        """
    @property
    def status(self) -> list[str]:
        """
        list of str [count], as of QpSolution.
        """
    @property
    def x(self) -> numpy.ndarray:
        """
        float64 [count, n], a view.
        """
    @property
    def y(self) -> numpy.ndarray:
        """
        float64 [count, m + n], a view.
        """
class QpRun:
    """
    A QP on its way: one state of ADMM, advanced by whoever holds it.
    
    One thread at a time.
    """
    def advance(self, iterations: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Takes so many ADMM steps, in place.
        """
    def copy(self) -> QpRun:
        """
        A run that goes its own way from here.
        """
    def finish(self) -> tuple[str, typing.Any]:
        """
        Looks for the exact solution from here, and goes on from it if its energy is lower.
        
        Returns:
            The status, 'solved', 'primal_infeasible', 'dual_infeasible' or 'running' (nothing better was found), and the
            certificate of a problem without a solution, as of QpSolution, or None.
        """
    def load(self, x: numpy.typing.NDArray[numpy.float64], y: numpy.typing.NDArray[numpy.float64] | None = None) -> None:
        """
        Goes on from x float64 [n] and y float64 [m + n] (None: 0); step size and step count stay.
        """
    def polish(self) -> bool:
        """
        Solves for the limits that look active, and takes the result if its energy is lower.
        
        Returns:
            Whether it was.
        """
    @property
    def dual_objective(self) -> float:
        """
        What no solution can fall below, where P is strictly convex; without the offset.
        """
    @property
    def dual_residual(self) -> float:
        """
        As of QpSolution.
        """
    @property
    def energy(self) -> float:
        """
        log10 of the larger of `gap` and `violation`, at least -16.
        """
    @property
    def feasible(self) -> bool:
        """
        Whether no limit is violated by more than eps in its own unit, nor by more than a tenth of it as `violation`.
        """
    @property
    def gap(self) -> float:
        """
        What is still to be gained, over the larger of the primal and the dual cost, offset included. A bound where P is
        strictly convex; elsewhere an estimate, and at least the dual residual over the size of its terms.
        """
    @property
    def iterations(self) -> int:
        """
        ADMM steps taken.
        """
    @property
    def objective(self) -> float:
        """
        1/2 x'Px + q'x.
        """
    @property
    def primal_residual(self) -> float:
        """
        As of QpSolution.
        """
    @property
    def violation(self) -> float:
        """
        Largest violation of a limit over the size of what the limits bound, in the scaled units of the solver.
        """
    @property
    def x(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [n], a copy.
        """
    @property
    def y(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        float64 [m + n], a copy; as of QpSolution.
        """
class QpSolver:
    """
    Solves min 1/2 x'Px + q'x s.t. l <= A x <= u, lb <= x <= ub, for one P and A.
    
    A dual active-set method while P is strictly convex and few limits are active; over-relaxed ADMM with polishing
    otherwise. What depends on P and A alone is kept from solve to solve. Threads take turns.
    
    Args:
        P: float64 [n, n], symmetric positive semidefinite, finite; copied.
        A: float64 [m, n], finite; copied. None: no rows.
        rho: First step size of ADMM, > 0.
        sigma: Its proximal weight, > 0.
        alpha: Its over-relaxation, in (0, 2).
    
    Raises:
        ShapeError: An array has the wrong shape, dtype or layout.
        ProblemError: P is not symmetric positive semidefinite, or not finite.
        ConfigError: An option is out of range.
    """
    def __init__(self, P: numpy.typing.NDArray[numpy.float64], A: numpy.typing.NDArray[numpy.float64] | None = None, *, rho: typing.SupportsFloat | typing.SupportsIndex = 0.1, sigma: typing.SupportsFloat | typing.SupportsIndex = 1e-06, alpha: typing.SupportsFloat | typing.SupportsIndex = 1.6) -> None:
        ...
    def solve(self, q: numpy.typing.NDArray[numpy.float64], l: numpy.typing.NDArray[numpy.float64] | None = None, u: numpy.typing.NDArray[numpy.float64] | None = None, lb: numpy.typing.NDArray[numpy.float64] | None = None, ub: numpy.typing.NDArray[numpy.float64] | None = None, *, x0: numpy.typing.NDArray[numpy.float64] | None = None, y0: numpy.typing.NDArray[numpy.float64] | None = None, eps: typing.SupportsFloat | typing.SupportsIndex = 0.001, eps_rel: typing.SupportsFloat | typing.SupportsIndex = 0.0, max_iter: typing.SupportsInt | typing.SupportsIndex = 4000) -> QpSolution:
        """
        Solves one QP, without the GIL.
        
        Args:
            q: float64 [n], finite.
            l: float64 [m], lower limits of A x, -inf where there is none; None: none at all.
            u: float64 [m], upper limits.
            lb: float64 [n], lower limits of x.
            ub: float64 [n], upper limits of x.
            x0: float64 [n], where ADMM begins; None: 0.
            y0: float64 [m + n], multipliers to begin with, and, where they are not 0, the limits that are taken as active
                first; None: 0.
            eps: Bound of the primal, dual and gap residuals, in the units of the problem.
            eps_rel: Added to that bound: this times the size of the terms that a residual is the difference of.
            max_iter: Most changes of the active set plus ADMM steps.
        
        Returns:
            The solution; look at its `status`.
        
        Raises:
            ShapeError: An array has the wrong shape, dtype or layout.
            ProblemError: NaN, or a lower limit above its upper one.
            ConfigError: eps, eps_rel or max_iter is negative.
        """
    def solve_many(self, q: numpy.typing.NDArray[numpy.float64], l: numpy.typing.NDArray[numpy.float64] | None = None, u: numpy.typing.NDArray[numpy.float64] | None = None, lb: numpy.typing.NDArray[numpy.float64] | None = None, ub: numpy.typing.NDArray[numpy.float64] | None = None, *, x0: numpy.typing.NDArray[numpy.float64] | None = None, y0: numpy.typing.NDArray[numpy.float64] | None = None, eps: typing.SupportsFloat | typing.SupportsIndex = 0.001, eps_rel: typing.SupportsFloat | typing.SupportsIndex = 0.0, max_iter: typing.SupportsInt | typing.SupportsIndex = 4000, pool: ThreadPool | None = None) -> QpSolutions:
        """
        Solves many QPs, shared among the threads of a pool, without the GIL.
        
        Args:
            q: float64 [count, n]. Every other array is as for `solve`, for all problems, or has one row for each.
            pool: Threads that help; None: the calling thread alone. The bits of a result depend neither on it nor on the other
                problems.
        
        Returns:
            The solutions, in order.
        
        Raises:
            As `solve`.
        """
    def start(self, q: numpy.typing.NDArray[numpy.float64], l: numpy.typing.NDArray[numpy.float64] | None = None, u: numpy.typing.NDArray[numpy.float64] | None = None, lb: numpy.typing.NDArray[numpy.float64] | None = None, ub: numpy.typing.NDArray[numpy.float64] | None = None, *, x0: numpy.typing.NDArray[numpy.float64] | None = None, y0: numpy.typing.NDArray[numpy.float64] | None = None, eps: typing.SupportsFloat | typing.SupportsIndex = 0.001, offset: typing.SupportsFloat | typing.SupportsIndex = 0.0) -> QpRun:
        """
        Begins ADMM on one QP, for the caller to advance.
        
        Args:
            As for `solve`; eps is the violation of a limit up to which an iterate counts as feasible.
            offset: A constant of the cost, which the gap is relative to.
        
        Returns:
            The run, at its first iterate. It keeps the solver alive and shares its factor while it can.
        
        Raises:
            As `solve`.
        """
    @property
    def m(self) -> int:
        """
        Number of rows of A.
        """
    @property
    def n(self) -> int:
        """
        Number of variables.
        """
    @property
    def strictly_convex(self) -> bool:
        """
        Whether P has a Cholesky factor, and with it the active-set method its use.
        """
def advance_many(runs: collections.abc.Sequence[QpRun], iterations: typing.SupportsInt | typing.SupportsIndex, pool: ThreadPool | None = None) -> None:
    """
    Advances different runs by so many ADMM steps each, shared among the threads of a pool, without the GIL.
    
    Raises:
        ConfigError: iterations is negative.
    """
def grid_way(cost: numpy.typing.NDArray[numpy.float64], first: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], last: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]) -> numpy.typing.NDArray[numpy.int64]:
    """
    The cheapest way over a grid, by A* over eight neighbours, without the GIL.
    
    Args:
        cost: float64 [rows, columns]: of a cell's width in each cell, at least 1; infinite where the cell is closed.
        first: Row and column of the cell to begin in; its cost counts as 1.
        last: Those of the cell to end in, likewise.
    
    Returns:
        int64 [cells, 2], row and column of each in order, both ends included; empty when there is no way. A diagonal step
        needs both of its sides open.
    
    Raises:
        ShapeError: `cost` has the wrong shape, dtype or layout, or a cell is outside of it.
    """
def halt_reason(history: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], policy: HaltPolicy, *, feasible: bool = True, gap: typing.SupportsFloat | typing.SupportsIndex = 0.0, spent_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, charge_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, now_ns: typing.SupportsInt | typing.SupportsIndex = 0, margin_ns: typing.SupportsInt | typing.SupportsIndex = 0) -> str | None:
    """
    The halting rule over the energies E_0 .. E_n (docs/IRP_PROTOCOL.md#3-halting).
    
    Args:
        history: Energies of all states so far, the current one last.
        policy: When to stop.
        feasible: Whether the current state is.
        gap: Its optimality gap.
        spent_us: Compute charged so far, microseconds.
        charge_us: What the next step is expected to cost, microseconds.
        now_ns: Monotonic time.
        margin_ns: Time that finishing the answer takes, >= 0.
    
    Returns:
        One of HALT_REASONS; None to go on.
    
    Raises:
        ShapeError: The history is empty.
    """
def halt_reasons() -> list[str | None]:
    """
    Wire names by code; none for code 0, still running.
    """
def latent_step(slots: SlotTable, z: numpy.typing.NDArray[numpy.float32], delta: numpy.typing.NDArray[numpy.float32], best: numpy.typing.NDArray[numpy.float32], *, step_size: numpy.typing.NDArray[numpy.float32], lo: typing.SupportsFloat | typing.SupportsIndex, hi: typing.SupportsFloat | typing.SupportsIndex, energy_terms: numpy.typing.NDArray[numpy.float32], now_ns: typing.SupportsInt | typing.SupportsIndex, margin_ns: typing.SupportsInt | typing.SupportsIndex = 0, tick_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, pool: ThreadPool | None = None) -> numpy.typing.NDArray[numpy.uint8]:
    """
    One step of every running run in `slots`, in one pass over memory and without the GIL.
    
    For each running slot:
    
        z        <- clamp(z + step_size * delta, lo, hi)
        residual  = ||z_new - z_old|| / max(||z_new||, 1e-12)
        E         = mean(energy_terms)
    
    then the run takes (E, residual) as its next state, is charged an equal share of tick_us, and its record is
    published. A row of delta that is not finite makes E NaN, and the run ends as "diverged".
    
    The best state of a slot is z[slot] if its summary says best_is_current, otherwise best[slot].
    
    The bits of the result depend neither on the pool, nor on the slot, nor on the other slots.
    
    Args:
        slots: The runs. Their capacity is the first axis of the arrays; only rows of running runs are touched.
        z: float32 [capacity, ...], C-contiguous: the states, updated in place.
        delta: float32 [>= live, ...], further axes those of z: the directions.
        best: float32, shape of z: where states are saved that are the best and about to be overwritten by worse.
        step_size: float32 [capacity].
        lo: Lower bound of z.
        hi: Upper bound of z, >= lo.
        energy_terms: float32 [>= live, M], the energy of the new states as the mean over M terms.
        now_ns: Monotonic time of the new states.
        margin_ns: Time that finishing an answer takes, >= 0.
        tick_us: What this tick cost, microseconds, >= 0.
        pool: Threads that help when there is enough to do; None: the calling thread alone.
    
    Returns:
        uint8 [live], the halt reason code of each live slot (an index into HALT_REASONS; 0: running). Runs that had ended
        before are left as they are.
    
    Raises:
        ShapeError: An array has the wrong shape, dtype or layout, or two share memory.
        ConfigError: A number is out of range.
    """
def protocol_reasons() -> list[str | None]:
    """
    The protocol's own word for each of `halt_reasons`, or the nearest that it has.
    """
def record_dtype() -> numpy.dtype[numpy.void]:
    """
    The 64 bytes of a telemetry record as a NumPy dtype.
    """
def solve_chain_qp(P: numpy.typing.NDArray[numpy.float64], q: numpy.typing.NDArray[numpy.float64], lb: numpy.typing.NDArray[numpy.float64], ub: numpy.typing.NDArray[numpy.float64], A: numpy.typing.NDArray[numpy.float64] | None = None, l: numpy.typing.NDArray[numpy.float64] | None = None, u: numpy.typing.NDArray[numpy.float64] | None = None, *, closed: bool) -> tuple[numpy.typing.NDArray[numpy.float64], float]:
    """
    Solves min 1/2 x'Px + q'x with lb <= x <= ub and l < A x < u on a chain, without the GIL.
    
    A variable meets the next two alone, on a closed chain the last two the first; so the time grows with the number of
    variables, and it is bounded: an interior-point method of at most 60 iterations.
    
    Args:
        P: float64 [3, n]; P[k, i] couples variables i and i + k. Semidefinite.
        q: float64 [n].
        lb: float64 [n], -inf where there is no limit.
        ub: float64 [n]; where it is lb, the variable is fixed.
        A: float64 [n - 2, 3], row r of the variables r, r + 1, r + 2; on a closed chain [n, 3], row r of r - 1, r, r + 1.
            None: no rows.
        l: float64 [rows].
        u: float64 [rows].
        closed: Whether the chain is.
    
    Returns:
        x float64 [n], between its bounds, of rows that cannot be kept a compromise; and its cost.
    
    Raises:
        ShapeError: An array has the wrong shape, dtype or layout.
    """
def solve_qp(P: numpy.typing.NDArray[numpy.float64], q: numpy.typing.NDArray[numpy.float64], A: numpy.typing.NDArray[numpy.float64] | None = None, l: numpy.typing.NDArray[numpy.float64] | None = None, u: numpy.typing.NDArray[numpy.float64] | None = None, lb: numpy.typing.NDArray[numpy.float64] | None = None, ub: numpy.typing.NDArray[numpy.float64] | None = None, *, x0: numpy.typing.NDArray[numpy.float64] | None = None, y0: numpy.typing.NDArray[numpy.float64] | None = None, eps: typing.SupportsFloat | typing.SupportsIndex = 0.001, eps_rel: typing.SupportsFloat | typing.SupportsIndex = 0.0, max_iter: typing.SupportsInt | typing.SupportsIndex = 4000) -> QpSolution:
    """
    QpSolver(P, A).solve(...) in one call.
    """
def trust_statistics(history: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> tuple[float, float, float, int]:
    """
    Trust statistics of the energies E_0 .. E_n; see sage_edge.native.trust_statistics.
    """
def write_steps(records: numpy.typing.NDArray[numpy.void], *, runs: list[StepRun | None], extras: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, str], board: str, seq: typing.SupportsInt | typing.SupportsIndex, unix_offset_ns: typing.SupportsInt | typing.SupportsIndex) -> list[tuple[bytes, bytes] | str | None]:
    """
    The canonical JSON of steps, without the GIL.
    
    Args:
        records: RECORD_DTYPE [n], in the order of the mailbox.
        runs: The run of each; None where it is not known.
        extras: What plugins add, as JSON, by the record's place in `records`.
        board: What final records tell of the board, as JSON.
        seq: Of the first record; the others follow.
        unix_offset_ns: Unix time minus the loop's clock.
    
    Returns:
        For each record the text before and after the value of `prev_hash`, without `record_hash`; the path of a field
        that is out of range; or None without a run.
    
    Raises:
        ShapeError: The records are none, or not as many as the runs.
    """
