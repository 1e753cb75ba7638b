#include "kernels/latent_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/clones.h"
#include "kernels/latent_math.h"

namespace sage {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTinyNorm = 1e-12;
constexpr float kSafeBound = 1e15F;  // squares of states up to here add up without overflow
// Elements in a tick; below, waking the pool's threads twice costs more than they save.
constexpr std::size_t kWorthWaking = 1 << 18;

SAGE_CLONES ChunkSums update_plain(const Move& move, float* z, const float* delta, std::size_t count) {
  return update_chunk<false>(move, z, delta, nullptr, count);
}

SAGE_CLONES ChunkSums update_noisy(const Move& move, float* z, const float* delta, const float* noise,
                                   std::size_t count) {
  return update_chunk<true>(move, z, delta, noise, count);
}

SAGE_CLONES void make_noise(const NoiseKey& key, std::size_t first, std::size_t count, float* noise) {
  fill_normal(key, first, count, noise);
}

SAGE_CLONES bool finite_chunk(const float* values, std::size_t count) { return all_finite(values, count); }

/// What is decided about a row before it is touched.
struct RowPlan {
  std::size_t slot;
  double E_terms;    // mean of the energy terms, 0 without
  bool check_delta;  // the state before is the best so far and would be overwritten: look before
  bool save_best;    // copy the state before to `best`
};

/// One tick, cut into items: chunk c of planned row r is item r * chunks + c, in every loop.
class Tick {
 public:
  Tick(const SlotTable& slots, const LatentRows& rows, const TickInputs& inputs)
      : slots_(slots), rows_(rows), in_(inputs), chunks_((rows.elements + kChunk - 1) / kChunk) {
    for (std::size_t slot = 0; slot < slots.live(); ++slot) {
      if (slots.run(slot).running()) plans_.push_back(plan(slot));
    }
    sums_.resize(plans_.size() * chunks_);
  }

  void run(ThreadPool* pool) {
    ThreadPool* helper = plans_.size() * rows_.elements >= kWorthWaking ? pool : nullptr;
    // A long row is finished before the next is begun: what the check has read is then still in a cache.
    const std::size_t together = rows_.elements >= kWorthWaking ? 1 : std::max<std::size_t>(plans_.size(), 1);
    for (std::size_t row = 0; row < plans_.size(); row += together) run_rows(helper, row, row + together);
  }

  std::size_t rows() const { return plans_.size(); }
  std::size_t slot(std::size_t row) const { return plans_[row].slot; }

  /// The new state of a row, after run().
  Observation observe(std::size_t row) const {
    const RowPlan& plan = plans_[row];
    const ChunkSums sums = total(row);
    Observation seen{};
    seen.E = plan.E_terms + in_.residual_weight * sums.change / static_cast<double>(rows_.elements);
    if (!finite(sums)) seen.E = kNaN;
    seen.feasible = feasible(plan.slot);
    seen.gap = in_.gap == nullptr ? 0.0 : in_.gap[plan.slot];
    seen.residual = std::sqrt(sums.change) / std::max(std::sqrt(sums.state), kTinyNorm);
    seen.now_ns = in_.now_ns;
    seen.margin_ns = in_.margin_ns;
    seen.charge_us = in_.tick_us / static_cast<double>(plans_.size());
    return seen;
  }

 private:
  RowPlan plan(std::size_t slot) const {
    const Run& run = slots_.run(slot);
    const double E_terms = mean_terms(slot);
    // Without a residual in it the energy of the new state is known already.
    const bool known = in_.residual_weight == 0.0 && bounded();
    const bool improves = known && run.improves(E_terms, feasible(slot));
    return {slot, E_terms, run.best_is_current() && improves, run.best_is_current() && !improves};
  }

  void run_rows(ThreadPool* pool, std::size_t first, std::size_t last) {
    const std::size_t begin = first * chunks_;
    const std::size_t items = (last - first) * chunks_;
    const auto checked = [](const RowPlan& row) { return row.check_delta; };
    if (std::any_of(plans_.begin() + static_cast<std::ptrdiff_t>(first),
                    plans_.begin() + static_cast<std::ptrdiff_t>(last), checked)) {
      for_ranges(pool, items, [=](std::size_t from, std::size_t to) { check(begin + from, begin + to); });
      for (std::size_t row = first; row < last; ++row) settle(row);
    }
    for_ranges(pool, items, [=](std::size_t from, std::size_t to) { update(begin + from, begin + to); });
    for (std::size_t row = first; row < last; ++row) keep_unsound(row);
  }

