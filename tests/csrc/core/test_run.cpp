#include "check.h"
#include "core/run.h"

using sage::HaltPolicy;
using sage::HaltReason;
using sage::Observation;
using sage::Run;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

HaltPolicy patient() {
  HaltPolicy policy;
  policy.eps = 0.0;
  return policy;
}

HaltReason decide(Run& run, double E, HaltReason decided) {
  Observation state{E};
  state.decided = decided;
  return run.observe(state);
}

HaltReason observe(Run& run, double E, bool feasible = true, double charge_us = 0.0) {
  Observation state{E};
  state.feasible = feasible;
  state.charge_us = charge_us;
  return run.observe(state);
}

}  // namespace

TEST("max_steps counts steps: two steps leave three states") {
  HaltPolicy policy = patient();
  policy.max_steps = 2;
  Run run(1, policy, 0, 0);
  CHECK(observe(run, 3.0) == HaltReason::kRunning);
  CHECK(observe(run, 2.0) == HaltReason::kRunning);
  CHECK(observe(run, 1.0) == HaltReason::kMaxSteps);
  CHECK_EQ(run.step_idx(), 2U);
}

TEST("the best state is the lowest of the feasible ones, the earlier of two equals") {
  Run run(1, patient(), 0, 0);
  observe(run, 1.0, false);
  CHECK(run.best_is_current());
  observe(run, 5.0, true);
  CHECK_EQ(run.best_step(), 1U);
  observe(run, 0.5, false);
  CHECK_EQ(run.best_E(), 5.0);
  observe(run, 4.0, true);
  observe(run, 4.0, true);
  CHECK_EQ(run.best_step(), 3U);
  CHECK(!run.best_is_current());
}

TEST("a NaN energy ends the run and leaves the best alone") {
  Run run(1, patient(), 0, 0);
  observe(run, 2.0);
  CHECK(observe(run, kNaN) == HaltReason::kDiverged);
  CHECK_EQ(run.best_E(), 2.0);
  CHECK_EQ(run.best_step(), 0U);
}

TEST("with no finite energy at all state 0 stands in as the best") {
  Run run(1, patient(), 0, 0);
  CHECK(observe(run, kNaN) == HaltReason::kDiverged);
  CHECK(run.best_is_current());
  CHECK(std::isinf(run.best_E()));
}

TEST("energies converge on the scale of the plugin") {
  HaltPolicy policy;
  policy.K = 1;
  policy.eps = 1e-2;
  policy.E_scale = 100.0;
  Run run(1, policy, 0, 0);
  CHECK(observe(run, 80.0) == HaltReason::kRunning);
  CHECK(observe(run, 79.5) == HaltReason::kSlope);
}

TEST("the budget is checked before a step, with the price of the last one") {
  HaltPolicy policy = patient();
  policy.budget_us = 25.0;
  Run run(1, policy, 0, 0);
  CHECK(observe(run, 3.0, true, 5.0) == HaltReason::kRunning);
  CHECK(observe(run, 2.0, true, 10.0) == HaltReason::kRunning);
  CHECK(observe(run, 1.0, true, 10.0) == HaltReason::kBudget);
  CHECK_EQ(run.spent_us(), 25.0);
}

TEST("a record tells the state, the statistics and the flags") {
  Run run(42, patient(), 7, 3);
  observe(run, 3.0);
  Observation second{1.0};
  second.residual = 0.25;
  second.charge_us = 8.0;
  run.observe(second);
  const sage::Record record = run.record(99);
  CHECK_EQ(record.run_id, 42U);
  CHECK_EQ(record.time_ns, 99);
  CHECK_EQ(record.E, 1.0F);
  CHECK_EQ(record.dE, -2.0F);
  CHECK_EQ(record.E0, 3.0F);
  CHECK_EQ(record.best_E, 1.0F);
  CHECK_EQ(record.residual, 0.25F);
  CHECK_EQ(record.monotonicity_ratio, 1.0F);
  CHECK_EQ(record.spent_us, 8.0F);
  CHECK_EQ(record.step_idx, 1U);
  CHECK_EQ(int{record.branch}, 3);
  CHECK_EQ(int{record.plugin}, 7);
  CHECK(record.halt_reason == HaltReason::kRunning);
  CHECK_EQ(int{record.flags}, sage::kFlagFeasible | sage::kFlagBest);
}

