#include <cuda_runtime_api.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/cuda_module.h"
#include "core/ring_memory.h"
#include "device/cuda_try.h"
#include "device/owners.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

/// 0 without a driver, or with one that knows no device: nothing else can be asked then.
int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string refusal() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess) return count > 0 ? "" : "the driver knows no device";
  static_cast<void>(cudaGetLastError());
  int driver = 0;
  SAGE_CUDA_TRY(cudaDriverGetVersion(&driver));
  if (driver == 0) return "there is no NVIDIA driver";
  if (code != cudaErrorInsufficientDriver) return cudaGetErrorString(code);
  return "the driver speaks CUDA " + version_text(driver) + ", this build needs " +
         version_text(CUDART_VERSION);
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (int device = 0; device < device_count(); ++device) {
    cudaDeviceProp properties;
    SAGE_CUDA_TRY(cudaGetDeviceProperties(&properties, device));
    names.push_back(std::string(properties.name) + " (sm_" + std::to_string(properties.major) +
                    std::to_string(properties.minor) + ")");
  }
  return names;
}

std::unique_ptr<Ring> mapped_ring(std::size_t capacity) {
  auto memory = std::make_shared<MappedArray<RingSlot>>(Ring::checked(capacity));
  return std::make_unique<Ring>(capacity, std::shared_ptr<RingSlot>(memory, memory->host()));
}

}  // namespace

void bind_cuda_errors() {
  py::register_local_exception_translator([](std::exception_ptr pending) {
    try {
      std::rethrow_exception(pending);
    } catch (const CudaError& error) {
      py::set_error(py::module_::import("sage_edge.errors").attr("DeviceError"), error.what());
    }
  });
}

void bind_devices(py::module_& module) {
  module.def("device_count", &device_count, "CUDA devices that can be used here; 0 without a driver.");
  module.def("device_names", &device_names, "Name and compute capability of each CUDA device.");
  module.def("refusal", &refusal, "Why no CUDA device can be used here; empty where one can.");
  module.def(
      "mapped_ring", &mapped_ring, py::arg("capacity"),
      R"(A mailbox in page-locked memory, which a loop on the device writes and the host reads in place.

Args:
    capacity: Records it holds, a power of two.

Raises:
    ConfigError: The capacity is no power of two.
    DeviceError: The driver refuses, or is not there.)");
}

}  // namespace sage::bindings
