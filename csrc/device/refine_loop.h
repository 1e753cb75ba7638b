#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/ring_memory.h"
#include "device/graphs.h"
#include "device/owners.h"
#include "kernels/exchange.cuh"
#include "kernels/latent_step.cuh"

namespace sage {

/// How ticks follow each other. Chosen once, by `RefineLoop::prepare`.
enum class LoopMode {
  kWhileGraph,  ///< one launch until the loop stops by itself; the host only reads
  kHostGraphs,  ///< one launch and one wait for each tick
  kLaunches,    ///< the same without graphs
};

inline constexpr const char* kLoopModeNames[] = {"while_graph", "host_graphs", "launches"};

/// What a loop is made for.
struct LoopShape {
  std::vector<std::int32_t> widths;          ///< of the batches, rising; the last one is the number of slots
  std::int32_t rows = 0;                     ///< requests that may be under way, those in slots included
  std::uint64_t elements = 0;                ///< of a state
  bool half = false;                         ///< states and directions are float16, not float32
  std::int32_t terms = 0;                    ///< energy terms of a state, float32
  std::vector<std::uint64_t> context_bytes;  ///< what a step reads besides, per request
  std::uint64_t ticks = 1024;                ///< at most so many in one launch
  float step_size = 1.0F;
  float noise_sigma = 0.0F;
  std::uint64_t seed = 0;
  float lo = 0.0F;
  float hi = 0.0F;
  double residual_weight = 0.0;
  std::uint8_t plugin = 0;
};

/// Memory of the device that a tick's body reads and writes, at addresses that stay.
struct BodyArrays {
  void* z;                     ///< [slots, elements], read
  std::vector<void*> context;  ///< [slots, bytes] each, read
  float* step_size;            ///< [slots], read
  void* delta;                 ///< [slots, elements], written
  float* energy_terms;         ///< [slots, terms], written
};

/// Refines requests in slots on the device: the whole loop is there, the host hands in and takes out.
///
/// Owns:    a stream and every array; borrows the ring, whose memory is mapped and whose producer it is.
/// Threads: one at a time, with the device current that it was made on. Readers of the ring: any.
/// Memory:  nothing is allocated after `prepare`.
/// Errors:  CudaError. After one from `drive` the device's state is unknown: make a new loop.
class RefineLoop {
 public:
  /// Enqueues the step engine for the first `width` slots: z, context, step_size -> delta, energy_terms.
  using Body = std::function<void(std::int32_t width, cudaStream_t stream)>;

  /// @throws ConfigError for a shape that has no meaning, or a ring that is not mapped or too small.
  RefineLoop(const LoopShape& shape, const Ring& ring);
  ~RefineLoop();
  RefineLoop(const RefineLoop&) = delete;
  RefineLoop& operator=(const RefineLoop&) = delete;

  const LoopShape& shape() const { return shape_; }
  std::int32_t slots() const { return shape_.widths.back(); }
  const BodyArrays& body_arrays() const { return body_arrays_; }

  /// Runs `body` once for each width, so that it initialises itself, and captures it. The first mode from
  /// `wanted` on that works here is kept.
  /// @throws CudaError when not even plain launches work.
  void prepare(Body body, LoopMode wanted);
  LoopMode mode() const { return mode_; }
  /// Why not the mode that was wanted; empty: it is that one.
  const std::string& mode_reason() const { return mode_reason_; }

  /// How long one pass of the engine takes at a width, with the wait for it. For a loop that stands still.
  std::int64_t measure_body_ns(std::int32_t width);

  /// Where row `row` begins: of the state (array 0) or of a context (1, 2, ...). Written before `hand_in`,
  /// and read, state only, once the row is done.
  void* row(std::int32_t array, std::int32_t row) const;
  /// Where the energy terms of first states are put: [rows, terms].
  float* first_terms() const { return first_terms_.data(); }

  /// Enqueues a copy between any two addresses, of the host or the device, beside the loop.
  void copy(void* target, const void* source, std::size_t size_bytes);
  void wait_copies();

