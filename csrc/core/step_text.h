#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/record.h"

// The text of a step's telemetry record: what a run has in common is written once, the rest for each state.
namespace sage {

/// The JSON of a step with its changing fields left out.
///
/// Threads: immutable.
struct StepForm {
  /// @throws ConfigError when a field is unknown, or there is not one text more than fields.
  StepForm(std::vector<std::string> texts_, const std::vector<std::string>& field_names,
           std::vector<double> knots_, std::vector<double> qualities_);

  std::vector<std::string> texts;   ///< what stands before each field, and after the last
  std::vector<std::size_t> fields;  ///< places in the table of fields; `prev_hash` is one past its end
  std::vector<double> knots;        ///< E_norm of the calibration, ascending; empty without one
  std::vector<double> qualities;    ///< expected quality at each knot
};

/// What is known of one run, and how many of its steps had no finite change.
///
/// Borrows its form. Threads: one at a time.
struct StepRun {
  const StepForm* form;
  std::string request_id;  ///< as JSON, like the next
  std::string scene_id;
  std::int64_t start_ns;
  double E_scale;
  double eps;
  double trust_weight;
  double power_w;
  double deadline_ms;  ///< NaN without one
  double allocated;    ///< ATP; NaN without a budget
  std::uint32_t max_steps;
  std::uint32_t undefined_changes = 0;
};

/// What comes from elsewhere for one record.
struct StepPlace {
  std::int64_t seq;
  std::int64_t unix_offset_ns;  ///< Unix time minus the loop's clock
  const std::string& extra;     ///< as JSON, like the next
  const std::string& board;
};

/// Micro-ATP of `spent_us` microseconds at `power_w` watts, rounded to even; irp/rules.py has the same.
double spent_uatp(double power_w, float spent_us);

/// Appends the canonical JSON of a step, without `record_hash` and with nothing for `prev_hash`.
///
/// @param cut  gets the offset in `out` at which `prev_hash` belongs.
/// @returns    null, or the path of the field that is out of range; then nothing is appended.
const char* append_step(std::string& out, std::size_t& cut, const Record& raw, StepRun& run,
                        const StepPlace& place);

}  // namespace sage