TEST("a run that goes astray is due for a rewind instead of ending, as often as it may") {
  HaltPolicy policy = patient();
  policy.rewinds = 1;
  Run run(1, policy, 0, 0);
  observe(run, 2.0);
  CHECK(observe(run, kNaN) == HaltReason::kRunning);
  CHECK(run.rewind_due());
  run.rewind(2.0, true, 5);
  CHECK(!run.rewind_due());
  CHECK_EQ(int{run.record(0).branch}, 5);
  CHECK((run.record(0).flags & sage::kFlagRewound) != 0);
  CHECK_EQ(run.record(0).dE, 0.0F);
  CHECK(observe(run, 1.0) == HaltReason::kRunning);
  CHECK_EQ(run.record(0).dE, -1.0F);
  CHECK((run.record(0).flags & sage::kFlagRewound) == 0);
  CHECK_EQ(run.step_idx(), 2U);
  CHECK_EQ(run.trust().n(), 1U);
  CHECK(observe(run, kNaN) == HaltReason::kDiverged);
  CHECK_EQ(run.best_E(), 1.0);
}

TEST("an energy that rises above the best by more than is allowed is astray too") {
  HaltPolicy policy = patient();
  policy.rewinds = 3;
  policy.rise = 0.5;
  policy.E_scale = 2.0;
  Run run(1, policy, 0, 0);
  observe(run, 4.0);
  observe(run, 1.0);
  CHECK(observe(run, 2.0) == HaltReason::kRunning);
  CHECK(!run.rewind_due());
  observe(run, 2.1);
  CHECK(run.rewind_due());
  run.rewind(1.0, true, 1);
  CHECK(std::fabs(run.record(0).dE - -1.1F) < 1e-6F);
}

TEST("nothing is rewound when no step is left, or no state was sound") {
  HaltPolicy policy = patient();
  policy.rewinds = 1;
  policy.max_steps = 1;
  Run out_of_steps(1, policy, 0, 0);
  observe(out_of_steps, 2.0);
  CHECK(observe(out_of_steps, kNaN) == HaltReason::kDiverged);
  Run unsound(2, policy, 0, 0);
  CHECK(observe(unsound, kNaN) == HaltReason::kDiverged);
}

TEST("what a plugin decided goes before the rule, and divergence before both") {
  HaltPolicy policy = patient();
  policy.max_steps = 1;
  Run decided(1, policy, 0, 0);
  CHECK(decide(decided, 2.0, HaltReason::kRunning) == HaltReason::kRunning);
  CHECK(decide(decided, 1.0, HaltReason::kConfidence) == HaltReason::kConfidence);
  CHECK(decided.record(0).halt_reason == HaltReason::kConfidence);
  CHECK_EQ(decided.best_E(), 1.0);
  Run unsound(2, policy, 0, 0);
  observe(unsound, 2.0);
  CHECK(decide(unsound, kNaN, HaltReason::kSlope) == HaltReason::kDiverged);
}

TEST("nothing is rewound where the plugin has decided, whatever it has decided") {
  HaltPolicy policy = patient();
  policy.rewinds = 1;
  policy.rise = 0.5;
  for (const double E : {2.0, kNaN}) {
    for (const HaltReason reason : {HaltReason::kSlope, HaltReason::kDiverged}) {
      Run run(1, policy, 0, 0);
      observe(run, 1.0);
      const HaltReason ended = decide(run, E, reason);
      CHECK(ended == (std::isnan(E) ? HaltReason::kDiverged : reason));
      CHECK(!run.rewind_due());
      CHECK_EQ(run.best_E(), 1.0);
    }
  }
}

TEST("the energies before a rewind do not count as a slope") {
  HaltPolicy policy;
  policy.K = 1;
  policy.eps = 1e-3;
  policy.rewinds = 1;
  Run run(1, policy, 0, 0);
  observe(run, 2.0);
  observe(run, kNaN);
  run.rewind(2.0, true, 1);
  CHECK(observe(run, 1.0) == HaltReason::kRunning);
  CHECK(observe(run, 1.0) == HaltReason::kSlope);
}

TEST("a budget moves while a run goes on") {
  HaltPolicy policy = patient();
  policy.budget_us = 100.0;
  Run run(1, policy, 0, 0);
  observe(run, 3.0, true, 5.0);
  CHECK(run.set_budget(12.0));
  CHECK(!run.set_budget(9.0));
  run.set_budget(12.0);
  CHECK(observe(run, 2.0, true, 5.0) == HaltReason::kBudget);
}

TEST("closing keeps the step and marks the record") {
  Run run(1, patient(), 0, 0);
  observe(run, 3.0);
  run.close(HaltReason::kCancelled);
  const sage::Record record = run.record(5);
  CHECK_EQ(record.step_idx, 0U);
  CHECK(record.halt_reason == HaltReason::kCancelled);
  CHECK((record.flags & sage::kFlagClosing) != 0);
  CHECK(std::isnan(record.dE));
}
