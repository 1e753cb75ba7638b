#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "bindings/module.h"
#include "bindings/qp.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

py::array_t<double> copy_of(const double* values, std::size_t count) {
  return py::array_t<double>(static_cast<py::ssize_t>(count), values);
}

void load(QpRun& run, const Doubles& x, const MaybeDoubles& y) {
  run.state.move_to(vector_of(x, "x", run.solver->n()), vector_or_null(y, "y", run.solver->limits()));
}

/// The status, and a certificate where it is one of a problem without a solution.
std::pair<std::string, py::object> finish(QpRun& run) {
  const std::size_t n = run.solver->n();
  const std::size_t limits = run.solver->limits();
  Packs x(packed(n), 0.0), y(packed(limits), 0.0);
  QpStatus status;
  {
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(run.solver->finishing);
    status = run.solver->core.finish(run.state, x.data(), y.data());
  }
  py::object certificate = py::none();
  if (status == QpStatus::kPrimalInfeasible) certificate = copy_of(y.data(), limits);
  if (status == QpStatus::kDualInfeasible) certificate = copy_of(x.data(), n);
  return {kStatusNames[static_cast<std::size_t>(status)], certificate};
}

void advance_many(const std::vector<QpRun*>& runs, std::int64_t iterations, std::optional<ThreadPool*> pool) {
  require_not_negative(iterations, "iterations");
  const py::gil_scoped_release release;
  for_ranges(pool.value_or(nullptr), runs.size(), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) runs[i]->state.advance(static_cast<std::size_t>(iterations));
  });
}

}  // namespace

void bind_qp_run(py::module_& module) {
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
      .def("finish", &finish,
           R"(Looks for the exact solution from here, and goes on from it if its energy is lower.

Returns:
    The status, 'solved', 'primal_infeasible', 'dual_infeasible' or 'running' (nothing better was found), and the
    certificate of a problem without a solution, as of QpSolution, or None.)")
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
          "energy", [](const QpRun& run) { return run.state.standing().energy(); },
          "log10 of the larger of `gap` and `violation`, at least -16.")
      .def_property_readonly("feasible", &QpRun::feasible,
                             "Whether no limit is violated by more than eps in its own unit, nor by more "
                             "than a tenth of it as `violation`.")
      .def_property_readonly(
          "violation", [](const QpRun& run) { return run.state.standing().violation; },
          "Largest violation of a limit over the size of what the limits bound, in the scaled units of the "
          "solver.")
      .def_property_readonly(
          "gap", [](const QpRun& run) { return run.state.standing().gap; },
          R"(What is still to be gained, over the larger of the primal and the dual cost, offset included. A bound where P is
strictly convex; elsewhere an estimate, and at least the dual residual over the size of its terms.)")
      .def_property_readonly(
          "dual_objective", [](const QpRun& run) { return run.state.standing().dual_objective; },
          "What no solution can fall below, where P is strictly convex; without the offset.")
      .def_property_readonly(
          "primal_residual", [](const QpRun& run) { return run.state.residuals().primal; },
          "As of QpSolution.")
      .def_property_readonly(
          "dual_residual", [](const QpRun& run) { return run.state.residuals().dual; }, "As of QpSolution.")
      .def_property_readonly(
          "objective", [](const QpRun& run) { return run.state.residuals().objective; }, "1/2 x'Px + q'x.");

  module.def(
      "advance_many", &advance_many, py::arg("runs"), py::arg("iterations"), py::arg("pool") = py::none(),
      R"(Advances different runs by so many ADMM steps each, shared among the threads of a pool, without the GIL.

Raises:
    ConfigError: iterations is negative.)");
}

}  // namespace sage::bindings
