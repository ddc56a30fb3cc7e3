// The contract between the kernels, compiled once per instruction set, and the rest, compiled once.
// Plain data only: a function body in here would be compiled under several instruction sets, and the linker
// would keep one of them for every CPU.
#pragma once

#include <cstddef>

namespace fast_momentum {

// The constants of the linear rule, in double; a kernel rounds each of them once to its dtype.
//     d = sign*grad + weight_decay*param
//     v = keep*v + gain*d
//     u = direct*d + carried*v
//     param = param - (scale*u + decay*param)
//     look-ahead: out = param - ahead*v
struct Coefficients {
    double sign, weight_decay;
    double keep, gain;
    double direct, carried;
    double scale, decay;
    double ahead;
    unsigned terms;
};

// The terms of the rule that are absent, and not only multiplied by 0 or 1, where they are not wanted.
struct Term {
    enum : unsigned { coupled_decay = 1, nesterov = 2, decoupled_decay = 4 };
};
constexpr unsigned n_term_sets = 8;

// A kernel works on n consecutive elements of three disjoint arrays, its operands:
//     step        param, grad, velocity    writes param and velocity
//     lookahead   out, param, velocity     writes out
constexpr unsigned n_operands = 3;

using Kernel = void (*)(char* first, const char* second, char* third, std::size_t n,
                        const Coefficients& coefficients) noexcept;

struct DtypeKernels {
    const char* name;
    int number;  // numpy.dtype.num
    std::size_t itemsize;
    double (*rounded)(double);  // to this dtype and back
    Kernel step[n_term_sets];   // by the terms that are present
    Kernel lookahead;
};

constexpr unsigned n_dtypes = 2;

struct Kernels {
    const char* flags;  // that they were compiled with
    DtypeKernels dtypes[n_dtypes];
};

}  // namespace fast_momentum
