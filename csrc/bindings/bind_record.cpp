#include <pybind11/stl.h>

#include <iterator>

#include "bindings/arrays.h"
#include "bindings/module.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

/// Only a type for the signature.
class RecordDtype : public py::dtype {
 public:
  RecordDtype() : py::dtype(py::dtype::of<Record>()) {}
};

using Names = std::vector<std::optional<std::string>>;

Names names_of(const char* const* first, const char* const* last) {
  Names names;
  for (; first != last; ++first)
    names.push_back(*first == nullptr ? std::nullopt : Names::value_type(*first));
  return names;
}

Names halt_reasons() { return names_of(std::begin(kHaltReasonNames), std::end(kHaltReasonNames)); }

Names protocol_reasons() { return names_of(std::begin(kProtocolReasons), std::end(kProtocolReasons)); }

}  // namespace

}  // namespace sage::bindings

template <>
struct py::detail::handle_type_name<sage::bindings::RecordDtype> {
  static constexpr auto name = const_name("numpy.dtype[numpy.void]");
};

namespace sage::bindings {

void bind_record(py::module_& module) {
  PYBIND11_NUMPY_DTYPE(Record, seq, run_id, time_ns, E, dE, E0, best_E, residual, monotonicity_ratio,
                       dE_variance, spent_us, step_idx, branch, plugin, halt_reason, flags);
  module.def(
      "record_dtype", [] { return RecordDtype(); }, "The 64 bytes of a telemetry record as a NumPy dtype.");
  module.def("halt_reasons", &halt_reasons, "Wire names by code; none for code 0, still running.");
  module.def("protocol_reasons", &protocol_reasons,
             "The protocol's own word for each of `halt_reasons`, or the nearest that it has.");
}

}  // namespace sage::bindings
