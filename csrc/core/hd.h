#pragma once

// Marks what the device runs too: nvcc compiles these functions for both sides, any other compiler for the
// host.
#if defined(__CUDACC__)
#define SAGE_HD __host__ __device__
#else
#define SAGE_HD
#endif
