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
enum Term : unsigned { coupled_decay = 1, nesterov = 2, decoupled_decay = 4 };
constexpr unsigned n_term_sets = 8;

// A kernel works on n consecutive elements of three disjoint arrays, the operands. Its first operand is
// written; a step also writes its third.
enum Operand : unsigned { step_param = 0, step_grad = 1, step_velocity = 2 };
enum LookaheadOperand : unsigned { lookahead_out = 0, lookahead_param = 1, lookahead_velocity = 2 };
constexpr unsigned n_operands = 3;

using Kernel = void (*)(char* first, const char* second, char* third, std::size_t n,
                        const Coefficients& coefficients) noexcept;

struct DtypeKernels {
    const char* name;
    char code;  // numpy.dtype.char
    std::size_t itemsize;
    double (*rounded)(double);  // to this dtype and back
    Kernel step[n_term_sets];   // by the terms that are present
    Kernel lookahead;
};

constexpr unsigned n_dtypes = 2;

struct Kernels {
    DtypeKernels dtypes[n_dtypes];
};

}  // namespace fast_momentum
