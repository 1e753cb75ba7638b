#include <pybind11/gil_safe_call_once.h>

#include "bindings/module.h"
#include "core/errors.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

void raise(const char* name, const std::exception& error) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::module_> errors;
  const py::module_& module =
      errors.call_once_and_store_result([] { return py::module_::import("sage_edge.errors"); }).get_stored();
  py::set_error(module.attr(name), error.what());
}

}  // namespace

/// Exceptions of the core become the classes of sage_edge/errors.py; std::out_of_range is an IndexError
/// anyway.
void bind_errors() {
  py::register_local_exception_translator([](std::exception_ptr pending) {
    try {
      std::rethrow_exception(pending);
    } catch (const ShapeError& error) {
      raise("ShapeError", error);
    } catch (const ConfigError& error) {
      raise("ConfigError", error);
    } catch (const CapacityError& error) {
      raise("CapacityError", error);
    } catch (const ProblemError& error) {
      raise("ProblemError", error);
    }
  });
}

}  // namespace sage::bindings
