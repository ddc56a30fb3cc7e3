// The linear rule, once, as scalar functions: arithmetic only, one rounding per operation, no memory.
#pragma once

#include "kernels/kernels.hpp"

#ifdef __FAST_MATH__
#error "fast_momentum promises bits: -ffast-math must not be among the compiler's flags"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "fast_momentum promises bits: arithmetic must be done in the type of its operands, so not on x87"
#endif

namespace fast_momentum::FAST_MOMENTUM_ISA {

// `terms` says at compile time which terms exist: 0*param would turn an infinite parameter into NaN.
template <class T, unsigned terms>
struct LinearRule {
    T sign, weight_decay, keep, gain, direct, carried, scale, decay;

    explicit LinearRule(const Coefficients& c)
        : sign(T(c.sign)),
          weight_decay(T(c.weight_decay)),
          keep(T(c.keep)),
          gain(T(c.gain)),
          direct(T(c.direct)),
          carried(T(c.carried)),
          scale(T(c.scale)),
          decay(T(c.decay)) {
        // A sign commutes with rounding: without a second term in the direction it can go into its factors.
        if constexpr (!(terms & Term::coupled_decay)) {
            gain = sign * gain;
            direct = sign * direct;
        }
    }

    T direction(T param, T grad) const {
        if constexpr (terms & Term::coupled_decay) return sign * grad + weight_decay * param;
        return grad;
    }

    T new_velocity(T param, T grad, T velocity) const {
        return keep * velocity + gain * direction(param, grad);
    }

    // What the step takes from `param`; `velocity` is the new one.
    T displacement(T param, T grad, T velocity) const {
        T u = velocity;
        if constexpr (terms & Term::nesterov) u = direct * direction(param, grad) + carried * velocity;
        T displacement = scale * u;
        if constexpr (terms & Term::decoupled_decay) displacement = displacement + decay * param;
        return displacement;
    }

    T new_param(T param, T grad, T velocity) const { return param - displacement(param, grad, velocity); }
};

template <class T>
T lookahead_point(T param, T velocity, T ahead) {
    return param - ahead * velocity;
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
