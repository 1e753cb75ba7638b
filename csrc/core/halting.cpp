#include "core/halting.h"

#include <string>

#include "core/errors.h"

namespace sage {

namespace {

template <class T>
void require(bool holds, const char* field, const char* expected, T value) {
  if (holds) return;
  throw ConfigError(std::string("halt policy, ") + field + ": expected " + expected + ", got " +
                    std::to_string(value));
}

}  // namespace

// Written so that NaN fails: every comparison with it is false.
void validate(const HaltPolicy& policy) {
  require(policy.eps >= 0, "eps", "a number >= 0", policy.eps);
  require(policy.K >= 1 && policy.K <= kMaxK, "K", "1 to 15", policy.K);
  require(policy.max_steps >= 0, "max_steps", "a number >= 0", policy.max_steps);
  require(policy.E_scale > 0 && std::isfinite(policy.E_scale), "E_scale", "a finite number > 0",
          policy.E_scale);
  require(policy.divergence_factor >= 1, "divergence_factor", "a number >= 1", policy.divergence_factor);
  require(!std::isnan(policy.target_E_norm), "target_E_norm", "a number", policy.target_E_norm);
  require(policy.gap_tolerance >= 0, "gap_tolerance", "a number >= 0", policy.gap_tolerance);
  require(policy.budget_us >= 0, "budget_us", "a number >= 0", policy.budget_us);
  require(policy.deadline_ns >= 0, "deadline_ns", "a time >= 0", policy.deadline_ns);
  require(policy.rewinds >= 0, "rewinds", "a number >= 0", policy.rewinds);
  require(policy.rise >= 0, "rise", "a number >= 0", policy.rise);
}

}  // namespace sage
