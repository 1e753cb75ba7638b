#pragma once

#include <cstddef>
#include <cstdint>

#include "core/slot_table.h"
#include "core/thread_pool.h"

namespace sage {

/// Borrowed state of all slots: float32 rows of `elements`, one per slot of the table. The arrays do not
/// overlap.
struct LatentRows {
  float* z;            ///< [capacity, elements], the states
  const float* delta;  ///< [>= live, elements], the step engine's directions
  float* best;         ///< [capacity, elements], see latent_step
  std::size_t elements;
};

/// What one tick is told besides the states. Null pointers stand for "none"; rows above the live slots are
/// not read.
struct TickInputs {
  const float* step_size;     ///< [capacity]
  const float* energy_terms;  ///< [live, terms] or null
  std::size_t terms;
  const std::uint8_t* feasible;  ///< [live] or null: all feasible
  const double* gap;             ///< [live] or null: all 0
  double residual_weight;
  float noise_sigma;
  std::uint64_t seed;
  float lo;
  float hi;
  std::int64_t now_ns;
  std::int64_t margin_ns;
  double tick_us;
};

/// One step of every running run in `slots`: for its row
///
///   z_new    = clamp(z + step_size * delta + noise_sigma * n, lo, hi)     n ~ N(0, 1)
///   E        = mean(energy_terms) + residual_weight * mean((z_new - z)^2)
///   residual = ||z_new - z|| / max(||z_new||, 1e-12)
///
/// then the run observes (E, residual), is charged an equal share of `tick_us`, and its record is published.
/// n is a function of (seed, run_id, step_idx of z, element) alone. A row of delta that is not finite makes E
/// NaN.
///
/// `best` is kept lazily: a run whose state is its best has it in `z`, and an update that does not improve on
/// it saves it to `best` on the way. So the best state of a slot is `z` if run.best_is_current(), otherwise
/// `best`.
///
/// `reasons[slot]` receives each live run's halt reason; a run that had ended before is left as it is.
///
/// Threads: the calling one is the ring's producer; `pool` (or null) helps when there is enough to do.
/// Bits:    do not depend on the pool, the slot, the other slots or the instruction set.
void latent_step(SlotTable& slots, const LatentRows& rows, const TickInputs& tick, ThreadPool* pool,
                 HaltReason* reasons);

}  // namespace sage
