#include "device/refine_loop.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

#include "core/errors.h"
#include "device/clock.cuh"
#include "device/condition.cuh"

namespace sage {

namespace {

constexpr std::int64_t kRecalibrate_ns = 10'000'000'000;  // clocks drift apart by some ten parts in a million
constexpr std::int64_t kLook_ns = 50'000'000;             // a device that has failed is noticed after so long
constexpr std::chrono::microseconds kShortestNap{5};
constexpr std::chrono::microseconds kLongestNap{50};
constexpr std::size_t kRingPerSlot = 4;  // the records of a tick never lap each other

std::int64_t monotonic_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

void require(bool holds, const std::string& message) {
  if (!holds) throw ConfigError("loop: " + message);
}

LoopShape checked(const LoopShape& shape, const Ring& ring) {
  require(!shape.widths.empty() && shape.widths.front() > 0, "expected at least one width above 0");
  require(std::adjacent_find(shape.widths.begin(), shape.widths.end(), std::greater_equal<>()) ==
              shape.widths.end(),
          "expected widths that rise");
  const std::int32_t slots = shape.widths.back();
  require(shape.rows >= slots,
          "expected at least " + std::to_string(slots) + " rows, got " + std::to_string(shape.rows));
  require(shape.elements > 0, "expected states of at least one element");
  require(shape.terms > 0 || shape.residual_weight > 0.0, "expected energy terms or a residual weight");
  require(shape.context_bytes.size() < static_cast<std::size_t>(kMostArrays),
          "expected at most " + std::to_string(kMostArrays - 1) + " context arrays, got " +
              std::to_string(shape.context_bytes.size()));
  require(shape.lo <= shape.hi, "expected lo <= hi");
  require(ring.capacity() >= kRingPerSlot * static_cast<std::size_t>(slots),
          "expected a ring of at least " + std::to_string(kRingPerSlot) + " records per slot, got " +
              std::to_string(ring.capacity()));
  return shape;
}

/// The device's address of a ring. @throws ConfigError when it has none.
RingSpan on_device(const Ring& ring) {
  void* device = nullptr;
  const cudaError_t status = cudaHostGetDevicePointer(&device, ring.span().slots, 0);
  static_cast<void>(cudaGetLastError());
  require(status == cudaSuccess, "expected a ring in mapped memory; make it with mapped_ring()");
  return {static_cast<RingSlot*>(device), ring.capacity()};
}

std::uint64_t element_bytes(const LoopShape& shape) { return shape.half ? sizeof(Half) : sizeof(float); }

template <class T>
DeviceRows<T> device_rows(const LoopShape& shape, const BodyArrays& arrays, void* best, ChunkSums* chunk_sums,
                          std::uint32_t* arrivals) {
  return {static_cast<T*>(arrays.z),
          static_cast<const T*>(arrays.delta),
          static_cast<T*>(best),
          arrays.step_size,
          shape.noise_sigma,
          shape.seed,
          shape.lo,
          shape.hi,
          chunk_sums,
          arrivals};
}

}  // namespace

RefineLoop::RefineLoop(const LoopShape& shape, const Ring& ring)
    : shape_(checked(shape, ring)),
      stream_(make_stream()),
      copy_stream_(make_stream()),
      taken_(static_cast<std::size_t>(shape.rows)),
      slots_(static_cast<std::size_t>(slots())),
      sums_(slots_.size()),
      state_(1),
      waiting_(taken_.size()),
      entries_(taken_.size()),
      queue_(taken_.size()),
      controls_(taken_.size()),
      desk_(1),
      outcomes_(taken_.size()),
      report_(1),
      clock_(1),
      first_terms_(taken_.size() * static_cast<std::size_t>(std::max(shape.terms, 1))),
      energy_terms_(slots_.size() * static_cast<std::size_t>(std::max(shape.terms, 1))),
      step_size_(slots_.size()),
      delta_(slots_.size() * shape.elements * element_bytes(shape)),
      best_(delta_.size()),
      chunk_sums_(slots_.size() * chunks(shape.elements)),
      arrivals_(slots_.size() + 1),
      exchange_arrivals_(slots_.size()) {
  make_arrays();
  loop_ = {
      slots_.data(),       sums_.data(),         state_.data(),          entries_.device(),  queue_.device(),
      controls_.device(),  desk_.device(),       waiting_.data(),        outcomes_.device(), report_.device(),
      first_terms_.data(), energy_terms_.data(), on_device(ring),        taken_.size(),      slots(),
      shape_.terms,        shape_.elements,      shape_.residual_weight, shape_.plugin};
  make_lanes();
}

RefineLoop::~RefineLoop() {
  for (std::int32_t row = 0; row < shape_.rows; ++row) {
    if (taken_[static_cast<std::size_t>(row)]) stop(row, HaltReason::kError);
  }
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
}

void RefineLoop::make_arrays() {
  std::vector<std::uint64_t> row_bytes = {shape_.elements * element_bytes(shape_)};
  row_bytes.insert(row_bytes.end(), shape_.context_bytes.begin(), shape_.context_bytes.end());
  for (std::size_t i = 0; i < row_bytes.size(); ++i) {
    in_slots_.emplace_back(slots_.size() * row_bytes[i]);
    in_store_.emplace_back(taken_.size() * row_bytes[i]);
    row_arrays_.arrays[i] = {in_slots_[i].data(), in_store_[i].data(), row_bytes[i]};
    if (i > 0) body_arrays_.context.push_back(in_slots_[i].data());
  }
  row_arrays_.count = static_cast<std::int32_t>(row_bytes.size());
  row_arrays_.best = best_.data();
  row_arrays_.arrivals = exchange_arrivals_.data();
  body_arrays_.z = in_slots_[0].data();
  body_arrays_.step_size = step_size_.data();
  body_arrays_.delta = delta_.data();
  body_arrays_.energy_terms = energy_terms_.data();

  const std::vector<Slot> free_slots(slots_.size());
  const std::vector<float> sizes(slots_.size(), shape_.step_size);
  SAGE_CUDA_TRY(cudaMemcpy(slots_.data(), free_slots.data(), slots_.size_bytes(), cudaMemcpyHostToDevice));
  SAGE_CUDA_TRY(cudaMemcpy(step_size_.data(), sizes.data(), step_size_.size_bytes(), cudaMemcpyHostToDevice));
  // Zeroing and copying may outlast their calls, and the loop's streams do not wait for the default one.
  SAGE_CUDA_TRY(cudaDeviceSynchronize());
}

void RefineLoop::make_lanes() {
  std::int32_t narrower = 0;
  for (const std::int32_t width : shape_.widths) {
    Lane lane;
    lane.width = {width, narrower, shape_.ticks};
    lanes_.push_back(std::move(lane));
    narrower = width;
  }
}

void RefineLoop::prepare(Body body, LoopMode wanted) {
  body_ = std::move(body);
  for (const Lane& lane : lanes_) body_(lane.width.slots, stream_.get());
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
  try_modes(wanted);
  calibrate_clock();
}

void RefineLoop::try_modes(LoopMode wanted) {
  mode_reason_ = wanted == LoopMode::kWhileGraph ? why_no_while() : "";
  mode_ = mode_reason_.empty() ? wanted : LoopMode::kHostGraphs;
  while (mode_ != LoopMode::kLaunches) {
    try {
      for (Lane& lane : lanes_) build(lane);
      return;
    } catch (const CudaError& error) {
      mode_reason_ += (mode_reason_.empty() ? "" : "; ") + std::string(error.what());
      mode_ = mode_ == LoopMode::kWhileGraph ? LoopMode::kHostGraphs : LoopMode::kLaunches;
    }
  }
}

/// A graph that is ready to be launched: its first launch would load it, and allocate.
GraphExec RefineLoop::loaded(const Graph& graph) const {
  GraphExec exec = instantiate(graph);
  SAGE_CUDA_TRY(cudaGraphUpload(exec.get(), stream_.get()));
  return exec;
}

void RefineLoop::build(Lane& lane) {
  const Width width = lane.width;
  const cudaStream_t stream = stream_.get();
  // A capture on the wrong device gives an empty graph and no error.
  const Graph engine = capture([&](cudaStream_t on) { body_(width.slots, on); }, stream);
  if (node_count(engine) == 0) throw CudaError("step engine: expected it to enqueue work, captured nothing");
  if (mode_ == LoopMode::kHostGraphs) {
    lane.begin = loaded(capture([&](cudaStream_t on) { enqueue_begin(width, on); }, stream));
    lane.tick = loaded(capture([&](cudaStream_t on) { enqueue_tick(width, on); }, stream));
    return;
  }
  const auto condition = [&](cudaGraphConditionalHandle handle, cudaStream_t on) {
    SAGE_CUDA_TRY(launch_set_condition(handle, &state_.data()->go_on, on));
  };
  lane.loop = loaded(while_graph(
      [&](cudaGraphConditionalHandle handle, cudaStream_t on) {
        enqueue_begin(width, on);
        condition(handle, on);
      },
      [&](cudaGraphConditionalHandle handle, cudaStream_t on) {
        enqueue_tick(width, on);
        condition(handle, on);
      },
      stream));
}

void RefineLoop::enqueue_begin(const Width& width, cudaStream_t stream) const {
  SAGE_CUDA_TRY(launch_begin(loop_, width, stream));
  SAGE_CUDA_TRY(launch_exchange(row_arrays_, loop_, slots(), stream));
}

void RefineLoop::enqueue_tick(const Width& width, cudaStream_t stream) const {
  body_(width.slots, stream);
  const auto step = [&](const auto& rows) { SAGE_CUDA_TRY(launch_latent_step(rows, loop_, width, stream)); };
  if (shape_.half) {
    step(device_rows<Half>(shape_, body_arrays_, best_.data(), chunk_sums_.data(), arrivals_.data()));
  } else {
    step(device_rows<float>(shape_, body_arrays_, best_.data(), chunk_sums_.data(), arrivals_.data()));
  }
  SAGE_CUDA_TRY(launch_exchange(row_arrays_, loop_, width.slots, stream));
}

std::int64_t RefineLoop::measure_body_ns(std::int32_t width) {
  const std::int64_t start_ns = monotonic_ns();
  body_(width, stream_.get());
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
  return monotonic_ns() - start_ns;
}

void* RefineLoop::row(std::int32_t array, std::int32_t row) const {
  require(array >= 0 && array < row_arrays_.count,
          "expected an array below " + std::to_string(row_arrays_.count) + ", got " + std::to_string(array));
  const RowArray& rows = row_arrays_.arrays[array];
  return rows.store + static_cast<std::uint64_t>(checked_row(row)) * rows.row_bytes;
}

std::int32_t RefineLoop::checked_row(std::int32_t row) const {
  require(row >= 0 && row < shape_.rows,
          "expected a row below " + std::to_string(shape_.rows) + ", got " + std::to_string(row));
  return row;
}

const Run& RefineLoop::outcome(std::int32_t row) const { return outcomes_.host()[checked_row(row)].run; }

void RefineLoop::copy(void* target, const void* source, std::size_t size_bytes) {
  SAGE_CUDA_TRY(cudaMemcpyAsync(target, source, size_bytes, cudaMemcpyDefault, copy_stream_.get()));
}

void RefineLoop::wait_copies() { SAGE_CUDA_TRY(cudaStreamSynchronize(copy_stream_.get())); }

void RefineLoop::hand_in(std::int32_t row, const Entry& entry) {
  require(!taken_[static_cast<std::size_t>(checked_row(row))], "row " + std::to_string(row) + " is taken");
  Desk& desk = *desk_.host();
  outcomes_.host()[row].done = 0;
  controls_.host()[row].stop = 0;
  limit(row, entry.policy.max_steps, entry.policy.deadline_ns);
  set_budget(row, entry.policy.budget_us);
  entries_.host()[row] = entry;
  queue_.host()[desk.handed_in % queue_.size()] = row;
  system_atomic::store_release(desk.handed_in, desk.handed_in + 1);
  taken_[static_cast<std::size_t>(row)] = true;
  ++under_way_;
}

void RefineLoop::limit(std::int32_t row, std::int32_t max_steps, std::int64_t deadline_ns) {
  Control& control = controls_.host()[checked_row(row)];
  system_atomic::store_relaxed(control.max_steps, static_cast<std::uint64_t>(max_steps));
  system_atomic::store_relaxed(control.deadline_ns, static_cast<std::uint64_t>(deadline_ns));
}

void RefineLoop::set_budget(std::int32_t row, double budget_us) {
  system_atomic::store_relaxed(controls_.host()[checked_row(row)].budget_us, to_bits(budget_us));
}

void RefineLoop::stop(std::int32_t row, HaltReason reason) {
  system_atomic::store_relaxed(controls_.host()[checked_row(row)].stop, static_cast<std::uint64_t>(reason));
}

void RefineLoop::set_margin_ns(std::int64_t margin_ns) {
  system_atomic::store_relaxed(desk_.host()->margin_ns, static_cast<std::uint64_t>(margin_ns));
}

std::vector<std::int32_t> RefineLoop::drive(double timeout_s) {
  const std::int64_t end_ns = monotonic_ns() + static_cast<std::int64_t>(std::min(timeout_s, 1e9) * 1e9);
  auto nap = kShortestNap;
  std::vector<std::int32_t> done = take_done();
  while (done.empty() && under_way_ > 0) {
    if (!going()) {
      // What the last launch had still to do when it decided to stop, before anything new is begun.
      SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
      done = take_done();
      if (done.empty()) begin();
    } else if (mode_ != LoopMode::kWhileGraph) {
      tick();
    } else {
      std::this_thread::sleep_for(nap);
      nap = std::min(2 * nap, kLongestNap);
      look_for_errors();
    }
    if (done.empty()) done = take_done();
    if (monotonic_ns() >= end_ns) break;
  }
  return done;
}

std::optional<Run> RefineLoop::peek(std::int32_t row, void* target) {
  checked_row(row);
  pause();
  std::vector<Slot> now(slots_.size());
  SAGE_CUDA_TRY(cudaMemcpy(now.data(), slots_.data(), slots_.size_bytes(), cudaMemcpyDeviceToHost));
  for (std::size_t slot = 0; slot < now.size(); ++slot) {
    if (now[slot].row != row) continue;
    const RowArray& z = row_arrays_.arrays[0];
    const unsigned char* states = now[slot].run.best_is_current() ? z.slots : best_.data();
    SAGE_CUDA_TRY(cudaMemcpy(target, states + slot * z.row_bytes, z.row_bytes, cudaMemcpyDefault));
    return now[slot].run;
  }
  return std::nullopt;
}

/// Leaves nothing running on the device; `drive` begins anew.
void RefineLoop::pause() {
  system_atomic::store_relaxed(desk_.host()->pause, 1);
  const cudaError_t status = cudaStreamSynchronize(stream_.get());
  system_atomic::store_relaxed(desk_.host()->pause, 0);
  SAGE_CUDA_TRY(status);
}

/// Waiting makes no call of CUDA but this one, now and then.
void RefineLoop::look_for_errors() {
  if (monotonic_ns() - looked_ns_ < kLook_ns) return;
  looked_ns_ = monotonic_ns();
  const cudaError_t status = cudaStreamQuery(stream_.get());
  if (status != cudaErrorNotReady) SAGE_CUDA_TRY(status);
}

bool RefineLoop::going() const {
  const Report& report = *report_.host();
  if (system_atomic::load_acquire(report.launches) < launches_) return true;  // it has yet to begin
  return system_atomic::load_acquire(report.go_on) != 0;
}

void RefineLoop::begin() {
  if (monotonic_ns() - calibrated_ns_ > kRecalibrate_ns) calibrate_clock();
  lane_ = &choose_lane();
  ++launches_;
  if (mode_ == LoopMode::kWhileGraph) {
    SAGE_CUDA_TRY(cudaGraphLaunch(lane_->loop.get(), stream_.get()));
    return;
  }
  if (mode_ == LoopMode::kHostGraphs) {
    SAGE_CUDA_TRY(cudaGraphLaunch(lane_->begin.get(), stream_.get()));
  } else {
    enqueue_begin(lane_->width, stream_.get());
  }
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
}

void RefineLoop::tick() {
  if (mode_ == LoopMode::kHostGraphs) {
    SAGE_CUDA_TRY(cudaGraphLaunch(lane_->tick.get(), stream_.get()));
  } else {
    enqueue_tick(lane_->width, stream_.get());
  }
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
}

/// The narrowest batch that holds every live run and everybody who waits. Only while the loop has stopped.
const RefineLoop::Lane& RefineLoop::choose_lane() const {
  const std::uint64_t waiting = desk_.host()->handed_in - system_atomic::load_relaxed(report_.host()->dealt);
  const std::uint64_t wanted = live() + waiting;
  for (const Lane& lane : lanes_) {
    if (static_cast<std::uint64_t>(lane.width.slots) >= wanted) return lane;
  }
  return lanes_.back();
}

std::vector<std::int32_t> RefineLoop::take_done() {
  std::vector<std::int32_t> done;
  for (std::int32_t row = 0; row < shape_.rows; ++row) {
    const auto index = static_cast<std::size_t>(row);
    if (!taken_[index] || system_atomic::load_acquire(outcomes_.host()[row].done) == 0) continue;
    taken_[index] = false;
    --under_way_;
    done.push_back(row);
  }
  return done;
}

std::uint64_t RefineLoop::ticks() const { return system_atomic::load_relaxed(report_.host()->ticks); }

std::uint64_t RefineLoop::live() const { return system_atomic::load_relaxed(report_.host()->running); }

/// The clock is read between two readings of the host's; of five tries the one that took least counts.
void RefineLoop::calibrate_clock() {
  std::int64_t least_ns = std::numeric_limits<std::int64_t>::max();
  std::uint64_t offset_ns = 0;
  for (int round = 0; round < 5; ++round) {
    const std::int64_t before_ns = monotonic_ns();
    SAGE_CUDA_TRY(launch_read_clock(clock_.device(), stream_.get()));
    SAGE_CUDA_TRY(cudaStreamSynchronize(stream_.get()));
    const std::int64_t took_ns = monotonic_ns() - before_ns;
    if (took_ns >= least_ns) continue;
    least_ns = took_ns;
    offset_ns = static_cast<std::uint64_t>(before_ns + took_ns / 2) - *clock_.host();
  }
  system_atomic::store_relaxed(desk_.host()->clock_offset_ns, offset_ns);
  calibrated_ns_ = monotonic_ns();
}

}  // namespace sage
