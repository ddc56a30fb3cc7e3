// What weight decay adds to a formula: to the gradient at its beginning, or to the displacement at its end.
//     d = sign*grad + weight_decay*param
//     displacement = displacement + decay*param
#pragma once

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T, unsigned terms>
struct Decay {
    T sign, weight_decay, decay;

    explicit Decay(const Coefficients& c)
        : sign(T(c.sign)), weight_decay(T(c.weight_decay)), decay(T(c.decay)) {}

    T direction(T param, T grad) const {
        if constexpr (has_term(terms, Term::coupled_decay)) return sign * grad + weight_decay * param;
        return sign * grad;
    }

    template <class Wide>
    Wide decayed(Wide displacement, T param) const {
        if constexpr (has_term(terms, Term::decoupled_decay)) return displacement + decay * param;
        return displacement;
    }
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
