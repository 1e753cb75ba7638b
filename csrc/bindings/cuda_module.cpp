#include "bindings/cuda_module.h"

#include "bindings/module.h"

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "What sage_edge does on an NVIDIA GPU. Use it through sage_edge.native.";
  pybind11::module_::import("sage_edge._core");  // the types that the two share
  sage::bindings::bind_errors();
  sage::bindings::bind_cuda_errors();
  sage::bindings::bind_devices(module);
  sage::bindings::bind_tensor_view(module);
  sage::bindings::bind_refine_loop(module);
}
