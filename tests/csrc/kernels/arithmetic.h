#pragma once

#include <cstddef>

// One compilation of latent_math.h, named by its instruction set. `z` is updated in place; the noise is left
// in `noise`.
struct Sums {
  double change;
  double state;
};

#define DECLARE_ARITHMETIC(name) Sums name(float* z, const float* delta, float* noise, std::size_t count)

DECLARE_ARITHMETIC(arithmetic_v1);
DECLARE_ARITHMETIC(arithmetic_v3);
DECLARE_ARITHMETIC(arithmetic_v4);
