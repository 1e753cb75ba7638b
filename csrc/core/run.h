#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/halting.h"
#include "core/hd.h"
#include "core/record.h"
#include "core/trust.h"

namespace sage {

/// One state of a run as its refiner sees it.
struct Observation {
  double E;
  bool feasible = true;
  double gap = 0.0;
  double residual = std::numeric_limits<double>::quiet_NaN();
  std::int64_t now_ns = 0;
  std::int64_t margin_ns = 0;                 ///< time that finishing the answer takes, >= 0
  double charge_us = 0.0;                     ///< compute that led to this state
  HaltReason decided = HaltReason::kRunning;  ///< with which its plugin ends the run here, if it does
};

/// One refinement: all that is kept of it between two ticks, except its state. No allocation, no clock, no
/// thread.
class Run {
 public:
  Run() = default;
  SAGE_HD Run(std::uint64_t run_id, const HaltPolicy& policy, std::uint8_t plugin, std::uint8_t branch)
      : policy_(policy), run_id_(run_id), plugin_(plugin), branch_(branch) {}

  /// Takes the next state, the first one being state 0, and decides whether to go on: a state that has
  /// diverged ends the run as that, then its plugin's decision holds, then the rule. Where the plugin has
  /// decided there is no rewind. Only while running.
  SAGE_HD HaltReason observe(const Observation& state) {
    dE_ = states_ == 0 ? std::numeric_limits<double>::quiet_NaN() : state.E - E_;
    if (states_ == 0) E0_ = state.E;
    trust_.observe(dE_);
    if (improves(state.E, state.feasible)) {
      best_E_ = state.E;
      best_feasible_ = state.feasible;
      best_step_ = states_;
    }
    E_ = state.E;
    if (std::isfinite(E_)) sound_E_ = E_;
    feasible_ = state.feasible;
    residual_ = state.residual;
    spent_us_ += state.charge_us;
    step_us_ = state.charge_us;
    window_.push(E_ / policy_.E_scale);
    ++states_;
    rewound_ = false;
    const Progress at = progress(state);
    const bool decided = state.decided != HaltReason::kRunning;
    halt_reason_ = decided && !diverged(policy_, at) ? state.decided : decide(policy_, at);
    rewind_due_ = !decided && should_rewind(at);
    if (rewind_due_) halt_reason_ = HaltReason::kRunning;
    return halt_reason_;
  }

  /// Whether the last state went astray: take an earlier one with `rewind` before the next step.
  SAGE_HD bool rewind_due() const { return rewind_due_; }

  /// Goes on from an earlier state, as another branch. Steps and charges stay; the energy window starts anew.
  SAGE_HD void rewind(double E, bool feasible, std::uint8_t branch) {
    dE_ = E - sound_E_;
    E_ = sound_E_ = E;
    feasible_ = feasible;
    residual_ = std::numeric_limits<double>::quiet_NaN();
    window_ = EnergyWindow();
    window_.push(E_ / policy_.E_scale);
    branch_ = branch;
    ++rewinds_;
    rewind_due_ = false;
    rewound_ = true;
  }

  /// Moves the limit of what may be charged.
  /// @returns whether it pays for another step like the last one.
  SAGE_HD bool set_budget(double budget_us) {
    policy_.budget_us = budget_us;
    return spent_us_ + step_us_ <= budget_us;
  }

  /// Ends the run between two steps. Only while running.
  SAGE_HD void close(HaltReason reason) {
    halt_reason_ = reason;
    closing_ = true;
    rewound_ = false;
  }

  /// Sets other limits for the steps to come.
  SAGE_HD void limit(std::int32_t max_steps, std::int64_t deadline_ns) {
    policy_.max_steps = max_steps;
    policy_.deadline_ns = deadline_ns;
  }

  /// Whether a state would become the best: a feasible one beats any that is not, then the lower energy wins,
  /// and of two equals the earlier stays. What is not finite never does.
  SAGE_HD bool improves(double E, bool feasible) const {
    if (!std::isfinite(E)) return false;
    return feasible == best_feasible_ ? E < best_E_ : feasible;
  }

