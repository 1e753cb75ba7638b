#include <cstring>

#include "kernels/device_block.cuh"
#include "kernels/latent_step.cuh"

namespace sage {

namespace {

/// 16 bytes of a row: one access of a thread.
template <class T>
struct Pack {
  static constexpr int kCount = static_cast<int>(sizeof(uint4) / sizeof(T));
  T values[kCount];
};

template <class T>
__device__ Pack<T> load(const T* from) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  Pack<T> pack;
  memcpy(&pack, &bits, sizeof pack);
  return pack;
}

template <class T>
__device__ void store(T* to, const Pack<T>& pack) {
  uint4 bits;
  memcpy(&bits, &pack, sizeof bits);
  *reinterpret_cast<uint4*>(to) = bits;
}

template <class T>
__device__ Pack<T> load_some(const T* from, std::uint64_t count) {
  Pack<T> pack{};
  for (int i = 0; i < Pack<T>::kCount; ++i) {
    if (static_cast<std::uint64_t>(i) < count) pack.values[i] = from[i];
  }
  return pack;
}

template <class T>
__device__ void store_some(T* to, const Pack<T>& pack, std::uint64_t count) {
  for (int i = 0; i < Pack<T>::kCount; ++i) {
    if (static_cast<std::uint64_t>(i) < count) to[i] = pack.values[i];
  }
}

struct ThreadSums {
  float change = 0.0F;
  float state = 0.0F;
};

/// Moves the first `count` numbers of z and adds them up.
template <bool kNoisy, class T>
__device__ void move_pack(const Move& move, const NoiseKey& key, std::uint64_t first, std::uint64_t count,
                          Pack<T>& z, const Pack<T>& delta, ThreadSums& sums) {
  float noise[kPhiloxWords];
#pragma unroll
  for (int i = 0; i < Pack<T>::kCount; ++i) {
    if (kNoisy && i % kPhiloxWords == 0) {
      normal_block(key, static_cast<std::uint32_t>((first + static_cast<std::uint64_t>(i)) / kPhiloxWords),
                   noise);
    }
    if (static_cast<std::uint64_t>(i) >= count) continue;
    const float before = to_float(z.values[i]);
    const float along = to_float(delta.values[i]);
    z.values[i] = from_float<T>(kNoisy ? move(before, along, noise[i % kPhiloxWords]) : move(before, along));
    const float after = to_float(z.values[i]);
    sums.change += (after - before) * (after - before);
    sums.state += after * after;
  }
}

/// This thread's share of a chunk: packs t, t + 256, ... of the row's stretch. `kWhole`: rows are whole
/// packs.
template <bool kNoisy, bool kWhole, class T>
__device__ ThreadSums move_chunk(const DeviceRows<T>& rows, const Run& run, std::uint64_t elements) {
  constexpr int kCount = Pack<T>::kCount;
  constexpr int kRounds = static_cast<int>(kChunk) / (kThreads * kCount);
  const std::uint64_t row = blockIdx.y * elements;
  const Move move{rows.step_size[blockIdx.y], rows.noise_sigma, rows.lo, rows.hi};
  const NoiseKey key{rows.seed, run.run_id(), run.step_idx()};
  const bool save_best = run.best_is_current();
  T* const __restrict__ z = rows.z + row;
  T* const __restrict__ best = rows.best + row;
  const T* const __restrict__ delta = rows.delta + row;
  ThreadSums sums;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t first =
        blockIdx.x * kChunk +
        static_cast<std::uint64_t>((round * kThreads + static_cast<int>(threadIdx.x)) * kCount);
    if (first >= elements) break;
    const std::uint64_t count = kWhole || elements - first > kCount ? kCount : elements - first;
    Pack<T> pack = kWhole ? load(z + first) : load_some(z + first, count);
    const Pack<T> along = kWhole ? load(delta + first) : load_some(delta + first, count);
    if (save_best) kWhole ? store(best + first, pack) : store_some(best + first, pack, count);
    move_pack<kNoisy>(move, key, first, count, pack, along, sums);
    kWhole ? store(z + first, pack) : store_some(z + first, pack, count);
  }
  return sums;
}

