#pragma once

#include <tuple>

#include "bindings/halt_names.h"
#include "core/run.h"

namespace sage::bindings {

/// The fields of sage_edge.native.RunSummary, in its order.
inline auto summary_fields(const Run& run) {
  return std::make_tuple(run.run_id(), run.step_idx(), run.E(), run.E0(), run.best_E(), run.best_step(),
                         wire_name(run.halt_reason()), run.residual(), run.spent_us(),
                         run.trust().monotonicity_ratio(), run.trust().dE_variance(),
                         run.trust().convergence_rate(run.E0(), run.E()), run.best_is_current(),
                         run.feasible(), run.branch(), run.rewinds(), run.best_feasible());
}

}  // namespace sage::bindings
