#pragma once

#include <cstdint>

// The structures by which libraries pass arrays to each other, as DLPack 0.x lays them out in memory
// (dmlc.github.io/dlpack). Names are the standard's.
namespace sage::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2 };

struct Device {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  ///< null: C order
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* manager_context;
  void (*deleter)(ManagedTensor* self);
};

static_assert(sizeof(Tensor) == 48 && sizeof(ManagedTensor) == 64, "the standard's layout");

}  // namespace sage::dlpack
