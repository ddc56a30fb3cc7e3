// The formulas that the kernels know: their numbers, their constants and, where kernels are compiled, their
// code. A rule of the user (plain/rules.cpp) is one of them, with constants of its own.
#pragma once

namespace fast_momentum {

// Each is a file of kernels/formulas, which says what it does with its constants. Plain ones keep a velocity
// and nothing else, and come first.
struct Formula {
    enum Name : unsigned { linear, n_plain, n = n_plain };
};

// The terms of a formula that are absent, and not only multiplied by 0 or 1, where they are not wanted. A
// decay is coupled or decoupled, so there are six sets of them.
struct Term {
    enum : unsigned { nesterov = 1, coupled_decay = 2, decoupled_decay = 4 };
};
constexpr unsigned n_term_sets = 6;

// A formula with a set of terms, for which there is a kernel of each kind.
constexpr unsigned n_variants = Formula::n * n_term_sets, n_plain_variants = Formula::n_plain * n_term_sets;

// In double; a kernel rounds each of them once to its dtype.
struct Coefficients {
    double sign, weight_decay;
    double keep, gain;
    double direct, carried;
    double scale, decay;
    double ahead;  // look-ahead: out = param - ahead*v
    unsigned variant;
};

}  // namespace fast_momentum

#ifdef FAST_MOMENTUM_ISA

#ifdef __FAST_MATH__
#error "fast_momentum promises bits: -ffast-math must not be among the compiler's flags"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "fast_momentum promises bits: arithmetic must be done in the type of its operands, so not on x87"
#endif

namespace fast_momentum::FAST_MOMENTUM_ISA {

// Code<formula>::Of<T, terms> is the formula in the dtype T. Its file specialises this; without that, the
// table of kernels does not compile.
template <unsigned formula>
struct Code;

}  // namespace fast_momentum::FAST_MOMENTUM_ISA

#include "kernels/formulas/linear.hpp"

#endif
