#include "kernels/device_block.cuh"
#include "kernels/exchange.cuh"

namespace sage {

namespace {

constexpr std::uint64_t kBlockBytes = 16384;
constexpr std::uint32_t kMostBlocks = 64;  // per slot

// Which thread copies a byte depends on the row's length alone: a thread may read what it has itself written.
__device__ void copy_row(unsigned char* to, const unsigned char* from, std::uint64_t bytes) {
  const std::uint64_t thread = blockIdx.x * static_cast<std::uint64_t>(kThreads) + threadIdx.x;
  const std::uint64_t threads = gridDim.x * static_cast<std::uint64_t>(kThreads);
  if (bytes % sizeof(uint4) == 0) {
    for (std::uint64_t i = thread; i < bytes / sizeof(uint4); i += threads) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    for (std::uint64_t i = thread; i < bytes; i += threads) to[i] = from[i];
  }
}

__device__ unsigned char* row_of(unsigned char* array, std::int32_t row, std::uint64_t row_bytes) {
  return array + static_cast<std::uint64_t>(row) * row_bytes;
}

__device__ void move_in(const RowArrays& rows, std::int32_t from, std::int32_t to) {
  const std::uint64_t z_bytes = rows.arrays[0].row_bytes;
  copy_row(row_of(rows.best, to, z_bytes), row_of(rows.best, from, z_bytes), z_bytes);
  for (std::int32_t i = 0; i < rows.count; ++i) {
    const RowArray& array = rows.arrays[i];
    copy_row(row_of(array.slots, to, array.row_bytes), row_of(array.slots, from, array.row_bytes),
             array.row_bytes);
  }
}

__device__ void take_in(const RowArrays& rows, std::int32_t from, std::int32_t to) {
  for (std::int32_t i = 0; i < rows.count; ++i) {
    const RowArray& array = rows.arrays[i];
    copy_row(row_of(array.slots, to, array.row_bytes), row_of(array.store, from, array.row_bytes),
             array.row_bytes);
  }
}

__device__ void bring_back(const RowArrays& rows, std::int32_t from, std::int32_t to, bool from_z) {
  const RowArray& z = rows.arrays[0];
  copy_row(row_of(z.store, to, z.row_bytes), row_of(from_z ? z.slots : rows.best, from, z.row_bytes),
           z.row_bytes);
}

// Block (c, s): stretch c of the rows of slot s. The order matters: who moved here may leave at once, and
// another arrive.
__global__ void __launch_bounds__(kThreads) exchange_kernel(RowArrays rows, Loop loop) {
  const std::int32_t index = static_cast<std::int32_t>(blockIdx.y);
  Slot& slot = loop.slots[index];
  if (slot.moved_from != kNone) move_in(rows, slot.moved_from, index);
  if (slot.leaving != kNone) bring_back(rows, index, slot.leaving, slot.best_is_current);
  if (slot.arriving != kNone) take_in(rows, slot.arriving, index);
  if (last_to_arrive(&rows.arrivals[index], gridDim.x) && threadIdx.x == 0) exchanged(loop, slot);
}

}  // namespace

cudaError_t launch_exchange(const RowArrays& rows, const Loop& loop, std::int32_t slots,
                            cudaStream_t stream) {
  const std::uint64_t blocks = (rows.arrays[0].row_bytes + kBlockBytes - 1) / kBlockBytes;
  cudaLaunchConfig_t config = {};
  config.gridDim =
      dim3(blocks < kMostBlocks ? static_cast<unsigned>(blocks) : kMostBlocks, static_cast<unsigned>(slots));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, exchange_kernel, rows, loop);
}

}  // namespace sage
