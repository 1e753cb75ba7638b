#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <iterator>
#include <string>

#include "bindings/cuda_module.h"
#include "bindings/run_summary.h"
#include "device/refine_loop.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Body = std::function<void(std::int32_t width, std::uintptr_t stream)>;

std::uintptr_t address(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

LoopMode parse_mode(const std::string& name) {
  for (std::size_t mode = 0; mode < std::size(kLoopModeNames); ++mode) {
    if (name == kLoopModeNames[mode]) return static_cast<LoopMode>(mode);
  }
  throw ConfigError("loop mode: expected while_graph, host_graphs or launches, got '" + name + "'");
}

std::unique_ptr<RefineLoop> make_loop(const Ring& ring, std::vector<std::int32_t> widths, std::int32_t rows,
                                      std::uint64_t elements, bool half, std::int32_t terms,
                                      std::vector<std::uint64_t> context_bytes, float step_size, float lo,
                                      float hi, std::uint8_t plugin) {
  LoopShape shape;
  shape.widths = std::move(widths);
  shape.rows = rows;
  shape.elements = elements;
  shape.half = half;
  shape.terms = terms;
  shape.context_bytes = std::move(context_bytes);
  shape.step_size = step_size;
  shape.lo = lo;
  shape.hi = hi;
  shape.plugin = plugin;
  return std::make_unique<RefineLoop>(shape, ring);
}

std::vector<std::uintptr_t> context_addresses(const RefineLoop& loop) {
  std::vector<std::uintptr_t> all;
  for (const void* array : loop.body_arrays().context) all.push_back(address(array));
  return all;
}

}  // namespace

