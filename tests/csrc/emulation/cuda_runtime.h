#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

// Enough of CUDA's language for g++ to compile the kernels as they are and run them on the CPU: in the place
// of CUDA's own <cuda_runtime.h>, and for the tests alone.
//
// Blocks run one after the other, each to its end; the threads of a block are fibers that change places where
// they wait for each other. The order of both is drawn from `emulation::seed`: what depends on it is a fault.
// What this cannot show: anything about the GPU's memory model, its clock, or its speed.

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(threads)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorNotReady = 600 };
using cudaStream_t = void*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

namespace emulation {

inline std::uint32_t seed = 1;

using Work = std::function<void()>;
/// Where launches go while a graph is captured; null: they run.
inline std::vector<Work>* captured = nullptr;

/// The threads of one block.
///
/// Errors: std::logic_error when some threads wait for others that never come.
class Block {
 public:
  Block(unsigned threads, const std::function<void()>& kernel, std::mt19937& random)
      : kernel_(kernel), fibers_(threads), warps_((threads + kWarp - 1) / kWarp), order_(threads) {
    std::iota(order_.begin(), order_.end(), 0U);
    std::shuffle(order_.begin(), order_.end(), random);
  }

  void run() {
    running_block = this;
    for (const unsigned thread : order_) make(thread);
    while (finished_ < fibers_.size()) {
      const std::size_t before = progress_;
      for (const unsigned thread : order_) {
        if (!fibers_[thread].finished) enter(thread);
      }
      if (progress_ == before) throw std::logic_error("threads of a block wait for others that never come");
    }
  }

  void sync() { meet(all_, fibers_.size()); }

  template <class T>
  T shuffle_down(T value, unsigned step) {
    const unsigned thread = threadIdx.x;
    const unsigned lane = thread % kWarp;
    Warp& warp = warps_[thread / kWarp];
    const std::size_t lanes = std::min<std::size_t>(kWarp, fibers_.size() - thread / kWarp * kWarp);
    // Two boards in turn: who writes to one again has seen everybody leave it.
    std::uint64_t* board = warp.boards[warp.meeting.round % 2];
    std::memcpy(&board[lane], &value, sizeof value);
    meet(warp.meeting, lanes);
    if (lane + step < lanes) std::memcpy(&value, &board[lane + step], sizeof value);
    return value;
  }

  static inline Block* running_block = nullptr;

 private:
  static constexpr unsigned kWarp = 32;
  static constexpr std::size_t kStackBytes = 1 << 16;

  struct Meeting {
    std::size_t present = 0;
    std::size_t round = 0;
  };
  struct Warp {
    Meeting meeting;
    std::uint64_t boards[2][kWarp];
  };
  struct Fiber {
    ucontext_t context;
    bool finished = false;
  };

  /// Stacks are kept from block to block.
  static char* stack_of(unsigned thread) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() <= thread) stacks.emplace_back(new char[kStackBytes]);
    return stacks[thread].get();
  }

  void make(unsigned thread) {
    Fiber& fiber = fibers_[thread];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack_of(thread);
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &scheduler_;
    makecontext(&fiber.context, &Block::start, 0);
  }

  static void start() {
    Block& block = *running_block;
    block.kernel_();
    block.fibers_[threadIdx.x].finished = true;
    ++block.finished_;
    ++block.progress_;
  }

  void enter(unsigned thread) {
    threadIdx.x = thread;
    swapcontext(&scheduler_, &fibers_[thread].context);
  }

  void meet(Meeting& meeting, std::size_t expected) {
    const std::size_t round = meeting.round;
    if (++meeting.present == expected) {
      meeting.present = 0;
      ++meeting.round;
      ++progress_;
    }
    while (meeting.round == round) swapcontext(&fibers_[threadIdx.x].context, &scheduler_);
  }

  const std::function<void()>& kernel_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<unsigned> order_;
  ucontext_t scheduler_;
  Meeting all_;
  std::size_t finished_ = 0;
  std::size_t progress_ = 0;
};

inline void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  static std::uint32_t launches = 0;
  std::mt19937 random(seed + 1000003U * launches++);
  std::vector<dim3> blocks;
  for (unsigned y = 0; y < config.gridDim.y; ++y) {
    for (unsigned x = 0; x < config.gridDim.x; ++x) blocks.emplace_back(x, y);
  }
  std::shuffle(blocks.begin(), blocks.end(), random);
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  for (const dim3& block : blocks) {
    blockIdx = block;
    Block(config.blockDim.x, kernel, random).run();
  }
}

}  // namespace emulation

inline void __syncthreads() { emulation::Block::running_block->sync(); }
inline void __threadfence() {}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned step) {
  return emulation::Block::running_block->shuffle_down(value, step);
}

inline std::uint32_t atomicAdd(std::uint32_t* counter, std::uint32_t more) {
  const std::uint32_t before = *counter;
  *counter += more;
  return before;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const emulation::Work launch = [grid = *config, kernel, arguments...] {
    emulation::run_grid(grid, [&] { kernel(arguments...); });
  };
  emulation::captured == nullptr ? launch() : emulation::captured->push_back(launch);
  return cudaSuccess;
}
