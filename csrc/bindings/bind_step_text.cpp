#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <limits>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "core/step_text.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Runs = py::typing::List<py::typing::Optional<StepRun>>;
using Texts = py::typing::List<
    py::typing::Optional<py::typing::Union<py::typing::Tuple<py::bytes, py::bytes>, py::str>>>;

/// One record of a batch: where its text ends and is cut, or what is wrong with it.
struct Written {
  std::size_t end = 0;
  std::size_t cut = 0;
  const char* refusal = nullptr;
};

StepRun make_run(const StepForm& form, std::string request_id, std::string scene_id, std::int64_t start_ns,
                 double E_scale, double eps, double trust_weight, double power_w,
                 std::optional<double> deadline_ms, std::optional<double> allocated,
                 std::uint32_t max_steps) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  return {
      &form,   std::move(request_id),       std::move(scene_id),       start_ns, E_scale, eps, trust_weight,
      power_w, deadline_ms.value_or(kNone), allocated.value_or(kNone), max_steps};
}

Texts write_steps(const Array<Record>& records, const Runs& runs,
                  const std::map<std::size_t, std::string>& extras, const std::string& board,
                  std::int64_t seq, std::int64_t unix_offset_ns) {
  require_array(records, "records", {{static_cast<py::ssize_t>(runs.size()), false, "runs"}});
  const auto count = static_cast<std::size_t>(records.size());
  const Record* raws = data(records);
  std::vector<StepRun*> of_record;
  for (const py::handle run : runs) of_record.push_back(run.is_none() ? nullptr : run.cast<StepRun*>());

  std::vector<Written> written(count);
  std::string text;
  {
    const py::gil_scoped_release release;
    const std::string none = "null";
    for (std::size_t i = 0; i < count; ++i) {
      if (of_record[i] != nullptr) {
        const auto extra = extras.find(i);
        const StepPlace place{seq + static_cast<std::int64_t>(i), unix_offset_ns,
                              extra == extras.end() ? none : extra->second, board};
        written[i].refusal = append_step(text, written[i].cut, raws[i], *of_record[i], place);
      }
      written[i].end = text.size();
    }
  }
  Texts texts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [end, cut, refusal] = written[i];
    if (of_record[i] == nullptr) {
      texts.append(py::none());
    } else if (refusal != nullptr) {
      texts.append(py::str(refusal));
    } else {
      texts.append(py::make_tuple(py::bytes(text.data() + begin, cut - begin),
                                  py::bytes(text.data() + cut, end - cut)));
    }
    begin = end;
  }
  return texts;
}

}  // namespace

void bind_step_text(py::module_& module) {
  py::class_<StepForm>(module, "StepForm", R"(The canonical JSON of a step with its changing fields left out.

Args:
    texts: What stands before each field, and after the last.
    fields: Their names.
    knots: E_norm of the calibration, ascending; empty without one.
    qualities: The expected quality at each knot.

Raises:
    ConfigError: A field is unknown, or there is not one text more than fields.)")
      .def(py::init<std::vector<std::string>, const std::vector<std::string>&, std::vector<double>,
                    std::vector<double>>(),
           py::arg("texts"), py::arg("fields"), py::arg("knots"), py::arg("qualities"));

  py::class_<StepRun>(module, "StepRun", R"(What is known of one run before its first step; see RunInfo.

Args:
    form: Of its plugin; kept alive.
    request_id: As JSON, like `scene_id`.)")
      .def(py::init(&make_run), py::arg("form"), py::kw_only(), py::arg("request_id"), py::arg("scene_id"),
           py::arg("start_ns"), py::arg("E_scale"), py::arg("eps"), py::arg("trust_weight"),
           py::arg("power_w"), py::arg("deadline_ms"), py::arg("ATP_allocated"), py::arg("max_steps"),
           py::keep_alive<1, 2>());

  module.def("write_steps", &write_steps, py::arg("records"), py::kw_only(), py::arg("runs"),
             py::arg("extras"), py::arg("board"), py::arg("seq"), py::arg("unix_offset_ns"),
             R"(The canonical JSON of steps, without the GIL.

Args:
    records: RECORD_DTYPE [n], in the order of the mailbox.
    runs: The run of each; None where it is not known.
    extras: What plugins add, as JSON, by the record's place in `records`.
    board: What final records tell of the board, as JSON.
    seq: Of the first record; the others follow.
    unix_offset_ns: Unix time minus the loop's clock.

Returns:
    For each record the text before and after the value of `prev_hash`, without `record_hash`; the path of a field
    that is out of range; or None without a run.

Raises:
    ShapeError: The records are none, or not as many as the runs.)");
}

}  // namespace sage::bindings