  /// Whether finite inputs cannot lead to sums that are not finite.
  bool bounded() const {
    return in_.lo >= -kSafeBound && in_.hi <= kSafeBound && in_.noise_sigma <= kSafeBound;
  }

  bool feasible(std::size_t slot) const { return in_.feasible == nullptr || in_.feasible[slot] != 0; }

  double mean_terms(std::size_t slot) const {
    if (in_.terms == 0) return 0.0;
    const float* terms = in_.energy_terms + slot * in_.terms;
    double sum = 0.0;
    for (std::size_t i = 0; i < in_.terms; ++i) sum += static_cast<double>(terms[i]);
    return sum / static_cast<double>(in_.terms);
  }

  /// Notes in sums_ which chunks of delta are not finite.
  void check(std::size_t begin, std::size_t end) {
    for (std::size_t item = begin; item < end; ++item) {
      if (!plans_[item / chunks_].check_delta) continue;
      const Span at = span(item);
      sums_[item].change = finite_chunk(rows_.delta + at.offset, at.count) ? 0.0 : kNaN;
    }
  }

  /// A row whose delta or step size is not finite will not improve: keep the state before.
  void settle(std::size_t row) {
    RowPlan& plan = plans_[row];
    if (!plan.check_delta) return;
    plan.save_best = !std::isfinite(total(row).change) || !std::isfinite(in_.step_size[plan.slot]);
  }

  void update(std::size_t begin, std::size_t end) {
    for (std::size_t item = begin; item < end; ++item) {
      const RowPlan& plan = plans_[item / chunks_];
      const Span at = span(item);
      float* z = rows_.z + at.offset;
      if (plan.save_best) std::memcpy(rows_.best + at.offset, z, at.count * sizeof(float));
      sums_[item] = update_one(plan.slot, z, at);
    }
  }

  struct Span {
    std::size_t offset;  // in the arrays
    std::size_t first;   // in the row
    std::size_t count;
  };

  Span span(std::size_t item) const {
    const std::size_t first = item % chunks_ * kChunk;
    return {plans_[item / chunks_].slot * rows_.elements + first, first,
            std::min(kChunk, rows_.elements - first)};
  }

  ChunkSums update_one(std::size_t slot, float* z, const Span& at) const {
    const float* delta = rows_.delta + at.offset;
    const Move move{in_.step_size[slot], in_.noise_sigma, in_.lo, in_.hi};
    if (in_.noise_sigma == 0.0F) return update_plain(move, z, delta, at.count);
    alignas(64) float noise[kChunk];
    const Run& run = slots_.run(slot);
    make_noise({in_.seed, run.run_id(), run.step_idx()}, at.first, at.count, noise);
    return update_noisy(move, z, delta, noise, at.count);
  }

  /// A row that came in without being finite has no good state to go back to: hand back its own rather than
  /// what an earlier run left in `best`.
  void keep_unsound(std::size_t row) {
    const RowPlan& plan = plans_[row];
    if (!plan.check_delta || plan.save_best || finite(total(row))) return;
    const std::size_t offset = plan.slot * rows_.elements;
    std::memcpy(rows_.best + offset, rows_.z + offset, rows_.elements * sizeof(float));
  }

  static bool finite(const ChunkSums& sums) {
    return std::isfinite(sums.change) && std::isfinite(sums.state);
  }

  ChunkSums total(std::size_t row) const {
    ChunkSums sum{0.0, 0.0};
    for (std::size_t item = row * chunks_; item < (row + 1) * chunks_; ++item) {
      sum.change += sums_[item].change;
      sum.state += sums_[item].state;
    }
    return sum;
  }

  const SlotTable& slots_;
  const LatentRows& rows_;
  const TickInputs& in_;
  std::size_t chunks_;
  std::vector<RowPlan> plans_;
  std::vector<ChunkSums> sums_;
};

}  // namespace

void latent_step(SlotTable& slots, const LatentRows& rows, const TickInputs& inputs, ThreadPool* pool,
                 HaltReason* reasons) {
  Tick tick(slots, rows, inputs);
  tick.run(pool);
  for (std::size_t row = 0; row < tick.rows(); ++row) slots.observe(tick.slot(row), tick.observe(row));
  for (std::size_t slot = 0; slot < slots.live(); ++slot) reasons[slot] = slots.run(slot).halt_reason();
}

}  // namespace sage
