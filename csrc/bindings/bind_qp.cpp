#include <pybind11/stl.h>

#include <memory>
#include <mutex>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "core/thread_pool.h"
#include "kernels/qp_solver.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Doubles = Array<double>;
using MaybeDoubles = std::optional<Doubles>;

constexpr const char* kStatusNames[] = {"running", "solved", "max_iterations", "primal_infeasible",
                                        "dual_infeasible"};

const double* data(const Doubles& array) { return static_cast<const double*>(array.data()); }

const double* vector_of(const Doubles& array, const char* name, std::size_t length) {
  const bool plain = array.ndim() == 1 && array.shape(0) == static_cast<py::ssize_t>(length) &&
                     py::array_t<double, py::array::c_style>::check_(array);
  if (!plain) require_array(array, name, {{static_cast<py::ssize_t>(length)}});
  return data(array);
}

const double* vector_or_null(const MaybeDoubles& array, const char* name, std::size_t length) {
  return array ? vector_of(*array, name, length) : nullptr;
}

/// A solver, and the lock that lets Python threads take turns.
struct Solver {
  Solver(const double* P, const double* A, std::size_t n, std::size_t m, const AdmmOptions& options)
      : core(P, A, n, m, options) {}

  std::size_t n() const { return core.matrices().n(); }
  std::size_t m() const { return core.matrices().m(); }
  std::size_t limits() const { return core.matrices().limits(); }

  QpSolver core;
  std::mutex turn;
};

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

/// Results of `count` QPs in one block each.
struct Solutions {
  Solutions(std::size_t count, std::size_t n_, std::size_t m_)
      : n(n_), m(m_), x(count * n), y(count * (m + n)), outputs(count) {
    for (std::size_t i = 0; i < count; ++i) {
      outputs[i].x = x.data() + i * n;
      outputs[i].y = y.data() + i * (m + n);
    }
  }

  std::size_t n;
  std::size_t m;
  Packs x;
  Packs y;
  std::vector<QpOutput> outputs;
};

struct Solution : Solutions {
  Solution(std::size_t n_, std::size_t m_) : Solutions(1, n_, m_) {}
  const QpOutput& only() const { return outputs[0]; }
};

/// A view of a solution's memory, which `self` keeps alive.
py::array view(const py::object& self, double* values, std::vector<std::size_t> shape) {
  return py::array_t<double>(std::move(shape), values, self);
}

py::object certificate(const py::object& self) {
  auto& solution = self.cast<Solution&>();
  const QpStatus status = solution.only().status;
  if (status == QpStatus::kPrimalInfeasible) {
    return view(self, solution.y.data(), {solution.m + solution.n});
  }
  if (status == QpStatus::kDualInfeasible) return view(self, solution.x.data(), {solution.n});
  return py::none();
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

/// An array with one number of each solution.
template <class T, class Get>
py::array_t<T> each(const Solutions& found, const Get& get) {
  py::array_t<T> out(static_cast<py::ssize_t>(found.outputs.size()));
  for (std::size_t i = 0; i < found.outputs.size(); ++i)
    out.mutable_data()[i] = static_cast<T>(get(found.outputs[i]));
  return out;
}

/// A state of ADMM and what it needs to stay alive.
struct QpRun {
  std::shared_ptr<Solver> solver;
  AdmmState state;
  double eps;

  bool feasible() const { return state.residuals().primal <= eps; }
  double gap() const { return state.residuals().gap / state.residuals().gap_scale; }
};

std::unique_ptr<QpRun> start(const std::shared_ptr<Solver>& solver, const Doubles& q, const MaybeDoubles& l,
                             const MaybeDoubles& u, const MaybeDoubles& lb, const MaybeDoubles& ub,
                             const MaybeDoubles& x0, const MaybeDoubles& y0, double eps) {
  const QpInput input = input_of(*solver, q, l, u, lb, ub, x0, y0);
  require_not_negative(eps, "eps");
  const py::gil_scoped_release release;
  const std::lock_guard<std::mutex> lock(solver->turn);
  return std::make_unique<QpRun>(QpRun{solver, solver->core.start(input), eps});
}

py::array_t<double> copy_of(const double* values, std::size_t count) {
  return py::array_t<double>(static_cast<py::ssize_t>(count), values);
}

void load(QpRun& run, const Doubles& x, const MaybeDoubles& y) {
  run.state.move_to(vector_of(x, "x", run.solver->n()), vector_or_null(y, "y", run.solver->limits()));
}

void advance_many(const std::vector<QpRun*>& runs, std::int64_t iterations, std::optional<ThreadPool*> pool) {
  require_not_negative(iterations, "iterations");
  const py::gil_scoped_release release;
  for_ranges(pool.value_or(nullptr), runs.size(), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) runs[i]->state.advance(static_cast<std::size_t>(iterations));
  });
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

