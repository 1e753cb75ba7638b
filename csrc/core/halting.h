#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/hd.h"
#include "core/record.h"

// The halting rule of docs/IRP_PROTOCOL.md#3-halting: one implementation for the slots on either side and for
// the reference loop. Energies in the rule are E_norm = E / E_scale.
namespace sage {

inline constexpr std::int32_t kMaxK = 15;  ///< widest window: K + 1 = 16 states

/// When to stop. Immutable once a run has begun.
struct HaltPolicy {
  double eps = 1e-4;                ///< range of E_norm that counts as converged
  std::int32_t K = 3;               ///< the range is taken over K + 1 states
  std::int32_t max_steps = 50;      ///< steps, not states: 50 leaves 51 states
  double E_scale = 1.0;             ///< energy units per unit of E_norm
  double divergence_factor = 10.0;  ///< E_norm may rise by (factor - 1) * max(|E_norm_0|, 1)
  double target_E_norm = -std::numeric_limits<double>::infinity();  ///< good enough: "confidence"
  double gap_tolerance = 0.0;  ///< gap up to which "slope<eps" and "feasible" may halt
  bool halt_when_feasible = false;
  double budget_us = std::numeric_limits<double>::infinity();           ///< compute that may be charged
  std::int64_t deadline_ns = std::numeric_limits<std::int64_t>::max();  ///< on the caller's monotonic clock
  std::int32_t rewinds = 0;  ///< how often the run may go back instead of ending as diverged
  double rise = std::numeric_limits<double>::infinity();  ///< E_norm above the best that is astray as well
};

/// @throws ConfigError naming the field, what was expected and what came.
void validate(const HaltPolicy& policy);

/// The last K + 1 energies of a run.
class EnergyWindow {
 public:
  SAGE_HD void push(double E_norm) { energies_[pushed_++ % (kMaxK + 1)] = E_norm; }

  /// max - min of the newest `count` energies; infinite while there are fewer, NaN if one of them is not
  /// finite.
  SAGE_HD double range(std::uint32_t count) const {
    if (pushed_ < count) return std::numeric_limits<double>::infinity();
    double low = newest(0);
    double high = low;
    for (std::uint32_t age = 0; age < count; ++age) {
      const double value = newest(age);
      if (!std::isfinite(value)) return std::numeric_limits<double>::quiet_NaN();
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return high - low;
  }

 private:
  SAGE_HD double newest(std::uint32_t age) const { return energies_[(pushed_ - 1 - age) % (kMaxK + 1)]; }

  double energies_[kMaxK + 1] = {};
  std::uint32_t pushed_ = 0;
};

/// What the rule looks at: a run that has just reached the state `step_idx`.
struct Progress {
  std::uint32_t step_idx;
  double E_norm_0;      ///< of the first state
  double E_norm;        ///< of this state
  double window_range;  ///< EnergyWindow::range(K + 1)
  bool feasible;
  double gap;
  double spent_us;
  double step_us;  ///< what the next step is expected to cost
  std::int64_t now_ns;
  std::int64_t margin_ns;  ///< time that finishing the answer takes, >= 0
};

/// Whether the energy is no number, or far above the one that the run began with.
SAGE_HD inline bool diverged(const HaltPolicy& policy, const Progress& at) {
  const double start = std::fabs(at.E_norm_0) > 1.0 ? std::fabs(at.E_norm_0) : 1.0;
  const double ceiling = at.E_norm_0 + (policy.divergence_factor - 1.0) * start;
  const bool finite = std::isfinite(at.E_norm) && std::isfinite(at.E_norm_0);
  return !finite || at.E_norm > ceiling;
}

/// What has run out before another step, if anything.
SAGE_HD inline HaltReason exhausted(const HaltPolicy& policy, const Progress& at) {
  if (at.step_idx >= static_cast<std::uint32_t>(policy.max_steps)) return HaltReason::kMaxSteps;
  if (at.spent_us + at.step_us > policy.budget_us) return HaltReason::kBudget;
  if (policy.deadline_ns - at.margin_ns <= at.now_ns) return HaltReason::kTimeout;
  return HaltReason::kRunning;
}

/// Guards first (a NaN is below no eps), then success, then what has run out.
SAGE_HD inline HaltReason decide(const HaltPolicy& policy, const Progress& at) {
  if (diverged(policy, at)) return HaltReason::kDiverged;
  if (at.feasible && at.gap <= policy.gap_tolerance && at.window_range < policy.eps)
    return HaltReason::kSlope;
  if (at.feasible && policy.halt_when_feasible && at.gap <= policy.gap_tolerance)
    return HaltReason::kFeasible;
  if (at.feasible && at.E_norm <= policy.target_E_norm) return HaltReason::kConfidence;
  return exhausted(policy, at);
}

}  // namespace sage
