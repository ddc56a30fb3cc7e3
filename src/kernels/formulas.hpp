// The formulas that the kernels know: their numbers, their constants and, where kernels are compiled, their
// code. A rule of the user (plain/rules.cpp) is one of them, with constants of its own.
#pragma once

#include <cstdint>

namespace fast_momentum {

// Each is in a file of kernels/formulas, which says what it does with its constants. Plain ones have kernels
// over three operands, the velocity among them, and come first. The last ones have no kernel for a whole
// step, which has stages between their displacement and the parameters.
struct Formula {
    enum Name : unsigned {
        linear,
        n_plain,
        sign = n_plain,
        adam,
        wide_adam,
        rmsprop,
        n_whole,
        descent = n_whole,
        n
    };
};

// Terms of a formula that are absent, and not only multiplied by 0 or 1, where they are not wanted: a decay,
// which is coupled or decoupled, and so many of the options below.
struct Term {
    enum Decay : unsigned { coupled_decay = 1, decoupled_decay = 2, n_decays };
    enum Option : unsigned {
        nesterov = n_decays,
        momentum = n_decays,
        amsgrad = 2 * n_decays,
        centered = 2 * n_decays
    };
};
constexpr unsigned n_options[Formula::n] = {1, 0, 2, 0, 2, 0};

// A variant is a formula with a set of terms; there is a kernel of each kind for it. Of the first one of a
// formula:
constexpr unsigned first_variant(unsigned formula) {
    unsigned n = 0;
    for (unsigned before = 0; before < formula; ++before) n += Term::n_decays << n_options[before];
    return n;
}
constexpr unsigned n_variants = first_variant(Formula::n);
constexpr unsigned n_plain_variants = first_variant(Formula::n_plain);
constexpr unsigned n_whole_variants = first_variant(Formula::n_whole);

// In double; a kernel rounds each of them once to its dtype.
struct Coefficients {
    double sign, weight_decay;
    double keep, gain;
    double direct, carried;
    double scale, decay;
    double ahead;  // look-ahead: out = param - ahead*v
    double second_keep, second_gain;
    double correction, eps, inner_eps;
    double threshold, lower, upper;  // of a proximal map
    double next_history;             // that an array has after this step
    std::uint32_t dither;            // the part of Storage::dither, below 65536
    bool is_first;                   // step of the array
    unsigned variant;
};

}  // namespace fast_momentum

#ifdef FAST_MOMENTUM_ISA

#include "kernels/compilers.hpp"

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

constexpr bool has_term(unsigned terms, Term::Decay decay) {
    return terms % Term::n_decays == decay;
}
constexpr bool has_term(unsigned terms, Term::Option option) {
    return (terms / option) % 2 != 0;
}

inline float square_root(float x) {
    return SQUARE_ROOT_FLOAT(x);
}
inline double square_root(double x) {
    return SQUARE_ROOT_DOUBLE(x);
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA

#include "kernels/formulas/adam.hpp"
#include "kernels/formulas/descent.hpp"
#include "kernels/formulas/linear.hpp"
#include "kernels/formulas/rmsprop.hpp"
#include "kernels/formulas/sign.hpp"

#endif
