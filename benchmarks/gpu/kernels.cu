// latent_step alone: microseconds and bandwidth, beside a copy of as many bytes, on buffers that no cache
// holds.
#include "bench.cuh"
#include "kernels/latent_step.cuh"

namespace {

constexpr std::size_t kFootprint = std::size_t{1} << 29;

/// One slot that never halts, and several sets of states to rotate among.
template <class T>
class Step {
 public:
  explicit Step(std::size_t elements)
      : elements_(elements),
        sets_(std::max<std::size_t>(2, kFootprint / (3 * elements * sizeof(T)))),
        z_(sets_ * elements),
        delta_(sets_ * elements),
        best_(sets_ * elements) {
    sage::HaltPolicy policy;
    policy.eps = 0.0;
    policy.max_steps = 1 << 30;
    sage::Slot slot;
    slot.run = sage::Run(1, policy, 0, 0);
    slot.run.observe({1.0});
    slot.row = 0;
    first_ = upload(slot);  // its best state is the current one: a step saves it
    slot.run.observe({2.0});
    later_ = upload(slot);  // its best state is an earlier one
    fill();
    const std::vector<float> half(1, 0.5F);
    SAGE_CUDA_TRY(cudaMemcpy(step_size_.data(), half.data(), sizeof(float), cudaMemcpyHostToDevice));
    controls_.host()[0] = {0, ~0ULL >> 1, 1 << 30};
    loop_ = {slot_.data(),
             total_.data(),
             state_.data(),
             nullptr,
             controls_.device(),
             desk_.device(),
             nullptr,
             report_.device(),
             terms_.data(),
             terms_.data(),
             {ring_.device(), 1024},
             1,
             1,
             1,
             elements,
             0.0,
             0};
    SAGE_CUDA_TRY(cudaDeviceSynchronize());
  }

  std::size_t bytes(bool saves_best) const { return (saves_best ? 4 : 3) * elements_ * sizeof(T); }

  void run(int turn, bool saves_best, cudaStream_t stream) {
    SAGE_CUDA_TRY(cudaMemcpyAsync(slot_.data(), (saves_best ? first_ : later_).data(), sizeof(sage::Slot),
                                  cudaMemcpyDeviceToDevice, stream));
    const std::size_t at = static_cast<std::size_t>(turn) % sets_ * elements_;
    const sage::DeviceRows<T> rows = {
        z_.data() + at, delta_.data() + at, best_.data() + at, step_size_.data(), 0.0F, 0, -2.0F,
        2.0F,           chunk_sums_.data(), arrivals_.data()};
    SAGE_CUDA_TRY(sage::launch_latent_step(rows, loop_, {1, 0, ~0ULL}, stream));
  }

 private:
  static sage::DeviceArray<sage::Slot> upload(const sage::Slot& slot) {
    sage::DeviceArray<sage::Slot> array(1);
    SAGE_CUDA_TRY(cudaMemcpy(array.data(), &slot, sizeof slot, cudaMemcpyHostToDevice));
    return array;
  }

  void fill() {
    std::vector<T> values(elements_);
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    for (T& value : values) value = sage::from_float<T>(uniform(random));
    for (std::size_t set = 0; set < sets_; ++set) {
      for (T* array : {z_.data(), delta_.data()}) {
        SAGE_CUDA_TRY(cudaMemcpy(array + set * elements_, values.data(), elements_ * sizeof(T),
                                 cudaMemcpyHostToDevice));
      }
    }
  }

  std::size_t elements_, sets_;
  sage::DeviceArray<T> z_, delta_, best_;
  sage::DeviceArray<sage::Slot> slot_{1}, first_, later_;
  sage::DeviceArray<sage::ChunkSums> total_{1}, chunk_sums_{sage::chunks(elements_)};
  sage::DeviceArray<sage::LoopState> state_{1};
  sage::DeviceArray<float> terms_{1}, step_size_{1};
  sage::DeviceArray<std::uint32_t> arrivals_{2};
  sage::MappedArray<sage::Control> controls_{1};
  sage::MappedArray<sage::Desk> desk_{1};
  sage::MappedArray<sage::Report> report_{1};
  sage::MappedArray<sage::RingSlot> ring_{1024};
  sage::Loop loop_{};
};

/// Microseconds of a copy that reads and writes `bytes` in all.
double copy_us(std::size_t bytes, cudaStream_t stream) {
  const std::size_t half = bytes / 2;
  const std::size_t sets = std::max<std::size_t>(2, kFootprint / bytes);
  const sage::DeviceArray<char> from(sets * half), to(sets * half);
  SAGE_CUDA_TRY(cudaDeviceSynchronize());
  return bench::time_us(stream, 20, [&](int turn) {
    const std::size_t at = static_cast<std::size_t>(turn) % sets * half;
    SAGE_CUDA_TRY(cudaMemcpyAsync(to.data() + at, from.data() + at, half, cudaMemcpyDeviceToDevice, stream));
  });
}

template <class T>
void measure(const char* dtype, std::size_t elements, cudaStream_t stream) {
  static bool first = true;
  Step<T> step(elements);
  for (const bool saves_best : {false, true}) {
    const double us = bench::time_us(stream, 20, [&](int turn) { step.run(turn, saves_best, stream); });
    const std::size_t bytes = step.bytes(saves_best);
    const double copy = copy_us(bytes, stream);
    std::printf(
        "%s\n  {\"dtype\": \"%s\", \"elements\": %zu, \"saves_best\": %s, \"us\": %.3f, \"gb_per_s\": %.1f, "
        "\"copy_us\": %.3f, \"copy_gb_per_s\": %.1f, \"share_of_copy\": %.3f}",
        first ? "" : ",", dtype, elements, saves_best ? "true" : "false", us,
        static_cast<double>(bytes) / us / 1e3, copy, static_cast<double>(bytes) / copy / 1e3, copy / us);
    first = false;
  }
}

}  // namespace

int main() {
  const sage::Stream stream = sage::make_stream();
  std::printf("{\"latent_step\": [");
  for (const std::size_t elements : {std::size_t{1} << 14, std::size_t{1} << 18, std::size_t{1} << 20,
                                     std::size_t{1} << 22, std::size_t{1} << 24, std::size_t{1} << 26}) {
    measure<float>("float32", elements, stream.get());
    measure<sage::Half>("float16", elements, stream.get());
  }
  std::printf("\n]}\n");
}
