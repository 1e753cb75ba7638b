#pragma once

// One function per instruction set, chosen when the library is loaded. Sanitizers run before that choice can
// be made.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(SAGE_SANITIZED)
#define SAGE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define SAGE_CLONES
#endif
