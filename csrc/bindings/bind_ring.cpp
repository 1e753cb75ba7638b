#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "core/ring_memory.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Records = Array<Record>;

void push(Ring& ring, const Records& records) {
  require_array(records, "record", {}, true);
  if (records.size() != 1) refuse("record", "one record of RECORD_DTYPE", records);
  ring.writer().push(*static_cast<const Record*>(records.data()));
}

void push_many(Ring& ring, const Records& records) {
  require_array(records, "records", {{0, true, "records"}});
  const auto* first = static_cast<const Record*>(records.data());
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < records.size(); ++i) ring.writer().push(first[i]);
}

/// A reader and what it needs to make arrays of batches.
struct Reader {
  explicit Reader(const Ring& ring) : reader(ring.span()), capacity(ring.capacity()) {}

  Records drain(std::int64_t max_records) {
    require_not_negative(max_records, "max_records");
    Records batch(py::dtype::of<Record>(), std::min(static_cast<std::size_t>(max_records), capacity));
    auto* out = static_cast<Record*>(batch.mutable_data());
    const auto room = static_cast<std::size_t>(batch.size());
    std::size_t count = 0;
    {
      const py::gil_scoped_release release;
      count = reader.drain(out, room);
    }
    batch.resize({count}, false);
    return batch;
  }

  Records wait(std::int64_t max_records, double timeout_s) {
    require_not_negative(timeout_s, "timeout_s");
    {
      const py::gil_scoped_release release;
      wait_until_ready(timeout_s);
    }
    return drain(max_records);
  }

  void wait_until_ready(double timeout_s) const {
    using namespace std::chrono;
    constexpr double kLongest_s = 1e9;  // about thirty years: keeps the clock's arithmetic in range
    const auto end =
        steady_clock::now() + duration_cast<nanoseconds>(duration<double>(std::min(timeout_s, kLongest_s)));
    auto nap = microseconds(20);
    while (!reader.ready() && steady_clock::now() < end) {
      std::this_thread::sleep_for(nap);
      nap = std::min(2 * nap, microseconds(1000));
    }
  }

  RingReader reader;
  std::size_t capacity;
};

}  // namespace

void bind_ring(py::module_& module) {
  py::class_<Ring>(module, "Ring", R"(A mailbox in ordinary memory: the newest `capacity` records.

One producer thread; any number of readers. The producer never waits, and overwrites the oldest record.

Args:
    capacity: Records it holds, a power of two.

Raises:
    ConfigError: The capacity is no power of two.)")
      .def(py::init<std::size_t>(), py::arg("capacity"))
      .def_property_readonly("capacity", &Ring::capacity)
      .def_property_readonly(
          "published", [](const Ring& ring) { return ring.writer().published(); }, "Records pushed so far.")
      .def(
          "push", &push, py::arg("record"),
          R"(Publishes one record (0-d, or of one element; copied); its `seq` is replaced by the ring's ticket.

Raises:
    ShapeError: It is not one record of RECORD_DTYPE.)")
      .def("push_many", &push_many, py::arg("records"),
           R"(Publishes records [n] in order (copied), without the GIL.

Raises:
    ShapeError: It is not a contiguous vector of RECORD_DTYPE.)");

  py::class_<Reader>(
      module, "RingReader",
      R"(A reader of a ring with its own cursor, from the oldest record on. One thread at a time.

Once it has caught up, records read + lost == published.

Args:
    ring: Kept alive by the reader.)")
      .def(py::init<const Ring&>(), py::arg("ring"), py::keep_alive<1, 2>())
      .def_property_readonly(
          "cursor", [](const Reader& self) { return self.reader.cursor(); },
          "Records read so far, plus those lost.")
      .def_property_readonly(
          "lost", [](const Reader& self) { return self.reader.lost(); },
          "Records overwritten before they were read.")
      .def("drain", &Reader::drain, py::arg("max_records"),
           R"(Copies what is there, oldest first, without the GIL. Never waits.

Args:
    max_records: At most so many, and never more than the ring's capacity at once.

Returns:
    RECORD_DTYPE [n], a new array; `seq` is each record's ticket 0, 1, 2, ...)")
      .def("wait", &Reader::wait, py::arg("max_records"), py::arg("timeout_s"),
           R"(`drain`, after waiting without the GIL until there is something.

Args:
    max_records: As for `drain`.
    timeout_s: Longest wait, seconds.

Returns:
    As `drain`; empty after the timeout.)");
}

}  // namespace sage::bindings
