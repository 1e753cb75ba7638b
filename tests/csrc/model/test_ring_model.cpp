// The ring's sequence lock under C++'s memory model, which an x86 processor, real or emulating, is too strong
// to show.
//
// One writer laps a ring of two slots; one reader drains it meanwhile, by the ring's own code over a model
// checker (relacy). Every load may see any value that the memory model allows. Whatever is read must be whole
// and in order, and nothing may be lost without being counted. Exit code 1 when the checker finds a run that
// breaks this.
#include <array>
#include <cstring>

#include "core/ring.h"

namespace {

constexpr std::uint64_t kSlots = 2;
constexpr std::uint64_t kPushes = 4;

using Words = std::array<std::uint64_t, 8>;

/// A record whose every word tells its ticket.
sage::Record record_of(std::uint64_t ticket) {
  Words words{};
  for (std::size_t i = 1; i < words.size(); ++i) words[i] = 100 * (ticket + 1) + i;
  sage::Record record;
  std::memcpy(&record, words.data(), sizeof record);
  return record;
}

bool is_whole(const sage::Record& record, std::uint64_t ticket) {
  Words words;
  std::memcpy(words.data(), &record, sizeof record);
  if (words[0] != ticket) return false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] != 100 * (ticket + 1) + i) return false;
  }
  return true;
}

struct Lapping : rl::test_suite<Lapping, 2> {
  std::array<sage::RingSlot, kSlots> slots{};  // never touched: its addresses name the words
  std::array<rl::atomic<std::uint64_t>, kSlots * 8> words;
  sage::RingWriter writer{{slots.data(), kSlots}};
  sage::RingReader reader{{slots.data(), kSlots}};
  std::uint64_t read = 0;

  void before() {
    sage::system_atomic::shadow = {slots[0].words, words.data()};
    for (auto& word : words) word($).store(0, rl::mo_relaxed);
  }

  void thread(unsigned index) {
    if (index == 0) {
      for (std::uint64_t ticket = 0; ticket < kPushes; ++ticket) writer.push(record_of(ticket));
    } else {
      for (int i = 0; i < 3; ++i) drain(1);
    }
  }

  void after() {
    while (drain(kPushes) != 0) {
    }
    RL_ASSERT(read + reader.lost() == kPushes);
  }

  std::size_t drain(std::size_t most) {
    std::array<sage::Record, kPushes> records;
    const std::size_t count = reader.drain(records.data(), most);
    const std::uint64_t first = reader.cursor() - count;
    for (std::size_t i = 0; i < count; ++i) RL_ASSERT(is_whole(records[i], first + i));
    read += count;
    return count;
  }
};

}  // namespace

int main() {
  rl::test_params params;
  params.iteration_count = 1'000'000;
  params.search_type = rl::sched_random;
  return rl::simulate<Lapping>(params) ? 0 : 1;
}
