// The mailbox from the device: how long until the host reads a record, beside asking CUDA, and whether any is
// torn.
#include <thread>

#include "bench.cuh"
#include "core/ring_memory.h"
#include "device/clock.cuh"

namespace {

constexpr std::uint64_t kRecords = 10'000'000;
constexpr std::uint64_t kCapacity = 1 << 16;

/// A record all of whose words follow from its number.
__host__ __device__ sage::Record numbered(std::uint64_t number) {
  sage::Record record{};
  record.run_id = number * 0x9E3779B97F4A7C15ULL;
  record.time_ns = static_cast<std::int64_t>(~number);
  record.E = static_cast<float>(number % 1000003);
  record.step_idx = static_cast<std::uint32_t>(number);
  return record;
}

__global__ void flood_kernel(sage::RingSpan ring, std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) sage::publish(ring, first + i, numbered(first + i));
}

__global__ void stamp_kernel(sage::RingSpan ring, std::uint64_t ticket) {
  std::uint64_t timer;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(timer));
  sage::Record record{};
  record.time_ns = static_cast<std::int64_t>(timer);
  sage::publish(ring, ticket, record);
}

struct Mapped {
  explicit Mapped(std::size_t capacity)
      : memory(capacity), host{memory.host(), capacity}, device{memory.device(), capacity} {}
  sage::MappedArray<sage::RingSlot> memory;
  sage::RingSpan host, device;
};

/// Torn and lost records among `kRecords`, the host reading as fast as it can.
void flood(cudaStream_t stream) {
  Mapped ring(kCapacity);
  sage::RingReader reader(ring.host);
  std::vector<sage::Record> batch(4096);
  std::uint64_t read = 0, torn = 0;
  const double start_us = bench::now_us();
  constexpr std::uint64_t kLaunch = 100'000;
  for (std::uint64_t first = 0; first < kRecords; first += kLaunch) {
    flood_kernel<<<1, 1, 0, stream>>>(ring.device, first, kLaunch);
    SAGE_CUDA_TRY(cudaGetLastError());
  }
  while (reader.cursor() < kRecords) {
    const std::size_t count = reader.drain(batch.data(), batch.size());
    for (std::size_t i = 0; i < count; ++i) {
      sage::Record expected = numbered(batch[i].seq);
      expected.seq = batch[i].seq;
      torn += std::memcmp(&expected, &batch[i], sizeof expected) != 0 ? 1U : 0U;
    }
    read += count;
  }
  const double us = bench::now_us() - start_us;
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream));
  std::printf("\"records\": %llu, \"read\": %llu, \"lost\": %llu, \"torn\": %llu, \"records_per_s\": %.0f, ",
              static_cast<unsigned long long>(kRecords), static_cast<unsigned long long>(read),
              static_cast<unsigned long long>(reader.lost()), static_cast<unsigned long long>(torn),
              static_cast<double>(read) / us * 1e6);
}

/// From launch to the record in the host's hands, polling the ring, or through CUDA.
void round_trips(cudaStream_t stream) {
  Mapped ring(kCapacity);
  sage::RingReader reader(ring.host);
  std::vector<double> poll, synchronize, copy;
  sage::Record record;
  sage::DeviceArray<std::uint64_t> word(1);
  const sage::MappedArray<std::uint64_t> landing(1);
  SAGE_CUDA_TRY(cudaDeviceSynchronize());
  for (std::uint64_t i = 0; i < 5000; ++i) {
    double start_us = bench::now_us();
    stamp_kernel<<<1, 1, 0, stream>>>(ring.device, i);
    while (reader.drain(&record, 1) == 0) {
    }
    poll.push_back(bench::now_us() - start_us);
    SAGE_CUDA_TRY(cudaStreamSynchronize(stream));
    start_us = bench::now_us();
    SAGE_CUDA_TRY(sage::launch_read_clock(landing.device(), stream));
    SAGE_CUDA_TRY(cudaStreamSynchronize(stream));
    synchronize.push_back(bench::now_us() - start_us);
    start_us = bench::now_us();
    SAGE_CUDA_TRY(sage::launch_read_clock(word.data(), stream));
    SAGE_CUDA_TRY(cudaMemcpyAsync(landing.host(), word.data(), 8, cudaMemcpyDeviceToHost, stream));
    SAGE_CUDA_TRY(cudaStreamSynchronize(stream));
    copy.push_back(bench::now_us() - start_us);
  }
  const auto print = [](const char* name, const std::vector<double>& us, const char* end) {
    std::printf("\"%s_us\": {\"p50\": %.2f, \"p99\": %.2f}%s", name, bench::median(us),
                bench::quantile(us, 0.99), end);
  };
  print("launch_to_ring_read", poll, ", ");
  print("launch_to_synchronize", synchronize, ", ");
  print("launch_to_copy", copy, "");
}

}  // namespace

int main() {
  const sage::Stream stream = sage::make_stream();
  std::printf("{\"mailbox\": {");
  flood(stream.get());
  round_trips(stream.get());
  std::printf("}}\n");
}
