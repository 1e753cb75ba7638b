#pragma once

#include <pybind11/pybind11.h>

namespace sage::bindings {

void bind_cuda_errors();
void bind_devices(pybind11::module_& module);
void bind_refine_loop(pybind11::module_& module);
void bind_tensor_view(pybind11::module_& module);

}  // namespace sage::bindings
