#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <tuple>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "kernels/horizon.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Doubles = Array<double>;

std::unique_ptr<Horizon> make_horizon(const Doubles& A, const Doubles& B, const Doubles& Q, const Doubles& QN,
                                      const Doubles& R, const Doubles& gain, const Doubles& spread,
                                      const Doubles& settle, const Doubles& x_min, const Doubles& x_max,
                                      const Doubles& u_min, const Doubles& u_max) {
  require_array(B, "B", {{1, true}, {1, true}});
  const py::ssize_t nx = B.shape(0), nu = B.shape(1);
  require_array(gain, "gain", {{1, true}, {nu}, {nx}});
  const py::ssize_t N = gain.shape(0);
  require_array(A, "A", {{nx}, {nx}});
  require_array(Q, "Q", {{nx}, {nx}});
  require_array(QN, "QN", {{nx}, {nx}});
  require_array(R, "R", {{nu}, {nu}});
  require_array(spread, "spread", {{N}, {nu}, {nu}});
  require_array(settle, "settle", {{N}, {nu}, {nu}});
  require_array(x_min, "x_min", {{nx}});
  require_array(x_max, "x_max", {{nx}});
  require_array(u_min, "u_min", {{nu}});
  require_array(u_max, "u_max", {{nu}});
  const auto size = [](py::ssize_t count) { return static_cast<std::size_t>(count); };
  return std::make_unique<Horizon>(Horizon::Parts{size(N), size(nx), size(nu), data(A), data(B), data(Q),
                                                  data(QN), data(R), data(gain), data(spread), data(settle),
                                                  data(x_min), data(x_max), data(u_min), data(u_max)});
}

py::ssize_t signed_size(std::size_t count) { return static_cast<py::ssize_t>(count); }

py::array_t<double> lead(const Horizon& self, const Doubles& x_ref, const Doubles& u_ref) {
  require_array(x_ref, "x_ref", {{signed_size(self.N())}, {signed_size(self.nx())}});
  require_array(u_ref, "u_ref", {{signed_size(self.N())}, {signed_size(self.nu())}});
  py::array_t<double> out({self.N(), self.nu()});
  self.lead(data(x_ref), data(u_ref), out.mutable_data());
  return out;
}

using Played = std::tuple<py::array_t<double>, py::array_t<double>, double, double>;

Played play(const Horizon& self, const Doubles& x0, const Doubles& lead, const std::optional<Doubles>& w,
            const Doubles& x_ref, const Doubles& u_ref, bool clips) {
  const py::ssize_t N = signed_size(self.N()), nx = signed_size(self.nx()), nu = signed_size(self.nu());
  require_array(x0, "x0", {{nx}});
  require_array(lead, "lead", {{N}, {nu}});
  if (w) require_array(*w, "w", {{N * nu}});
  require_array(x_ref, "x_ref", {{N}, {nx}});
  require_array(u_ref, "u_ref", {{N}, {nu}});
  py::array_t<double> x({N + 1, nx}), u({N, nu});
  const Horizon::Outcome outcome = self.play(data(x0), data(lead), w ? data(*w) : nullptr, data(x_ref),
                                             data(u_ref), clips, x.mutable_data(), u.mutable_data());
  return {x, u, outcome.cost, outcome.excess};
}

}  // namespace

void bind_horizon(py::module_& module) {
  py::class_<Horizon>(module, "Horizon",
                      R"(A linear plant x[k + 1] = A x[k] + B u[k] over N stages, played under feedback:

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
    ShapeError: An array has the wrong shape, dtype or layout.)")
      .def(py::init(&make_horizon), py::arg("A"), py::arg("B"), py::arg("Q"), py::arg("QN"), py::arg("R"),
           py::arg("gain"), py::arg("spread"), py::arg("settle"), py::arg("x_min"), py::arg("x_max"),
           py::arg("u_min"), py::arg("u_max"))
      .def("lead", &lead, py::arg("x_ref"), py::arg("u_ref"),
           "float64 [N, nu]: the lead that is best for references float64 [N, nx] and [N, nu].")
      .def(
          "play", &play, py::arg("x0"), py::arg("lead"), py::arg("w"), py::arg("x_ref"), py::arg("u_ref"),
          py::arg("clips"),
          R"(Plays from x0 float64 [nx] with w float64 [N nu] (None: 0), inputs clipped to their limits if `clips`.

Returns:
    States float64 [N + 1, nx], inputs float64 [N, nu], the cost, and by how much a state leaves its limits.)");
}

}  // namespace sage::bindings
