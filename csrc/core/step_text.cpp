#include "core/step_text.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "core/errors.h"
#include "core/number_text.h"

namespace sage {

namespace {

/// One state on its way to text.
struct State {
  const Record& raw;
  const StepRun& run;
  const StepPlace& place;
  std::int64_t n_dE;
  double time_ms;
  double spent;  ///< micro-ATP, a whole number

  bool has(std::uint8_t flag) const { return (raw.flags & flag) != 0; }
  bool is_final() const { return raw.halt_reason != HaltReason::kRunning; }
};

void append_flag(std::string& out, bool value) { out += value ? "true" : "false"; }

void append_name(std::string& out, const char* name) {
  if (name == nullptr) {
    out += "null";
  } else {
    out.append("\"").append(name).append("\"");
  }
}

double convergence_rate(const State& s) {
  if (s.n_dE == 0) return std::numeric_limits<double>::quiet_NaN();
  return (double{s.raw.E0} - double{s.raw.E}) / static_cast<double>(s.n_dE);
}

/// Piecewise linear between the knots and flat outside them; NaN without a calibration.
double expected_quality(const State& s) {
  const std::vector<double>& knots = s.run.form->knots;
  const std::vector<double>& qualities = s.run.form->qualities;
  const double E_norm = double{s.raw.best_E} / s.run.E_scale;
  if (knots.empty() || !std::isfinite(E_norm)) return std::numeric_limits<double>::quiet_NaN();
  const auto above = std::upper_bound(knots.begin(), knots.end(), E_norm);
  if (above == knots.begin()) return qualities.front();
  if (above == knots.end()) return qualities.back();
  const auto right = static_cast<std::size_t>(above - knots.begin());
  const double slope = (qualities[right] - qualities[right - 1]) / (knots[right] - knots[right - 1]);
  return slope * (E_norm - knots[right - 1]) + qualities[right - 1];
}

double remaining(const State& s) { return (std::nearbyint(s.run.allocated * 1e6) - s.spent) / 1e6; }

/// The protocol wants a number: the greatest there is stands for an energy that is none.
double energy(const State& s) {
  return std::isfinite(s.raw.E) ? double{s.raw.E} : std::numeric_limits<double>::max();
}

using Text = std::string;

/// Every field that changes from one record of a plugin to the next, and how it is written.
constexpr std::pair<const char*, void (*)(Text&, const State&)> kFields[] = {
    {"seq", [](Text& out, const State& s) { append_integer(out, s.place.seq); }},
    {"ts_unix_ns",
     [](Text& out, const State& s) { append_integer(out, s.raw.time_ns + s.place.unix_offset_ns); }},
    {"ts_mono_ns", [](Text& out, const State& s) { append_integer(out, s.raw.time_ns); }},
    {"run_id",
     [](Text& out, const State& s) { append_integer(out, static_cast<std::int64_t>(s.raw.run_id)); }},
    {"request_id", [](Text& out, const State& s) { out += s.run.request_id; }},
    {"scene_id", [](Text& out, const State& s) { out += s.run.scene_id; }},
    {"branch_id", [](Text& out, const State& s) { append_integer(out, s.raw.branch); }},
    {"rewound_from",
     [](Text& out, const State& s) {
       if (!s.has(kFlagRewound)) return void(out += "null");
       append_integer(out, s.raw.step_idx);
     }},
    {"E_scale", [](Text& out, const State& s) { append_number(out, s.run.E_scale); }},
    {"eps", [](Text& out, const State& s) { append_number(out, s.run.eps); }},
    {"step_idx", [](Text& out, const State& s) { append_integer(out, s.raw.step_idx); }},
    {"steps",
     [](Text& out, const State& s) {
       if (!s.is_final()) return void(out += "null");
       append_integer(out, s.raw.step_idx);
     }},
    {"E", [](Text& out, const State& s) { append_number(out, energy(s)); }},
    {"E_norm", [](Text& out, const State& s) { append_finite(out, double{s.raw.E} / s.run.E_scale); }},
    {"dE", [](Text& out, const State& s) { append_finite(out, s.raw.dE); }},
    {"E0", [](Text& out, const State& s) { append_finite(out, s.raw.E0); }},
    {"best_E", [](Text& out, const State& s) { append_finite(out, s.raw.best_E); }},
    {"residual", [](Text& out, const State& s) { append_finite(out, s.raw.residual); }},
    {"feasible", [](Text& out, const State& s) { append_flag(out, s.has(kFlagFeasible)); }},
    {"closing", [](Text& out, const State& s) { append_flag(out, s.has(kFlagClosing)); }},
    {"halt_reason",
     [](Text& out, const State& s) {
       append_name(out, kProtocolReasons[static_cast<std::size_t>(s.raw.halt_reason)]);
     }},
    {"halt_cause",
     [](Text& out, const State& s) {
       append_name(out, kHaltReasonNames[static_cast<std::size_t>(s.raw.halt_reason)]);
     }},
    {"trust_weight", [](Text& out, const State& s) { append_number(out, s.run.trust_weight); }},
    {"monotonicity_ratio", [](Text& out, const State& s) { append_number(out, s.raw.monotonicity_ratio); }},
    {"dE_variance", [](Text& out, const State& s) { append_number(out, s.raw.dE_variance); }},
    {"convergence_rate", [](Text& out, const State& s) { append_finite(out, convergence_rate(s)); }},
    {"contribution_to_H",
     [](Text& out, const State& s) {
       append_finite(out, -s.run.trust_weight * double{s.raw.dE} / s.run.E_scale);
     }},
    {"n_dE", [](Text& out, const State& s) { append_integer(out, s.n_dE); }},
    {"expected_quality", [](Text& out, const State& s) { append_finite(out, expected_quality(s)); }},
    {"ATP_allocated", [](Text& out, const State& s) { append_finite(out, s.run.allocated); }},
    {"ATP_spent", [](Text& out, const State& s) { append_number(out, s.spent / 1e6); }},
    {"ATP_remaining", [](Text& out, const State& s) { append_finite(out, remaining(s)); }},
    {"power_w", [](Text& out, const State& s) { append_number(out, s.run.power_w); }},
    {"time_ms", [](Text& out, const State& s) { append_number(out, s.time_ms); }},
    {"deadline_remaining_ms",
     [](Text& out, const State& s) { append_finite(out, s.run.deadline_ms - s.time_ms); }},
    {"steps_remaining",
     [](Text& out, const State& s) {
       append_integer(out, std::int64_t{s.run.max_steps} - std::int64_t{s.raw.step_idx});
     }},
    {"board", [](Text& out, const State& s) { out += s.is_final() ? s.place.board : "null"; }},
    {"extra", [](Text& out, const State& s) { out += s.place.extra; }},
};

/// Where `prev_hash` belongs, which is known later.
constexpr std::size_t kPrevHash = std::size(kFields);

std::size_t field_named(const std::string& name) {
  if (name == "prev_hash") return kPrevHash;
  for (std::size_t field = 0; field < std::size(kFields); ++field) {
    if (name == kFields[field].first) return field;
  }
  throw ConfigError("form: expected fields of a step, got '" + name + "'");
}

/// What the schema asks of the numbers that the loop wrote, and that are never null.
const char* out_of_range(const Record& raw, double spent) {
  if (!(raw.monotonicity_ratio >= 0.0F && raw.monotonicity_ratio <= 1.0F))
    return "$.trust.monotonicity_ratio";
  if (!(raw.dE_variance >= 0.0F && std::isfinite(raw.dE_variance))) return "$.trust.dE_variance";
  constexpr double kMostExact = 9007199254740992.0;  // 2^53
  if (!(spent >= 0.0 && spent <= kMostExact)) return "$.budget.ATP_spent";
  if (static_cast<std::size_t>(raw.halt_reason) >= std::size(kHaltReasonNames)) return "$.halt_reason";
  return nullptr;
}

}  // namespace

StepForm::StepForm(std::vector<std::string> texts_, const std::vector<std::string>& field_names,
                   std::vector<double> knots_, std::vector<double> qualities_)
    : texts(std::move(texts_)), knots(std::move(knots_)), qualities(std::move(qualities_)) {
  if (texts.size() != field_names.size() + 1 || knots.size() != qualities.size()) {
    throw ConfigError("form: expected one text more than fields, and a quality for each knot");
  }
  for (const std::string& name : field_names) fields.push_back(field_named(name));
  if (std::count(fields.begin(), fields.end(), kPrevHash) != 1)
    throw ConfigError("form: expected one prev_hash");
}

double spent_uatp(double power_w, float spent_us) { return std::nearbyint(power_w * double{spent_us} * 1e3); }

const char* append_step(std::string& out, std::size_t& cut, const Record& raw, StepRun& run,
                        const StepPlace& place) {
  const bool is_step = raw.step_idx > 0 && (raw.flags & (kFlagClosing | kFlagRewound)) == 0;
  if (is_step && !std::isfinite(raw.dE)) ++run.undefined_changes;
  const double spent = spent_uatp(run.power_w, raw.spent_us);
  if (const char* path = out_of_range(raw, spent)) return path;
  const State state{raw,
                    run,
                    place,
                    std::int64_t{raw.step_idx} - std::int64_t{run.undefined_changes},
                    std::max(0.0, static_cast<double>(raw.time_ns - run.start_ns) / 1e6),
                    spent};
  const StepForm& form = *run.form;
  for (std::size_t i = 0; i < form.fields.size(); ++i) {
    out += form.texts[i];
    if (form.fields[i] == kPrevHash) {
      cut = out.size();
    } else {
      kFields[form.fields[i]].second(out, state);
    }
  }
  out += form.texts.back();
  return nullptr;
}

}  // namespace sage
