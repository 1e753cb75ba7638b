#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>

#include "bindings/cuda_module.h"
#include "bindings/dlpack.h"
#include "core/errors.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

/// An array in somebody else's memory, in C order.
struct TensorView {
  void* data;
  std::vector<std::int64_t> shape;
  py::dtype dtype;
  dlpack::Device device;
  py::object owner;
};

dlpack::Device parse_device(const std::string& name) {
  if (name == "cpu") return {dlpack::kCpu, 0};
  if (name.rfind("cuda:", 0) == 0 && name.size() > 5 &&
      name.find_first_not_of("0123456789", 5) == std::string::npos) {
    return {dlpack::kCuda, std::stoi(name.substr(5))};
  }
  throw ConfigError("device: expected \"cpu\" or \"cuda:N\", got \"" + name + "\"");
}

TensorView make_view(std::uintptr_t pointer, std::vector<std::int64_t> shape, const py::object& dtype,
                     const std::string& device, py::object owner) {
  const py::dtype type = py::dtype::from_args(dtype);
  if (std::string("fiu").find(type.kind()) == std::string::npos) {
    throw ShapeError("dtype: expected floats or integers, got " + std::string(py::str(type)));
  }
  for (const std::int64_t length : shape) {
    if (length < 0) throw ShapeError("shape: expected lengths >= 0, got " + std::to_string(length));
  }
  return {reinterpret_cast<void*>(pointer), std::move(shape), type, parse_device(device), std::move(owner)};
}

dlpack::DataType type_of(const py::dtype& dtype) {
  const std::uint8_t code =
      dtype.kind() == 'f' ? dlpack::kFloat : (dtype.kind() == 'i' ? dlpack::kInt : dlpack::kUInt);
  return {code, static_cast<std::uint8_t>(8 * dtype.itemsize()), 1};
}

/// What lives as long as a consumer holds the tensor.
struct Export {
  dlpack::ManagedTensor managed;
  std::vector<std::int64_t> shape;
  py::object owner;

  static void destroy(dlpack::ManagedTensor* self) {
    const py::gil_scoped_acquire gil;
    delete static_cast<Export*>(self->manager_context);
  }
};

/// A capsule that nobody took still owns its tensor.
void destroy_untaken(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;
  auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
  managed->deleter(managed);
}

/// What a consumer asks for besides is left to it: this is version 0 of the protocol, without streams or
/// copies.
py::capsule to_dlpack(const TensorView& view, const py::object& /*stream*/, const py::object& /*max_version*/,
                      const py::object& /*dl_device*/, const py::object& /*copy*/) {
  auto out = std::make_unique<Export>(Export{{}, view.shape, view.owner});
  out->managed.tensor = {view.data,
                         view.device,
                         static_cast<std::int32_t>(view.shape.size()),
                         type_of(view.dtype),
                         out->shape.data(),
                         nullptr,
                         0};
  out->managed.manager_context = out.get();
  out->managed.deleter = &Export::destroy;
  PyObject* capsule = PyCapsule_New(&out->managed, "dltensor", &destroy_untaken);
  if (capsule == nullptr) throw py::error_already_set();
  static_cast<void>(out.release());
  return py::reinterpret_steal<py::capsule>(capsule);
}

py::typing::Dict<py::str, py::object> cuda_array_interface(const TensorView& view) {
  if (view.device.device_type != dlpack::kCuda) throw py::attribute_error("__cuda_array_interface__");
  py::typing::Dict<py::str, py::object> description;
  description["shape"] = py::tuple(py::cast(view.shape));
  description["typestr"] = view.dtype.attr("str");
  description["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(view.data), false);
  description["version"] = 3;
  description["stream"] = py::none();
  return description;
}

}  // namespace

void bind_tensor_view(py::module_& module) {
  py::class_<TensorView>(module, "TensorView",
                         R"(An array in somebody else's memory, for any library that speaks DLPack
or the CUDA array interface. Nothing is copied, and no stream is waited for: who uses it orders its work.

Args:
    pointer: Where it begins.
    shape: Its axes, in C order.
    dtype: Anything NumPy takes as one: floats and integers.
    device: "cpu" or "cuda:N".
    owner: Kept alive as long as this view and every array made of it.

Raises:
    ShapeError: The dtype or an axis cannot be used.
    ConfigError: No such device.)")
      .def(py::init(&make_view), py::arg("pointer"), py::arg("shape"), py::arg("dtype"), py::kw_only(),
           py::arg("device"), py::arg("owner"))
      .def_property_readonly("shape",
                             [](const TensorView& view) -> py::typing::Tuple<py::int_, py::ellipsis> {
                               return py::tuple(py::cast(view.shape));
                             })
      .def_property_readonly("dtype", [](const TensorView& view) { return view.dtype; })
      .def_property_readonly(
          "pointer", [](const TensorView& view) { return reinterpret_cast<std::uintptr_t>(view.data); })
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const TensorView& view) {
             return py::make_tuple(static_cast<int>(view.device.device_type), view.device.device_id);
           })
      .def_property_readonly("__cuda_array_interface__", &cuda_array_interface);
}

}  // namespace sage::bindings
