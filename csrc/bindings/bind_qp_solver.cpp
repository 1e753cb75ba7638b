#include <pybind11/stl.h>

#include "bindings/module.h"
#include "bindings/qp.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

/// P [n, n] and A [m, n], checked.
std::shared_ptr<Solver> make_solver(const Doubles& P, const MaybeDoubles& A, const AdmmOptions& options) {
  require_array(P, "P", {{1, true}, {1, true}});
  const py::ssize_t n = P.shape(0);
  require_array(P, "P", {{n}, {n}});
  if (A) require_array(*A, "A", {{0, true}, {n}});
  const double* rows = A ? data(*A) : nullptr;
  const auto m = static_cast<std::size_t>(A ? A->shape(0) : 0);
  const py::gil_scoped_release release;
  return std::make_shared<Solver>(data(P), rows, static_cast<std::size_t>(n), m, options);
}

QpInput input_of(const Solver& solver, const Doubles& q, const MaybeDoubles& l, const MaybeDoubles& u,
                 const MaybeDoubles& lb, const MaybeDoubles& ub, const MaybeDoubles& x0,
                 const MaybeDoubles& y0) {
  QpInput input{vector_of(q, "q", solver.n())};
  input.l = vector_or_null(l, "l", solver.m());
  input.u = vector_or_null(u, "u", solver.m());
  input.lb = vector_or_null(lb, "lb", solver.n());
  input.ub = vector_or_null(ub, "ub", solver.n());
  input.x0 = vector_or_null(x0, "x0", solver.n());
  input.y0 = vector_or_null(y0, "y0", solver.limits());
  return input;
}

QpGoal goal_of(double eps, double eps_rel, std::int64_t max_iter) {
  require_not_negative(eps, "eps");
  require_not_negative(eps_rel, "eps_rel");
  require_not_negative(max_iter, "max_iter");
  return {eps, eps_rel, static_cast<std::size_t>(max_iter)};
}

using One = std::unique_ptr<Solution>;

One solve_one(Solver& solver, const QpInput& input, const QpGoal& goal) {
  auto found = std::make_unique<Solution>(solver.n(), solver.m());
  const py::gil_scoped_release release;
  const std::lock_guard<std::mutex> lock(solver.turn);
  solver.core.solve(input, goal, found->outputs[0]);
  return found;
}

One solve(Solver& solver, const Doubles& q, const MaybeDoubles& l, const MaybeDoubles& u,
          const MaybeDoubles& lb, const MaybeDoubles& ub, const MaybeDoubles& x0, const MaybeDoubles& y0,
          double eps, double eps_rel, std::int64_t max_iter) {
  return solve_one(solver, input_of(solver, q, l, u, lb, ub, x0, y0), goal_of(eps, eps_rel, max_iter));
}

One solve_qp(const Doubles& P, const Doubles& q, const MaybeDoubles& A, const MaybeDoubles& l,
             const MaybeDoubles& u, const MaybeDoubles& lb, const MaybeDoubles& ub, const MaybeDoubles& x0,
             const MaybeDoubles& y0, double eps, double eps_rel, std::int64_t max_iter) {
  const std::shared_ptr<Solver> solver = make_solver(P, A, {});
  return solve(*solver, q, l, u, lb, ub, x0, y0, eps, eps_rel, max_iter);
}

/// One vector for all, or a row for each.
struct Rows {
  Rows(const MaybeDoubles& array, const char* name, py::ssize_t count, std::size_t length) {
    if (!array) return;
    const auto width = static_cast<py::ssize_t>(length);
    const bool shared = array->ndim() == 1;
    require_array(*array, name, shared ? std::vector<Axis>{{width}} : std::vector<Axis>{{count}, {width}});
    first = data(*array);
    stride = shared ? 0 : length;
  }
  const double* at(std::size_t i) const { return first == nullptr ? nullptr : first + i * stride; }

  const double* first = nullptr;
  std::size_t stride = 0;
};

std::unique_ptr<Solutions> solve_many(Solver& solver, const Doubles& q, const MaybeDoubles& l,
                                      const MaybeDoubles& u, const MaybeDoubles& lb, const MaybeDoubles& ub,
                                      const MaybeDoubles& x0, const MaybeDoubles& y0, double eps,
                                      double eps_rel, std::int64_t max_iter,
                                      std::optional<ThreadPool*> pool) {
  require_array(q, "q", {{0, true, "problems"}, {static_cast<py::ssize_t>(solver.n())}});
  const py::ssize_t count = q.shape(0);
  const Rows lower(l, "l", count, solver.m()), upper(u, "u", count, solver.m());
  const Rows box_lower(lb, "lb", count, solver.n()), box_upper(ub, "ub", count, solver.n());
  const Rows x_start(x0, "x0", count, solver.n()), y_start(y0, "y0", count, solver.limits());
  const QpGoal goal = goal_of(eps, eps_rel, max_iter);
  std::vector<QpInput> inputs;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    inputs.push_back({data(q) + i * solver.n(), lower.at(i), upper.at(i), box_lower.at(i), box_upper.at(i),
                      x_start.at(i), y_start.at(i)});
  }
  auto found = std::make_unique<Solutions>(inputs.size(), solver.n(), solver.m());
  const py::gil_scoped_release release;
  const std::lock_guard<std::mutex> lock(solver.turn);
  solver.core.solve_many(inputs.data(), inputs.size(), goal, pool.value_or(nullptr), found->outputs.data());
  return found;
}