/// Adds up the chunks of a slot, always in the same order.
__device__ ChunkSums sum_chunks(const ChunkSums* sums, std::uint32_t count) {
  ChunkSums mine{0.0, 0.0};
  for (std::uint32_t i = threadIdx.x; i < count; i += kThreads) {
    mine.change += sums[i].change;
    mine.state += sums[i].state;
  }
  return sum_block(mine.change, mine.state);
}

/// The last block of a tick: a thread for each live slot observes, and one for each who waits looks whether
/// it still may; then one decides what comes next.
/// A call of its own, once a tick: inlined, its registers would be spilled around the streaming of every
/// block.
__attribute__((noinline)) __device__ void decide_tick(const Loop& loop, const Width& width) {
  __shared__ std::int64_t time_ns;
  if (threadIdx.x == 0) time_ns = now_ns(loop);
  __syncthreads();
  for (int slot = static_cast<int>(threadIdx.x); slot < width.slots; slot += kThreads) {
    if (loop.slots[slot].live()) observe_step(loop, slot, time_ns);
  }
  for (std::uint64_t place = threadIdx.x; place < loop.state->waiting; place += kThreads) {
    look_at_waiting(loop, place, time_ns);
  }
  __syncthreads();
  if (threadIdx.x == 0) end_tick(loop, width, time_ns);
}

// Block (c, s): chunk c of slot s. Every block arrives, those of free slots too: until the last one has,
// nobody writes to a slot, and what a block has read of it holds.
template <bool kNoisy, bool kWhole, class T>
__global__ void __launch_bounds__(kThreads) latent_step_kernel(DeviceRows<T> rows, Loop loop, Width width) {
  const Slot& slot = loop.slots[blockIdx.y];
  ChunkSums* const chunk_sums = rows.chunk_sums + static_cast<std::uint64_t>(blockIdx.y) * gridDim.x;
  if (slot.live()) {
    const ThreadSums sums = move_chunk<kNoisy, kWhole>(rows, slot.run, loop.elements);
    const ChunkSums total = sum_block(sums.change, sums.state);
    if (threadIdx.x == 0) chunk_sums[blockIdx.x] = total;
  }
  if (!last_to_arrive(&rows.arrivals[blockIdx.y], gridDim.x)) return;
  if (slot.live()) {
    const ChunkSums total = sum_chunks(chunk_sums, gridDim.x);
    if (threadIdx.x == 0) loop.sums[blockIdx.y] = total;
  }
  if (!last_to_arrive(&rows.arrivals[loop.capacity], gridDim.y)) return;
  decide_tick(loop, width);
}

__global__ void begin_kernel(Loop loop, Width width) { begin(loop, width); }

template <bool kNoisy, bool kWhole, class T>
cudaError_t launch_step(const DeviceRows<T>& rows, const Loop& loop, const Width& width,
                        cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(chunks(loop.elements), static_cast<unsigned>(width.slots));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, latent_step_kernel<kNoisy, kWhole, T>, rows, loop, width);
}

}  // namespace

cudaError_t launch_begin(const Loop& loop, const Width& width, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(1);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, begin_kernel, loop, width);
}

template <class T>
cudaError_t launch_latent_step(const DeviceRows<T>& rows, const Loop& loop, const Width& width,
                               cudaStream_t stream) {
  const bool noisy = rows.noise_sigma != 0.0F;
  const bool whole = loop.elements % Pack<T>::kCount == 0;
  if (noisy) {
    return whole ? launch_step<true, true>(rows, loop, width, stream)
                 : launch_step<true, false>(rows, loop, width, stream);
  }
  return whole ? launch_step<false, true>(rows, loop, width, stream)
               : launch_step<false, false>(rows, loop, width, stream);
}

template cudaError_t launch_latent_step(const DeviceRows<float>&, const Loop&, const Width&, cudaStream_t);
template cudaError_t launch_latent_step(const DeviceRows<Half>&, const Loop&, const Width&, cudaStream_t);

}  // namespace sage