  SAGE_HD Record record(std::int64_t time_ns) const {
    Record record{};
    record.run_id = run_id_;
    record.time_ns = time_ns;
    record.E = static_cast<float>(E_);
    record.dE = static_cast<float>(dE_);
    record.E0 = static_cast<float>(E0_);
    record.best_E = static_cast<float>(best_E_);
    record.residual = static_cast<float>(residual_);
    record.monotonicity_ratio = static_cast<float>(trust_.monotonicity_ratio());
    record.dE_variance = static_cast<float>(trust_.dE_variance());
    record.spent_us = static_cast<float>(spent_us_);
    record.step_idx = step_idx();
    record.branch = branch_;
    record.plugin = plugin_;
    record.halt_reason = halt_reason_;
    record.flags =
        static_cast<std::uint8_t>((feasible_ ? kFlagFeasible : 0) | (closing_ ? kFlagClosing : 0) |
                                  (best_is_current() ? kFlagBest : 0) | (rewound_ ? kFlagRewound : 0));
    return record;
  }

  SAGE_HD std::uint64_t run_id() const { return run_id_; }
  /// Steps taken: the index of the last state observed.
  SAGE_HD std::uint32_t step_idx() const { return states_ - 1; }
  SAGE_HD bool running() const { return halt_reason_ == HaltReason::kRunning; }
  SAGE_HD HaltReason halt_reason() const { return halt_reason_; }
  SAGE_HD double E() const { return E_; }
  SAGE_HD double E0() const { return E0_; }
  /// Infinite while no finite energy was seen; state 0 then stands in as the best.
  SAGE_HD double best_E() const { return best_E_; }
  SAGE_HD std::uint32_t best_step() const { return best_step_; }
  SAGE_HD bool best_feasible() const { return best_feasible_; }
  SAGE_HD bool best_is_current() const { return best_step_ == step_idx(); }
  SAGE_HD std::uint8_t branch() const { return branch_; }
  /// How often the run went back to an earlier state.
  SAGE_HD std::int32_t rewinds() const { return rewinds_; }
  SAGE_HD bool feasible() const { return feasible_; }
  SAGE_HD double residual() const { return residual_; }
  SAGE_HD double spent_us() const { return spent_us_; }
  SAGE_HD const TrustStatistics& trust() const { return trust_; }

 private:
  SAGE_HD Progress progress(const Observation& state) const {
    return {step_idx(),
            E0_ / policy_.E_scale,
            E_ / policy_.E_scale,
            window_.range(window_states()),
            feasible_,
            state.gap,
            spent_us_,
            state.charge_us,
            state.now_ns,
            state.margin_ns};
  }
  SAGE_HD bool should_rewind(const Progress& at) const {
    if (rewinds_ >= policy_.rewinds || !std::isfinite(best_E_)) return false;
    const bool astray =
        halt_reason_ == HaltReason::kDiverged ||
        (halt_reason_ == HaltReason::kRunning && E_ - best_E_ > policy_.rise * policy_.E_scale);
    return astray && exhausted(policy_, at) == HaltReason::kRunning;
  }
  SAGE_HD std::uint32_t window_states() const { return static_cast<std::uint32_t>(policy_.K) + 1; }

  HaltPolicy policy_;
  EnergyWindow window_;
  TrustStatistics trust_;
  std::uint64_t run_id_ = 0;
  double E0_ = 0.0;
  double E_ = 0.0;
  double sound_E_ = 0.0;  // the last energy that was a number
  double dE_ = 0.0;
  double best_E_ = std::numeric_limits<double>::infinity();
  double residual_ = 0.0;
  double spent_us_ = 0.0;
  double step_us_ = 0.0;  // the last charge
  std::uint32_t states_ = 0;
  std::uint32_t best_step_ = 0;
  bool best_feasible_ = false;
  bool feasible_ = false;
  bool closing_ = false;
  bool rewind_due_ = false;
  bool rewound_ = false;
  std::int32_t rewinds_ = 0;
  std::uint8_t plugin_ = 0;
  std::uint8_t branch_ = 0;
  HaltReason halt_reason_ = HaltReason::kRunning;
};

}  // namespace sage