std::unique_ptr<QpRun> start(const std::shared_ptr<Solver>& solver, const Doubles& q, const MaybeDoubles& l,
                             const MaybeDoubles& u, const MaybeDoubles& lb, const MaybeDoubles& ub,
                             const MaybeDoubles& x0, const MaybeDoubles& y0, double eps, double offset) {
  const QpInput input = input_of(*solver, q, l, u, lb, ub, x0, y0);
  require_not_negative(eps, "eps");
  const py::gil_scoped_release release;
  const std::lock_guard<std::mutex> lock(solver->turn);
  return std::make_unique<QpRun>(QpRun{solver, solver->core.start(input, offset), eps});
}

constexpr const char* kSolve = R"(Solves one QP, without the GIL.

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
    ConfigError: eps, eps_rel or max_iter is negative.)";

}  // namespace

void bind_qp_solver(py::module_& module) {
  py::class_<Solver, std::shared_ptr<Solver>>(
      module, "QpSolver",
      R"(Solves min 1/2 x'Px + q'x s.t. l <= A x <= u, lb <= x <= ub, for one P and A.

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
    ConfigError: An option is out of range.)")
      .def(py::init([](const Doubles& P, const MaybeDoubles& A, double rho, double sigma, double alpha) {
             return make_solver(P, A, {rho, sigma, alpha});
           }),
           py::arg("P"), py::arg("A") = py::none(), py::kw_only(), py::arg("rho") = 0.1,
           py::arg("sigma") = 1e-6, py::arg("alpha") = 1.6)
      .def_property_readonly("n", &Solver::n, "Number of variables.")
      .def_property_readonly("m", &Solver::m, "Number of rows of A.")
      .def_property_readonly(
          "strictly_convex", [](const Solver& self) { return self.core.strictly_convex(); },
          "Whether P has a Cholesky factor, and with it the active-set method its use.")
      .def("solve", &solve, py::arg("q"), py::arg("l") = py::none(), py::arg("u") = py::none(),
           py::arg("lb") = py::none(), py::arg("ub") = py::none(), py::kw_only(), py::arg("x0") = py::none(),
           py::arg("y0") = py::none(), py::arg("eps") = 1e-3, py::arg("eps_rel") = 0.0,
           py::arg("max_iter") = 4000, kSolve)
      .def("solve_many", &solve_many, py::arg("q"), py::arg("l") = py::none(), py::arg("u") = py::none(),
           py::arg("lb") = py::none(), py::arg("ub") = py::none(), py::kw_only(), py::arg("x0") = py::none(),
           py::arg("y0") = py::none(), py::arg("eps") = 1e-3, py::arg("eps_rel") = 0.0,
           py::arg("max_iter") = 4000, py::arg("pool") = py::none(),
           R"(Solves many QPs, shared among the threads of a pool, without the GIL.

Args:
    q: float64 [count, n]. Every other array is as for `solve`, for all problems, or has one row for each.
    pool: Threads that help; None: the calling thread alone. The bits of a result depend neither on it nor on the other
        problems.

Returns:
    The solutions, in order.

Raises:
    As `solve`.)")
      .def("start", &start, py::arg("q"), py::arg("l") = py::none(), py::arg("u") = py::none(),
           py::arg("lb") = py::none(), py::arg("ub") = py::none(), py::kw_only(), py::arg("x0") = py::none(),
           py::arg("y0") = py::none(), py::arg("eps") = 1e-3, py::arg("offset") = 0.0,
           R"(Begins ADMM on one QP, for the caller to advance.

Args:
    As for `solve`; eps is the violation of a limit up to which an iterate counts as feasible.
    offset: A constant of the cost, which the gap is relative to.

Returns:
    The run, at its first iterate. It keeps the solver alive and shares its factor while it can.

Raises:
    As `solve`.)");

  module.def("solve_qp", &solve_qp, py::arg("P"), py::arg("q"), py::arg("A") = py::none(),
             py::arg("l") = py::none(), py::arg("u") = py::none(), py::arg("lb") = py::none(),
             py::arg("ub") = py::none(), py::kw_only(), py::arg("x0") = py::none(),
             py::arg("y0") = py::none(), py::arg("eps") = 1e-3, py::arg("eps_rel") = 0.0,
             py::arg("max_iter") = 4000, "QpSolver(P, A).solve(...) in one call.");
}

}  // namespace sage::bindings
