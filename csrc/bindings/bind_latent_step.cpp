#include <pybind11/stl.h>

#include <cmath>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "kernels/latent_step.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

static_assert(sizeof(HaltReason) == sizeof(std::uint8_t), "reasons leave as uint8");

using Floats = Array<float>;

/// The axes of an array like z with another first one.
std::vector<Axis> like(const Floats& z, const Axis& first) {
  std::vector<Axis> axes = {first};
  for (py::ssize_t axis = 1; axis < z.ndim(); ++axis) axes.push_back({z.shape(axis)});
  return axes;
}

bool overlap(const Floats& a, const Floats& b) {
  return data(a) < data(b) + b.size() && data(b) < data(a) + a.size();
}

LatentRows state_rows(Floats& z, const Floats& delta, Floats& best, const Axis& slots, const Axis& live) {
  require_array(z, "z", {slots}, true);
  if (z.size() == 0) refuse("z", "at least one element per slot", z);
  require_array(delta, "delta", like(z, live));  // an engine answers for the live rows alone
  require_array(best, "best", like(z, slots));
  if (!z.writeable()) refuse("z", "a writeable array", z);
  if (!best.writeable()) refuse("best", "a writeable array", best);
  if (overlap(z, delta) || overlap(z, best) || overlap(delta, best)) {
    throw ShapeError("z, delta, best: expected three separate arrays, got some that share memory");
  }
  return {static_cast<float*>(z.mutable_data()), data(delta), static_cast<float*>(best.mutable_data()),
          static_cast<std::size_t>(z.size() / slots.length)};
}

void require_tick(const TickInputs& tick) {
  require_not_negative(tick.margin_ns, "margin_ns");
  require_not_negative(tick.tick_us, "tick_us");
  if (!(tick.lo <= tick.hi)) {
    throw ConfigError("lo, hi: expected lo <= hi, got " + std::to_string(tick.lo) + ", " +
                      std::to_string(tick.hi));
  }
}

Array<std::uint8_t> step(SlotTable& slots, Floats z, const Floats& delta, Floats best,
                         const Floats& step_size, float lo, float hi, const Floats& energy_terms,
                         std::int64_t now_ns, std::int64_t margin_ns, double tick_us,
                         std::optional<ThreadPool*> pool) {
  const Axis every{static_cast<py::ssize_t>(slots.capacity()), false, "slots"};
  const Axis live{static_cast<py::ssize_t>(slots.live()), true, "live slots"};
  const LatentRows rows = state_rows(z, delta, best, every, live);
  require_array(step_size, "step_size", {every});
  require_array(energy_terms, "energy_terms", {live, {1, true, "terms"}});
  TickInputs tick{};
  tick.step_size = data(step_size);
  tick.energy_terms = data(energy_terms);
  tick.terms = static_cast<std::size_t>(energy_terms.shape(1));
  tick.lo = lo;
  tick.hi = hi;
  tick.now_ns = now_ns;
  tick.margin_ns = margin_ns;
  tick.tick_us = tick_us;
  require_tick(tick);

  Array<std::uint8_t> reasons(py::dtype::of<std::uint8_t>(), live.length);
  auto* out = static_cast<HaltReason*>(reasons.mutable_data());
  const py::gil_scoped_release release;
  latent_step(slots, rows, tick, pool.value_or(nullptr), out);
  return reasons;
}

}  // namespace

void bind_latent_step(py::module_& module) {
  module.def("latent_step", &step, py::arg("slots"), py::arg("z"), py::arg("delta"), py::arg("best"),
             py::kw_only(), py::arg("step_size"), py::arg("lo"), py::arg("hi"), py::arg("energy_terms"),
             py::arg("now_ns"), py::arg("margin_ns") = 0, py::arg("tick_us") = 0.0,
             py::arg("pool") = py::none(),
             R"(One step of every running run in `slots`, in one pass over memory and without the GIL.

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
    ConfigError: A number is out of range.)");
}

}  // namespace sage::bindings
