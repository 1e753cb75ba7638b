#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "device/cuda_try.h"

// One owner per resource of CUDA: movable, not copyable, freed by the destructor, which does not throw.
namespace sage {

/// What frees a handle of CUDA.
template <class Handle, cudaError_t (*kFree)(Handle)>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle handle) : handle_(handle) {}
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owner() {
    if (handle_ != Handle{}) static_cast<void>(kFree(handle_));
  }

  Handle get() const { return handle_; }

 private:
  Handle handle_{};
};

using Stream = Owner<cudaStream_t, cudaStreamDestroy>;
using Event = Owner<cudaEvent_t, cudaEventDestroy>;
using Graph = Owner<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owner<cudaGraphExec_t, cudaGraphExecDestroy>;

/// A stream of the current device that does not wait for the default one.
inline Stream make_stream() {
  cudaStream_t stream;
  SAGE_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

/// An event for ordering and polling, without a time.
inline Event make_event() {
  cudaEvent_t event;
  SAGE_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

/// Memory of the current device, zeroed on the default stream: who uses another one waits first.
///
/// @throws CudaError when the device refuses, e.g. for want of memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) : count_(count) {
    void* memory;
    SAGE_CUDA_TRY(cudaMalloc(&memory, size_bytes()));
    memory_ = Memory(memory);
    SAGE_CUDA_TRY(cudaMemset(memory, 0, size_bytes()));
  }

  T* data() const { return static_cast<T*>(memory_.get()); }
  std::size_t size() const { return count_; }
  std::size_t size_bytes() const { return count_ * sizeof(T); }

 private:
  using Memory = Owner<void*, cudaFree>;

  std::size_t count_ = 0;
  Memory memory_;
};

/// Zeroed, page-locked host memory that the device reads and writes in place.
///
/// @throws CudaError when the driver refuses, e.g. past the locked-memory limit.
template <class T>
class MappedArray {
 public:
  explicit MappedArray(std::size_t count);

  T* host() const { return static_cast<T*>(memory_.get()); }
  T* device() const { return device_; }
  std::size_t size() const { return count_; }

 private:
  using Memory = Owner<void*, cudaFreeHost>;

  std::size_t count_;
  Memory memory_;
  T* device_ = nullptr;
};

/// The device pointer of a new mapped allocation and its host pointer.
struct MappedPointers {
  void* host;
  void* device;
};
MappedPointers allocate_mapped(std::size_t size_bytes);

template <class T>
MappedArray<T>::MappedArray(std::size_t count) : count_(count) {
  const MappedPointers pointers = allocate_mapped(count * sizeof(T));
  memory_ = Memory(pointers.host);
  device_ = static_cast<T*>(pointers.device);
}

}  // namespace sage
