// What compilers spell in different ways.
#pragma once

// Microsoft's compiler alone; clang-cl, which says to be one, is clang.
#if defined(_MSC_VER) && !defined(__clang__)
#define INLINED __forceinline
#define OUTLINED __declspec(noinline)
#define RESTRICT __restrict
#else
#define INLINED inline __attribute__((always_inline))
#define OUTLINED __attribute__((noinline))
#define RESTRICT __restrict__
#endif

// gcc does not unroll what it vectorises; short of bandwidth loops are up to 1.3 times faster for it. Clang
// does. Not for loops that divide or convert, which wait for that and not for the loop; and not in kernels
// for x86-64 without AVX2, which few CPUs need, as the wheel has to stay small.
#if defined(FAST_MOMENTUM_ISA) && defined(__x86_64__) && !defined(__AVX2__)
#define UNROLLED
#elif defined(__GNUC__) && !defined(__clang__)
#define UNROLLED _Pragma("GCC unroll 4")
#else
#define UNROLLED
#endif

// Not that of <cmath>, which the linker would share among instruction sets.
#if defined(_MSC_VER) && !defined(__clang__)
#include <math.h>
#define SQUARE_ROOT_FLOAT sqrtf
#define SQUARE_ROOT_DOUBLE sqrt
#else
#define SQUARE_ROOT_FLOAT __builtin_sqrtf
#define SQUARE_ROOT_DOUBLE __builtin_sqrt
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address)
#endif

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLES
#endif
#endif
