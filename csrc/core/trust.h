#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/hd.h"

namespace sage {

/// Trust statistics of one run, updated per step without keeping the history (Welford, 1962).
/// See docs/IRP_PROTOCOL.md#4-trust. A change that is not finite ends the run and is not counted.
class TrustStatistics {
 public:
  SAGE_HD void observe(double dE) {
    if (!std::isfinite(dE)) return;
    ++n_;
    falls_ += dE < 0.0 ? 1U : 0U;
    const double before = dE - mean_;
    mean_ += before / n_;
    squares_ += before * (dE - mean_);
  }

  /// Changes seen.
  SAGE_HD std::uint32_t n() const { return n_; }
  /// Share of the steps that lowered the energy; 0 while there is none.
  SAGE_HD double monotonicity_ratio() const { return n_ == 0 ? 0.0 : static_cast<double>(falls_) / n_; }
  /// Population variance of dE; 0 while there is no step.
  SAGE_HD double dE_variance() const { return n_ == 0 ? 0.0 : squares_ / n_; }
  /// (E_0 - E_n) / n; NaN while there is no step.
  SAGE_HD double convergence_rate(double E0, double En) const {
    return n_ == 0 ? std::numeric_limits<double>::quiet_NaN() : (E0 - En) / n_;
  }

 private:
  std::uint32_t n_ = 0;
  std::uint32_t falls_ = 0;
  double mean_ = 0.0;
  double squares_ = 0.0;
};

}  // namespace sage
