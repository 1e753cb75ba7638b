#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "kernels/chain_qp.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Doubles = Array<double>;
using MaybeDoubles = std::optional<Doubles>;

std::tuple<py::array_t<double>, double> solve(const Doubles& P, const Doubles& q, const Doubles& lb,
                                              const Doubles& ub, const MaybeDoubles& A, const MaybeDoubles& l,
                                              const MaybeDoubles& u, bool closed) {
  require_array(q, "q", {{closed ? 5 : 1, true}});
  const py::ssize_t n = q.shape(0);
  require_array(P, "P", {{3}, {n}});
  require_array(lb, "lb", {{n}});
  require_array(ub, "ub", {{n}});
  ChainQp problem{static_cast<std::size_t>(n), closed, data(P), data(q), data(lb), data(ub)};
  if (A && l && u) {
    const py::ssize_t m = closed ? n : std::max<py::ssize_t>(n - 2, 0);
    require_array(*A, "A", {{m}, {3}});
    require_array(*l, "l", {{m}});
    require_array(*u, "u", {{m}});
    problem.m = static_cast<std::size_t>(m);
    problem.A = data(*A);
    problem.l = data(*l);
    problem.u = data(*u);
  }
  py::array_t<double> x(n);
  double* out = x.mutable_data();
  const double cost = [&] {
    const py::gil_scoped_release release;
    return solve_chain_qp(problem, out);
  }();
  return {x, cost};
}

}  // namespace

void bind_chain_qp(py::module_& module) {
  module.def("solve_chain_qp", &solve, py::arg("P"), py::arg("q"), py::arg("lb"), py::arg("ub"),
             py::arg("A") = py::none(), py::arg("l") = py::none(), py::arg("u") = py::none(), py::kw_only(),
             py::arg("closed"),
             R"(Solves min 1/2 x'Px + q'x with lb <= x <= ub and l < A x < u on a chain, without the GIL.

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
    ShapeError: An array has the wrong shape, dtype or layout.)");
}

}  // namespace sage::bindings
