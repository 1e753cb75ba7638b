#include "bindings/module.h"
#include "core/thread_pool.h"

namespace py = pybind11;

namespace sage::bindings {

void bind_thread_pool(py::module_& module) {
  py::class_<ThreadPool>(module, "ThreadPool", R"(Threads that stay, to share the work of latent_step.

Args:
    threads: 1 to 256, the calling thread included.

Raises:
    ConfigError: The number is out of range.)")
      .def(py::init<std::size_t>(), py::arg("threads"))
      .def_property_readonly("threads", &ThreadPool::threads);
}

}  // namespace sage::bindings
