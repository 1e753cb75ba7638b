#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>

#include "bindings/arrays.h"
#include "bindings/halt_names.h"
#include "bindings/module.h"
#include "core/halting.h"
#include "core/trust.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

constexpr const char* kFields[] = {"eps",
                                   "K",
                                   "max_steps",
                                   "E_scale",
                                   "divergence_factor",
                                   "target_E_norm",
                                   "gap_tolerance",
                                   "halt_when_feasible",
                                   "budget_us",
                                   "deadline_ns",
                                   "rewinds",
                                   "rise"};

HaltPolicy make_policy(double eps, std::int32_t K, std::int32_t max_steps, double E_scale,
                       double divergence_factor, double target_E_norm, double gap_tolerance,
                       bool halt_when_feasible, double budget_us, std::int64_t deadline_ns,
                       std::int32_t rewinds, double rise) {
  const HaltPolicy policy{eps,
                          K,
                          max_steps,
                          E_scale,
                          divergence_factor,
                          target_E_norm,
                          gap_tolerance,
                          halt_when_feasible,
                          budget_us,
                          deadline_ns,
                          rewinds,
                          rise};
  validate(policy);
  return policy;
}

py::dict fields_of(const py::object& policy) {
  py::dict fields;
  for (const char* name : kFields) fields[name] = policy.attr(name);
  return fields;
}

std::string repr(const py::object& policy) {
  std::string text;
  for (const char* name : kFields) {
    text += (text.empty() ? "" : ", ") + std::string(name) + "=" +
            py::repr(policy.attr(name)).cast<std::string>();
  }
  return "HaltPolicy(" + text + ")";
}

std::optional<std::string> halt_reason(const std::vector<double>& history, const HaltPolicy& policy,
                                       bool feasible, double gap, double spent_us, double charge_us,
                                       std::int64_t now_ns, std::int64_t margin_ns) {
  if (history.empty()) throw ShapeError("history: expected the energies of at least one state, got none");
  require_not_negative(margin_ns, "margin_ns");
  const std::size_t window_states = static_cast<std::size_t>(policy.K) + 1;
  EnergyWindow window;
  for (std::size_t i = history.size() - std::min(history.size(), window_states); i < history.size(); ++i) {
    window.push(history[i] / policy.E_scale);
  }
  return wire_name(decide(
      policy, {static_cast<std::uint32_t>(history.size() - 1), history.front() / policy.E_scale,
               history.back() / policy.E_scale, window.range(static_cast<std::uint32_t>(window_states)),
               feasible, gap, spent_us, charge_us, now_ns, margin_ns}));
}

std::tuple<double, double, double, std::uint32_t> trust_statistics(const std::vector<double>& history) {
  if (history.empty()) throw ShapeError("history: expected the energies of at least one state, got none");
  TrustStatistics trust;
  for (std::size_t i = 1; i < history.size(); ++i) trust.observe(history[i] - history[i - 1]);
  return {trust.monotonicity_ratio(), trust.dE_variance(),
          trust.convergence_rate(history.front(), history.back()), trust.n()};
}

}  // namespace

void bind_halting(py::module_& module) {
  constexpr HaltPolicy defaults;
  py::class_<HaltPolicy>(module, "HaltPolicy",
                         R"(When a run stops. Immutable; energies are compared as E_norm = E / E_scale.

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
    ConfigError: A value is out of its range; the message names it.)")
      .def(py::init(&make_policy), py::kw_only(), py::arg("eps") = defaults.eps, py::arg("K") = defaults.K,
           py::arg("max_steps") = defaults.max_steps, py::arg("E_scale") = defaults.E_scale,
           py::arg("divergence_factor") = defaults.divergence_factor,
           py::arg("target_E_norm") = defaults.target_E_norm,
           py::arg("gap_tolerance") = defaults.gap_tolerance,
           py::arg("halt_when_feasible") = defaults.halt_when_feasible,
           py::arg("budget_us") = defaults.budget_us, py::arg("deadline_ns") = defaults.deadline_ns,
           py::arg("rewinds") = defaults.rewinds, py::arg("rise") = defaults.rise)
      .def_readonly("eps", &HaltPolicy::eps)
      .def_readonly("K", &HaltPolicy::K)
      .def_readonly("max_steps", &HaltPolicy::max_steps)
      .def_readonly("E_scale", &HaltPolicy::E_scale)
      .def_readonly("divergence_factor", &HaltPolicy::divergence_factor)
      .def_readonly("target_E_norm", &HaltPolicy::target_E_norm)
      .def_readonly("gap_tolerance", &HaltPolicy::gap_tolerance)
      .def_readonly("halt_when_feasible", &HaltPolicy::halt_when_feasible)
      .def_readonly("budget_us", &HaltPolicy::budget_us)
      .def_readonly("deadline_ns", &HaltPolicy::deadline_ns)
      .def_readonly("rewinds", &HaltPolicy::rewinds)
      .def_readonly("rise", &HaltPolicy::rise)
      .def(
          "replace",
          [](const py::object& self, const py::KWArgs<py::object>& changes) {
            py::dict fields = fields_of(self);
            fields.attr("update")(changes);
            return py::type::of(self)(**fields).cast<HaltPolicy>();
          },
          "A copy with some fields changed, and checked again.")
      .def("__eq__",
           [](const py::object& self, const py::object& other) {
             return py::type::of(self).is(py::type::of(other)) && fields_of(self).equal(fields_of(other));
           })
      .def("__hash__",
           [](const py::object& self) { return py::hash(py::tuple(fields_of(self).attr("values")())); })
      .def("__repr__", &repr);

  module.def("halt_reason", &halt_reason, py::arg("history"), py::arg("policy"), py::kw_only(),
             py::arg("feasible") = true, py::arg("gap") = 0.0, py::arg("spent_us") = 0.0,
             py::arg("charge_us") = 0.0, py::arg("now_ns") = 0, py::arg("margin_ns") = 0,
             R"(The halting rule over the energies E_0 .. E_n (docs/IRP_PROTOCOL.md#3-halting).

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
    ShapeError: The history is empty.)");
  module.def("trust_statistics", &trust_statistics, py::arg("history"),
             "Trust statistics of the energies E_0 .. E_n; see sage_edge.native.trust_statistics.");
}

}  // namespace sage::bindings
