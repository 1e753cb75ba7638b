#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/halt_names.h"
#include "bindings/module.h"
#include "bindings/run_summary.h"
#include "core/ring_memory.h"
#include "core/slot_table.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

Observation observation(double E, std::int64_t now_ns, std::int64_t margin_ns, double charge_us,
                        bool feasible, double gap, std::int64_t halt) {
  require_not_negative(margin_ns, "margin_ns");
  require_not_negative(charge_us, "charge_us");
  Observation seen{E};
  seen.feasible = feasible;
  seen.gap = gap;
  seen.now_ns = now_ns;
  seen.margin_ns = margin_ns;
  seen.charge_us = charge_us;
  seen.decided = parse_code(halt);
  return seen;
}

std::tuple<std::size_t, std::optional<std::string>> admit(SlotTable& slots, std::uint64_t run_id,
                                                          const HaltPolicy& policy, double E0,
                                                          std::int64_t now_ns, std::int64_t margin_ns,
                                                          double charge_us, bool feasible, double gap,
                                                          std::uint8_t branch, std::int64_t halt) {
  const Observation first = observation(E0, now_ns, margin_ns, charge_us, feasible, gap, halt);
  const std::size_t slot = slots.admit(run_id, policy, branch, first);
  return {slot, wire_name(slots.run(slot).halt_reason())};
}

std::optional<std::string> observe(SlotTable& slots, std::size_t slot, double E, std::int64_t now_ns,
                                   std::int64_t margin_ns, double charge_us, bool feasible, double gap,
                                   std::int64_t halt) {
  return wire_name(slots.observe(slot, observation(E, now_ns, margin_ns, charge_us, feasible, gap, halt)));
}

/// One value of each live run, in order of the slots.
template <class T, class Get>
py::array_t<T> column(const SlotTable& slots, Get get) {
  py::array_t<T> values(static_cast<py::ssize_t>(slots.live()));
  T* out = values.mutable_data();
  for (std::size_t slot = 0; slot < slots.live(); ++slot) out[slot] = get(slots.run(slot));
  return values;
}

std::vector<std::size_t> astray(const SlotTable& slots) {
  std::vector<std::size_t> found;
  for (std::size_t slot = 0; slot < slots.live(); ++slot) {
    if (slots.run(slot).rewind_due()) found.push_back(slot);
  }
  return found;
}

}  // namespace

void bind_slot_table(py::module_& module) {
  py::class_<SlotTable>(module, "SlotTable",
                        R"(The runs of one refiner; the live slots are always 0 .. live - 1.

One thread at a time: the producer of the ring. A slot that is not live raises IndexError.

Args:
    capacity: Number of slots, at least 1.
    ring: Where every state is published; kept alive by the table.
    plugin: Small integer that names the plugin in the records.)")
      .def(py::init([](std::size_t capacity, Ring& ring, std::uint8_t plugin) {
             return std::make_unique<SlotTable>(capacity, ring.writer(), plugin);
           }),
           py::arg("capacity"), py::arg("ring"), py::arg("plugin") = 0, py::keep_alive<1, 3>())
      .def_property_readonly("capacity", &SlotTable::capacity)
      .def_property_readonly("live", &SlotTable::live)
      .def("admit", &admit, py::arg("run_id"), py::arg("policy"), py::arg("E0"), py::kw_only(),
           py::arg("now_ns"), py::arg("margin_ns") = 0, py::arg("charge_us") = 0.0,
           py::arg("feasible") = true, py::arg("gap") = 0.0, py::arg("branch") = 0, py::arg("halt") = 0,
           R"(Opens a run in slot `live` with its state 0, and publishes that state.

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
    ConfigError: margin_ns or charge_us is negative, or `halt` no code.)")
      .def("observe", &observe, py::arg("slot"), py::arg("E"), py::kw_only(), py::arg("now_ns"),
           py::arg("margin_ns") = 0, py::arg("charge_us") = 0.0, py::arg("feasible") = true,
           py::arg("gap") = 0.0, py::arg("halt") = 0,
           R"(Hands a run its next state, and publishes that.

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
    ConfigError: The run has ended already, margin_ns or charge_us is negative, or `halt` no code.)")
      .def(
          "close",
          [](SlotTable& slots, std::size_t slot, const std::string& reason, std::int64_t now_ns) {
            slots.close(slot, parse_reason(reason), now_ns);
          },
          py::arg("slot"), py::arg("reason"), py::arg("now_ns"),
          R"(Ends a run between two steps and publishes its closing record, with the same step_idx.

Raises:
    ConfigError: The run has ended already, or `reason` is none of HALT_REASONS.)")
      .def(
          "rewind",
          [](SlotTable& slots, std::size_t slot, double E, std::int64_t now_ns, bool feasible,
             std::uint8_t branch) { slots.rewind(slot, E, feasible, branch, now_ns); },
          py::arg("slot"), py::arg("E"), py::kw_only(), py::arg("now_ns"), py::arg("feasible") = true,
          py::arg("branch") = 0,
          R"(Takes a run that went astray back to an earlier state, as another branch, and publishes that state.

Its record has the step_idx of the state that was given up, and dE leads from that one to the restored state.

Args:
    slot: One of `astray()`.
    E: Energy of the restored state.
    now_ns: Monotonic time.
    feasible: Whether the restored state is.
    branch: Names the branch in the records from here on.

Raises:
    ConfigError: No rewind is due.)")
      .def("set_budget", &SlotTable::set_budget, py::arg("slot"), py::arg("budget_us"),
           R"(Moves the limit of what may be charged to a run, microseconds.

Returns:
    Whether it pays for another step like the last one.

Raises:
    ConfigError: It is negative or no number.)")
      .def("astray", &astray, "The slots whose run must be rewound before its next step.")
      .def(
          "energies",
          [](const SlotTable& slots) {
            return column<double>(slots, [](const Run& run) { return run.E(); });
          },
          "float64 [live], the energy of each live run's current state.")
      .def(
          "spent_us",
          [](const SlotTable& slots) {
            return column<double>(slots, [](const Run& run) { return run.spent_us(); });
          },
          "float64 [live], the compute charged to each live run, microseconds.")
      .def("remove", &SlotTable::remove, py::arg("slot"),
           R"(Frees a slot; the last live run moves into the hole.

Returns:
    Where the run that is in `slot` now came from; `slot` itself if it was the last.)")
      .def(
          "summary_fields",
          [](const SlotTable& slots, std::size_t slot) { return summary_fields(slots.run(slot)); },
          py::arg("slot"), "The run in a slot, as the fields of sage_edge.native.RunSummary.");
}

}  // namespace sage::bindings
