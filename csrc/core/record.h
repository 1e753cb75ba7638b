#pragma once

#include <cstddef>
#include <cstdint>

namespace sage {

/// Why a run ended; the wire names are in `kHaltReasonNames`.
enum class HaltReason : std::uint8_t {
  kRunning = 0,
  kSlope = 1,
  kFeasible = 2,
  kMaxSteps = 3,
  kTimeout = 4,
  kConfidence = 5,
  kDiverged = 6,
  kBudget = 7,
  kGlobalHalt = 8,
  kCancelled = 9,
  kError = 10,
};

/// Wire names by code. Code 0, still running, has none.
inline constexpr const char* kHaltReasonNames[] = {
    nullptr,    "slope<eps", "feasible",    "max_steps", "timeout", "confidence",
    "diverged", "budget",    "global_halt", "cancelled", "error",
};

/// The protocol's own word for each, by code: it has four, and the nearest stands for those that it lacks.
inline constexpr const char* kProtocolReasons[] = {
    nullptr,   "slope<eps", "feasible",  "max_steps", "timeout", "feasible",
    "timeout", "max_steps", "slope<eps", "timeout",   "timeout",
};

inline constexpr std::uint8_t kFlagFeasible = 1;  ///< the state is feasible
inline constexpr std::uint8_t kFlagClosing = 2;   ///< the run was ended between steps: not a new state
inline constexpr std::uint8_t kFlagBest = 4;      ///< this state is the best so far
inline constexpr std::uint8_t kFlagRewound = 8;   ///< the run went back to this state from that of step_idx

/// One telemetry line as it leaves the loop: a cache line, written once, in native byte order.
struct alignas(64) Record {
  std::uint64_t seq;         ///< ticket 0, 1, 2, ... of the record in its ring
  std::uint64_t run_id;      ///< which refinement
  std::int64_t time_ns;      ///< the caller's monotonic clock
  float E;                   ///< energy of the state
  float dE;                  ///< E minus the energy of the record before; NaN at step 0
  float E0;                  ///< energy of the first state
  float best_E;              ///< energy of the best state; infinite while there is none
  float residual;            ///< ||z_k - z_{k-1}|| / ||z_k||; NaN at step 0
  float monotonicity_ratio;  ///< 0 while no step was taken
  float dE_variance;         ///< 0 while no step was taken
  float spent_us;            ///< compute charged to the run so far, microseconds
  std::uint32_t step_idx;    ///< steps taken
  std::uint8_t branch;
  std::uint8_t plugin;  ///< small integer that the refiner gave its plugin
  HaltReason halt_reason;
  std::uint8_t flags;  ///< kFlag...
};

static_assert(sizeof(Record) == 64, "a record is one cache line");
static_assert(offsetof(Record, time_ns) == 16 && offsetof(Record, E) == 24, "wire layout");
static_assert(offsetof(Record, step_idx) == 56 && offsetof(Record, flags) == 63, "wire layout");

}  // namespace sage
