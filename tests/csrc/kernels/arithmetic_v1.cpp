// A namespace of its own: inline functions of one name must not meet across instruction sets.
#define sage sage_v1
#include "kernels/arithmetic.h"
#include "kernels/latent_math.h"

DECLARE_ARITHMETIC(arithmetic_v1) {
  sage::fill_normal({11, 12, 13}, 0, count, noise);
  const sage::ChunkSums sums = sage::update_chunk<true>({0.37F, 0.11F, -1.5F, 1.25F}, z, delta, noise, count);
  return {sums.change, sums.state};
}
