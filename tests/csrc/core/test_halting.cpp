#include <limits>
#include <vector>

#include "check.h"
#include "core/errors.h"
#include "core/halting.h"

using sage::EnergyWindow;
using sage::HaltPolicy;
using sage::HaltReason;
using sage::Progress;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A run in mid-flight that has no reason to stop.
Progress going() { return {5, 1.0, 0.5, kInf, true, 1.0, 10.0, 1.0, 1000, 0}; }

struct Row {
  const char* what;
  HaltPolicy policy;
  Progress at;
  HaltReason expected;
};

template <class Change>
Row row(const char* what, HaltReason expected, Change change) {
  Row made{what, HaltPolicy{}, going(), expected};
  change(made.policy, made.at);
  return made;
}

const std::vector<Row>& table() {
  static const std::vector<Row> rows = {
      row("nothing", HaltReason::kRunning, [](HaltPolicy&, Progress&) {}),
      row("NaN", HaltReason::kDiverged, [](HaltPolicy&, Progress& at) { at.E_norm = kNaN; }),
      row("infinite", HaltReason::kDiverged, [](HaltPolicy&, Progress& at) { at.E_norm = -kInf; }),
      row("NaN at the start", HaltReason::kDiverged, [](HaltPolicy&, Progress& at) { at.E_norm_0 = kNaN; }),
      row("just above the ceiling", HaltReason::kDiverged,
          [](HaltPolicy&, Progress& at) { at.E_norm = 10.0001; }),
      row("on the ceiling", HaltReason::kRunning, [](HaltPolicy&, Progress& at) { at.E_norm = 10.0; }),
      row("a small start rises in units", HaltReason::kRunning,
          [](HaltPolicy&, Progress& at) { at.E_norm_0 = 0.01, at.E_norm = 9.0; }),
      row("a negative start", HaltReason::kDiverged,
          [](HaltPolicy&, Progress& at) { at.E_norm_0 = -2.0, at.E_norm = 16.5; }),
      row("flat", HaltReason::kSlope,
          [](HaltPolicy&, Progress& at) { at.window_range = 0.9e-4, at.gap = 0.0; }),
      row("a range of eps is not below it", HaltReason::kRunning,
          [](HaltPolicy&, Progress& at) { at.window_range = 1e-4, at.gap = 0.0; }),
      row("flat but infeasible", HaltReason::kRunning,
          [](HaltPolicy&, Progress& at) { at.window_range = 0.0, at.gap = 0.0, at.feasible = false; }),
      row("flat and diverged", HaltReason::kDiverged,
          [](HaltPolicy&, Progress& at) { at.window_range = 0.0, at.E_norm = kNaN; }),
      row("feasible is not asked for", HaltReason::kRunning, [](HaltPolicy&, Progress& at) { at.gap = 0.0; }),
      row("flat, gap open", HaltReason::kRunning, [](HaltPolicy&, Progress& at) { at.window_range = 0.0; }),
      row("feasible, gap closed", HaltReason::kFeasible,
          [](HaltPolicy& policy, Progress& at) { policy.halt_when_feasible = true, at.gap = 0.0; }),
      row("feasible, gap open", HaltReason::kRunning,
          [](HaltPolicy& policy, Progress& at) { policy.halt_when_feasible = true, at.gap = 0.1; }),
      row("good enough", HaltReason::kConfidence,
          [](HaltPolicy& policy, Progress&) { policy.target_E_norm = 0.5; }),
      row("good but infeasible", HaltReason::kRunning,
          [](HaltPolicy& policy, Progress& at) { policy.target_E_norm = 0.5, at.feasible = false; }),
      row("steps used up", HaltReason::kMaxSteps,
          [](HaltPolicy& policy, Progress&) { policy.max_steps = 5; }),
      row("one step left", HaltReason::kRunning, [](HaltPolicy& policy, Progress&) { policy.max_steps = 6; }),
      row("no room for the next step", HaltReason::kBudget,
          [](HaltPolicy& policy, Progress&) { policy.budget_us = 10.9; }),
      row("room for exactly one step", HaltReason::kRunning,
          [](HaltPolicy& policy, Progress&) { policy.budget_us = 11.0; }),
      row("deadline", HaltReason::kTimeout, [](HaltPolicy& policy, Progress&) { policy.deadline_ns = 1000; }),
      row("deadline less margin", HaltReason::kTimeout,
          [](HaltPolicy& policy, Progress& at) { policy.deadline_ns = 1100, at.margin_ns = 100; }),
      row("a nanosecond left", HaltReason::kRunning,
          [](HaltPolicy& policy, Progress& at) { policy.deadline_ns = 1101, at.margin_ns = 100; }),
      row("success before exhaustion", HaltReason::kSlope,
          [](HaltPolicy& policy, Progress& at) {
            at.window_range = 0.0, at.gap = 0.0;
            policy.max_steps = 0;
            policy.budget_us = 0.0;
            policy.deadline_ns = 0;
            policy.target_E_norm = 1.0;
          }),
      row("steps before budget before deadline", HaltReason::kBudget,
          [](HaltPolicy& policy, Progress&) { policy.budget_us = 0.0, policy.deadline_ns = 0; }),
  };
  return rows;
}

}  // namespace

TEST("the rule gives each row of the table its reason") {
  for (const Row& entry : table()) {
    check::require(sage::decide(entry.policy, entry.at) == entry.expected, __FILE__, __LINE__, entry.what);
  }
}

TEST("a window's range spans its newest states only, also after it has wrapped") {
  EnergyWindow window;
  for (int i = 0; i < 40; ++i) window.push(100.0 - i);
  CHECK_EQ(window.range(4), 3.0);
  CHECK_EQ(window.range(16), 15.0);
}

TEST("a window is infinitely wide until it is full, and NaN while it holds one") {
  EnergyWindow window;
  window.push(1.0);
  CHECK_EQ(window.range(2), kInf);
  window.push(kNaN);
  CHECK(std::isnan(window.range(2)));
  window.push(2.0);
  window.push(2.0);
  CHECK_EQ(window.range(2), 0.0);
}

TEST("a policy out of range is refused") {
  const auto refused = [](auto change) {
    HaltPolicy policy;
    change(policy);
    CHECK_THROWS(sage::ConfigError, sage::validate(policy));
  };
  refused([](HaltPolicy& policy) { policy.eps = -1e-9; });
  refused([](HaltPolicy& policy) { policy.eps = kNaN; });
  refused([](HaltPolicy& policy) { policy.K = 0; });
  refused([](HaltPolicy& policy) { policy.K = 16; });
  refused([](HaltPolicy& policy) { policy.max_steps = -1; });
  refused([](HaltPolicy& policy) { policy.E_scale = 0.0; });
  refused([](HaltPolicy& policy) { policy.E_scale = kInf; });
  refused([](HaltPolicy& policy) { policy.divergence_factor = 0.9; });
  refused([](HaltPolicy& policy) { policy.target_E_norm = kNaN; });
  refused([](HaltPolicy& policy) { policy.gap_tolerance = -1.0; });
  refused([](HaltPolicy& policy) { policy.budget_us = -1.0; });
  refused([](HaltPolicy& policy) { policy.deadline_ns = -1; });
  sage::validate(HaltPolicy{});
}
