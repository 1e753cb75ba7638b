#include <pybind11/stl.h>

#include <string>

#include "bindings/module.h"
#include "bindings/qp.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

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

/// An array with one number of each solution.
template <class T, class Get>
py::array_t<T> each(const Solutions& found, const Get& get) {
  py::array_t<T> out(static_cast<py::ssize_t>(found.outputs.size()));
  for (std::size_t i = 0; i < found.outputs.size(); ++i)
    out.mutable_data()[i] = static_cast<T>(get(found.outputs[i]));
  return out;
}

}  // namespace

void bind_qp_solution(py::module_& module) {
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
}

}  // namespace sage::bindings
