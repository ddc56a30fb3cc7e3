// The linear rule, once, as scalar functions: arithmetic only, one rounding per operation, no memory.
//     d = sign*grad + weight_decay*param
//     v = keep*v + gain*d
//     u = direct*d + carried*v
//     param = param - (scale*u + decay*param)
#pragma once

#include <cstddef>

#include "kernels/compilers.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

// `terms` says at compile time which terms exist: 0*param would turn an infinite parameter into NaN.
template <class T, unsigned terms>
struct Linear {
    T sign, weight_decay, keep, gain, direct, carried, scale, decay;

    explicit Linear(const Coefficients& c)
        : sign(T(c.sign)),
          weight_decay(T(c.weight_decay)),
          keep(T(c.keep)),
          gain(T(c.gain)),
          direct(T(c.direct)),
          carried(T(c.carried)),
          scale(T(c.scale)),
          decay(T(c.decay)) {
        // A sign commutes with rounding: without a second term in the direction it can go into its factors.
        if constexpr (!has_term(terms, Term::coupled_decay)) {
            gain = sign * gain;
            direct = sign * direct;
        }
    }

    T direction(T param, T grad) const {
        if constexpr (has_term(terms, Term::coupled_decay)) return sign * grad + weight_decay * param;
        return grad;
    }

    T new_velocity(T param, T grad, T velocity) const {
        return keep * velocity + gain * direction(param, grad);
    }

    // What the step takes from `param`; `velocity` is the new one.
    T displacement(T param, T grad, T velocity) const {
        T u = velocity;
        if constexpr (has_term(terms, Term::nesterov))
            u = direct * direction(param, grad) + carried * velocity;
        T displacement = scale * u;
        if constexpr (has_term(terms, Term::decoupled_decay)) displacement = displacement + decay * param;
        return displacement;
    }

    T new_param(T param, T grad, T velocity) const { return param - displacement(param, grad, velocity); }

    // A block: take(i, displacement) once its slots are those after the step.
    template <class Slots, class Take>
    INLINED void run(const Slots&, const T* param, const T* RESTRICT grad, char* const* slots, std::size_t n,
                     const Take& take) const {
        auto* RESTRICT velocity = reinterpret_cast<typename Slots::Item*>(slots[0]);
        UNROLLED for (std::size_t i = 0; i < n; ++i) velocity[i] =
            new_velocity(param[i], grad[i], velocity[i]);
        for (std::size_t i = 0; i < n; ++i) take(i, displacement(param[i], grad[i], velocity[i]));
    }
};

template <>
struct Code<Formula::linear> {
    template <class T, unsigned terms>
    using Of = Linear<T, terms>;
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