void bind_refine_loop(py::module_& module) {
  py::class_<RefineLoop>(
      module, "RefineLoop",
      R"(Refines requests in slots on the GPU: the whole loop is there, the host hands in and takes out.

A request has a row in the store from `hand_in` until `drive` returns it: its first state, context and energy terms are
written there before, its best state is read from there after. One thread at a time.

Args:
    ring: From `mapped_ring`; every state is published there. At least 4 records per slot. Kept alive by the loop.
    widths: Batches that are captured, rising; the last one is the number of slots.
    rows: Requests that may be under way, at least as many as slots.
    elements: Of a state.
    half: Whether states and directions are float16; float32 otherwise.
    terms: Energy terms of a state; its energy is their mean.
    context_bytes: What a step reads besides the state: bytes per request of each array.
    step_size: Of every step.
    lo: Lower bound of a state.
    hi: Upper bound of a state.
    plugin: Small integer that names the plugin in the records.

Raises:
    ConfigError: A number makes no sense, or the ring is not mapped or too small.
    DeviceError: CUDA refuses, or is not there.)")
      .def(py::init(&make_loop), py::arg("ring"), py::kw_only(), py::arg("widths"), py::arg("rows"),
           py::arg("elements"), py::arg("half"), py::arg("terms"), py::arg("context_bytes"),
           py::arg("step_size"), py::arg("lo"), py::arg("hi"), py::arg("plugin") = 0, py::keep_alive<1, 2>())
      .def(
          "prepare",
          [](RefineLoop& loop, const Body& body, const std::string& mode) {
            loop.prepare([body](std::int32_t width, cudaStream_t stream) { body(width, address(stream)); },
                         parse_mode(mode));
          },
          py::arg("body"), py::arg("mode") = kLoopModeNames[0],
          R"(Runs and captures the step engine for each width.

Args:
    body: Called as body(width, stream): puts the engine for the first `width` slots onto a raw CUDA stream, reading z,
        context and step_size and writing delta and energy_terms. What it uses stays alive and in place.
    mode: "while_graph", "host_graphs" or "launches"; where one does not work here the next one is taken, and
        `mode_reason` says why.

Raises:
    DeviceError: Not even plain launches work.)")
      .def("measure_body_ns", &RefineLoop::measure_body_ns, py::arg("width"),
           py::call_guard<py::gil_scoped_release>(),
           "How long one pass of the engine takes at a width. For a loop that stands still.")
      .def_property_readonly(
          "mode",
          [](const RefineLoop& loop) { return kLoopModeNames[static_cast<std::size_t>(loop.mode())]; },
          "How ticks follow each other.")
      .def_property_readonly("mode_reason", &RefineLoop::mode_reason,
                             "Why not the mode that was wanted; empty: it is that one.")
      .def_property_readonly("slots", &RefineLoop::slots)
      .def_property_readonly("live", &RefineLoop::live, "Live slots, by the last decision.")
      .def_property_readonly("ticks", &RefineLoop::ticks, "Ticks so far.")
      .def_property_readonly("under_way", &RefineLoop::under_way,
                             "Requests handed in and not yet returned by `drive`.")
      .def_property_readonly(
          "z_address", [](const RefineLoop& loop) { return address(loop.body_arrays().z); },
          "Device address of the states, [slots, elements].")
      .def_property_readonly(
          "delta_address", [](const RefineLoop& loop) { return address(loop.body_arrays().delta); },
          "Device address of the directions, [slots, elements].")
      .def_property_readonly(
          "step_size_address", [](const RefineLoop& loop) { return address(loop.body_arrays().step_size); },
          "Device address of the step sizes, float32 [slots].")
      .def_property_readonly(
          "energy_terms_address",
          [](const RefineLoop& loop) { return address(loop.body_arrays().energy_terms); },
          "Device address of the energy terms, float32 [slots, terms].")
      .def_property_readonly(
          "first_terms_address", [](const RefineLoop& loop) { return address(loop.first_terms()); },
          "Device address of the energy terms of first states, float32 [rows, terms].")
      .def_property_readonly("context_addresses", &context_addresses,
                             "Device address of each context, [slots, bytes].")
      .def(
          "row",
          [](const RefineLoop& loop, std::int32_t array, std::int32_t row) {
            return address(loop.row(array, row));
          },
          py::arg("array"), py::arg("row"),
          R"(Device address of a row of the store; array 0 holds states, 1, 2, ... the contexts.

Raises:
    ConfigError: There is no such array or row.)")
      .def(
          "copy",
          [](RefineLoop& loop, std::uintptr_t target, std::uintptr_t source, std::size_t size_bytes) {
            loop.copy(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(source), size_bytes);
          },
          py::arg("target"), py::arg("source"), py::arg("size_bytes"),
          py::call_guard<py::gil_scoped_release>(),
          R"(Enqueues a copy between any two addresses, host or device, beside the loop; `wait_copies` waits for it.

Raises:
    DeviceError: CUDA refuses.)")
      .def("wait_copies", &RefineLoop::wait_copies, py::call_guard<py::gil_scoped_release>(),
           "Waits for every copy enqueued so far.")
      .def(
          "hand_in",
          [](RefineLoop& loop, std::int32_t row, std::uint64_t run_id, const HaltPolicy& policy,
             double charge_us,
             std::uint8_t branch) { loop.hand_in(row, {run_id, policy, charge_us, branch}); },
          py::arg("row"), py::arg("run_id"), py::arg("policy"), py::kw_only(), py::arg("charge_us") = 0.0,
          py::arg("branch") = 0,
          R"(Hands a request in whose row has been written. A loop that runs takes it with the next tick.

Raises:
    ConfigError: The row is out of range or taken.)")
      .def("limit", &RefineLoop::limit, py::arg("row"), py::arg("max_steps"), py::arg("deadline_ns"),
           "Changes the limits of a request that is under way.")
      .def("set_budget", &RefineLoop::set_budget, py::arg("row"), py::arg("budget_us"),
           "Changes what may be charged to a request that is under way, from its next decision on.")
      .def(
          "stop",
          [](RefineLoop& loop, std::int32_t row, const std::string& reason) {
            loop.stop(row, parse_reason(reason));
          },
          py::arg("row"), py::arg("reason"),
          R"(Ends a request before its next step, or before it gets a slot; `drive` still returns it.

Raises:
    ConfigError: `reason` is none of HALT_REASONS.)")
      .def("set_margin_ns", &RefineLoop::set_margin_ns, py::arg("margin_ns"),
           "Tells how long finishing an answer takes: deadlines are kept by so much.")
      .def("drive", &RefineLoop::drive, py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>(),
           R"(Keeps the loop going until some request is done or the time has passed, without the GIL.

Returns:
    The rows that are done.

Raises:
    DeviceError: The device failed; the loop is of no more use.)")
      .def(
          "peek",
          [](RefineLoop& loop, std::int32_t row, std::uintptr_t target) {
            py::gil_scoped_release unlocked;
            const std::optional<Run> run = loop.peek(row, reinterpret_cast<void*>(target));
            py::gil_scoped_acquire locked;
            return run ? std::make_optional(summary_fields(*run)) : std::nullopt;
          },
          py::arg("row"), py::arg("target"),
          R"(Stops the loop after its tick and copies the best state so far of a request; `drive` goes on.

Args:
    row: The request's.
    target: Where the state is put: an address of the host or the device.

Returns:
    Its run as the fields of RunSummary; None when it is in no slot.

Raises:
    ConfigError: There is no such row.
    DeviceError: CUDA refuses.)")
      .def(
          "summary_fields",
          [](const RefineLoop& loop, std::int32_t row) { return summary_fields(loop.outcome(row)); },
          py::arg("row"),
          "How the request in a row ended that `drive` has returned, as the fields of RunSummary.");
}

}  // namespace sage::bindings
