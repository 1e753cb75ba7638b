#include "check.h"
#include "kernels/philox.h"

using sage::PhiloxBlock;

namespace {

void check_block(const PhiloxBlock& counter, std::uint64_t key, const PhiloxBlock& expected) {
  const PhiloxBlock block = sage::philox4x32(counter, key);
  for (int i = 0; i < 4; ++i) CHECK_EQ(block.words[i], expected.words[i]);
}

}  // namespace

// The known answers published with Random123.
TEST("Philox4x32-10 gives the published answers") {
  check_block({{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  check_block({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffffffffffffULL,
              {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  check_block({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822ULL,
              {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}