void bind_qp(py::module_& module) {
  py::class_<Solution>(module, "QpSolution", "One solved QP. Its arrays are views of its memory.")
      .def_property_readonly(
          "x",
          [](const py::object& self) {
            auto& s = self.cast<Solution&>();
            return view(self, s.x.data(), {s.n});
          },
          "float64 [n].")
      .def_property_readonly(
          "y",
          [](const py::object& self) {
            auto& s = self.cast<Solution&>();
            return view(self, s.y.data(), {s.m + s.n});
          },
          R"(float64 [m + n], multipliers of the rows of A and of the box: P x + q + A' y[:m] + y[m:] = 0, positive at an
upper limit and negative at a lower one.)")
      .def_property_readonly(
          "status",
          [](const Solution& self) { return kStatusNames[static_cast<std::size_t>(self.only().status)]; },
          "'solved', 'max_iterations', 'primal_infeasible' or 'dual_infeasible'.")
      .def_property_readonly(
          "iterations", [](const Solution& self) { return self.only().iterations; },
          "Changes of the active set plus ADMM steps.")
      .def_property_readonly(
          "primal_residual", [](const Solution& self) { return self.only().residuals.primal; },
          "Largest violation of a limit.")
      .def_property_readonly(
          "dual_residual", [](const Solution& self) { return self.only().residuals.dual; },
          "max |P x + q + A'y|.")
      .def_property_readonly(
          "gap", [](const Solution& self) { return self.only().residuals.gap; },
          "|primal objective - dual objective|.")
      .def_property_readonly(
          "objective", [](const Solution& self) { return self.only().residuals.objective; },
          "1/2 x'Px + q'x.")
      .def_property_readonly("certificate", &certificate,
                             R"(Why there is no solution, in place of y or x; None when there may be one.

Of a primal infeasibility, float64 [m + n] y: A'y = 0, and the sum of y times the limit that its sign points to (upper
where positive) is negative. Of a dual infeasibility, float64 [n] d: P d = 0, q'd < 0, and no limit stands against it.)");

  py::class_<Solutions>(module, "QpSolutions", "Many solved QPs of one solver; row i belongs to problem i.")
      .def("__len__", [](const Solutions& self) { return self.outputs.size(); })
      .def_property_readonly(
          "x",
          [](const py::object& self) {
            auto& s = self.cast<Solutions&>();
            return view(self, s.x.data(), {s.outputs.size(), s.n});
          },
          "float64 [count, n], a view.")
      .def_property_readonly(
          "y",
          [](const py::object& self) {
            auto& s = self.cast<Solutions&>();
            return view(self, s.y.data(), {s.outputs.size(), s.m + s.n});
          },
          "float64 [count, m + n], a view.")
      .def_property_readonly(
          "status",
          [](const Solutions& self) {
            std::vector<std::string> names;
            for (const QpOutput& output : self.outputs) {
              names.emplace_back(kStatusNames[static_cast<std::size_t>(output.status)]);
            }
            return names;
          },
          "list of str [count], as of QpSolution.")
      .def_property_readonly(
          "iterations",
          [](const Solutions& self) {
            return each<std::int64_t>(self, [](const QpOutput& output) { return output.iterations; });
          },
          "int64 [count], a copy.")
      .def_property_readonly(
          "primal_residual",
          [](const Solutions& self) {
            return each<double>(self, [](const QpOutput& output) { return output.residuals.primal; });
          },
          "float64 [count], a copy.")
      .def_property_readonly(
          "dual_residual",
          [](const Solutions& self) {
            return each<double>(self, [](const QpOutput& output) { return output.residuals.dual; });
          },
          "float64 [count], a copy.")
      .def_property_readonly(
          "gap",
          [](const Solutions& self) {
            return each<double>(self, [](const QpOutput& output) { return output.residuals.gap; });
          },
          "float64 [count], a copy.")
      .def_property_readonly(
          "objective",
          [](const Solutions& self) {
            return each<double>(self, [](const QpOutput& output) { return output.residuals.objective; });
          },
          "float64 [count], a copy.");

  py::class_<QpRun>(module, "QpRun", R"(A QP on its way: one state of ADMM, advanced by whoever holds it.

One thread at a time.)")
      .def(
          "advance", [](QpRun& run, std::size_t iterations) { run.state.advance(iterations); },
          py::arg("iterations"), py::call_guard<py::gil_scoped_release>(),
          "Takes so many ADMM steps, in place.")
      .def(
          "polish", [](QpRun& run) { return run.state.polish(); }, py::call_guard<py::gil_scoped_release>(),
          R"(Solves for the limits that look active, and takes the result if its energy is lower.

Returns:
    Whether it was.)")
      .def(
          "copy",
          [](QpRun& run) { return std::make_unique<QpRun>(QpRun{run.solver, run.state.fork(), run.eps}); },
          "A run that goes its own way from here.")
      .def("load", &load, py::arg("x"), py::arg("y") = py::none(),
           "Goes on from x float64 [n] and y float64 [m + n] (None: 0); step size and step count stay.")
      .def_property_readonly(
          "x", [](const QpRun& run) { return copy_of(run.state.x(), run.solver->n()); },
          "float64 [n], a copy.")
      .def_property_readonly(
          "y", [](const QpRun& run) { return copy_of(run.state.y(), run.solver->limits()); },
          "float64 [m + n], a copy; as of QpSolution.")
      .def_property_readonly(
          "iterations", [](const QpRun& run) { return run.state.iterations(); }, "ADMM steps taken.")
      .def_property_readonly(
          "energy", [](const QpRun& run) { return run.state.residuals().energy(); },
          "log10 of the largest residual over the size of its terms, at least -16.")
      .def_property_readonly("feasible", &QpRun::feasible, "Whether no limit is violated by more than eps.")
      .def_property_readonly("gap", &QpRun::gap, "Duality gap over the size of its terms.")
      .def_property_readonly(
          "primal_residual", [](const QpRun& run) { return run.state.residuals().primal; },
          "As of QpSolution.")
      .def_property_readonly(
          "dual_residual", [](const QpRun& run) { return run.state.residuals().dual; }, "As of QpSolution.")
      .def_property_readonly(
          "objective", [](const QpRun& run) { return run.state.residuals().objective; }, "1/2 x'Px + q'x.");

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
           py::arg("y0") = py::none(), py::arg("eps") = 1e-3,
           R"(Begins ADMM on one QP, for the caller to advance.

Args:
    As for `solve`; eps is the violation of a limit up to which an iterate counts as feasible.

Returns:
    The run, at its first iterate. It keeps the solver alive and shares its factor while it can.

Raises:
    As `solve`.)");

  module.def("solve_qp", &solve_qp, py::arg("P"), py::arg("q"), py::arg("A") = py::none(),
             py::arg("l") = py::none(), py::arg("u") = py::none(), py::arg("lb") = py::none(),
             py::arg("ub") = py::none(), py::kw_only(), py::arg("x0") = py::none(),
             py::arg("y0") = py::none(), py::arg("eps") = 1e-3, py::arg("eps_rel") = 0.0,
             py::arg("max_iter") = 4000, "QpSolver(P, A).solve(...) in one call.");

  module.def(
      "advance_many", &advance_many, py::arg("runs"), py::arg("iterations"), py::arg("pool") = py::none(),
      R"(Advances different runs by so many ADMM steps each, shared among the threads of a pool, without the GIL.

Raises:
    ConfigError: iterations is negative.)");
}

}  // namespace sage::bindings