  /// Hands a request in. Its row is filled, and nobody else's.
  /// @throws ConfigError when the row is out of range or taken.
  void hand_in(std::int32_t row, const Entry& entry);
  /// Changes the limits of a request that is under way.
  void limit(std::int32_t row, std::int32_t max_steps, std::int64_t deadline_ns);
  /// Changes what may be charged to a request that is under way, from its next decision on.
  void set_budget(std::int32_t row, double budget_us);
  /// Ends a request before its next step, or before it gets a slot.
  void stop(std::int32_t row, HaltReason reason);
  void set_margin_ns(std::int64_t margin_ns);

  /// Keeps the loop going until some request is done or `timeout_s` has passed. In a WHILE graph the device
  /// goes on afterwards.
  /// @returns the rows that are done, free again once the caller has read them.
  std::vector<std::int32_t> drive(double timeout_s);
  /// Stops the loop after its tick and copies the best state so far of a request to `target`, of the host or
  /// the device; `drive` goes on.
  /// @returns its run; none when it is in no slot.
  std::optional<Run> peek(std::int32_t row, void* target);
  /// How the request in a row ended that `drive` has returned.
  const Run& outcome(std::int32_t row) const;

  /// Requests handed in and not yet returned by `drive`.
  std::int32_t under_way() const { return under_way_; }
  /// Ticks since the loop was made.
  std::uint64_t ticks() const;
  /// Live slots, by the last decision.
  std::uint64_t live() const;

 private:
  /// The graphs of one width.
  struct Lane {
    Width width;
    GraphExec loop;   // kWhileGraph
    GraphExec begin;  // kHostGraphs
    GraphExec tick;   // kHostGraphs
  };

  std::int32_t checked_row(std::int32_t row) const;
  void make_lanes();
  void make_arrays();
  void build(Lane& lane);
  GraphExec loaded(const Graph& graph) const;
  void enqueue_begin(const Width& width, cudaStream_t stream) const;
  void enqueue_tick(const Width& width, cudaStream_t stream) const;
  void try_modes(LoopMode wanted);
  void begin();
  void tick();
  const Lane& choose_lane() const;
  bool going() const;
  void look_for_errors();
  void pause();
  std::vector<std::int32_t> take_done();
  void calibrate_clock();

  LoopShape shape_;
  Stream stream_;
  Stream copy_stream_;
  Body body_;
  LoopMode mode_ = LoopMode::kLaunches;
  std::string mode_reason_;
  std::vector<Lane> lanes_;
  const Lane* lane_ = nullptr;
  std::uint64_t launches_ = 0;
  std::int32_t under_way_ = 0;
  std::vector<bool> taken_;
  std::int64_t calibrated_ns_ = 0;
  std::int64_t looked_ns_ = 0;

  DeviceArray<Slot> slots_;
  DeviceArray<ChunkSums> sums_;
  DeviceArray<LoopState> state_;
  DeviceArray<Waiting> waiting_;
  MappedArray<Entry> entries_;
  MappedArray<std::int32_t> queue_;
  MappedArray<Control> controls_;
  MappedArray<Desk> desk_;
  MappedArray<Outcome> outcomes_;
  MappedArray<Report> report_;
  MappedArray<std::uint64_t> clock_;
  DeviceArray<float> first_terms_;
  DeviceArray<float> energy_terms_;
  DeviceArray<float> step_size_;
  DeviceArray<unsigned char> delta_;
  DeviceArray<unsigned char> best_;
  std::vector<DeviceArray<unsigned char>> in_slots_;
  std::vector<DeviceArray<unsigned char>> in_store_;
  DeviceArray<ChunkSums> chunk_sums_;
  DeviceArray<std::uint32_t> arrivals_;
  DeviceArray<std::uint32_t> exchange_arrivals_;
  Loop loop_{};
  RowArrays row_arrays_{};
  BodyArrays body_arrays_{};
};

}  // namespace sage
