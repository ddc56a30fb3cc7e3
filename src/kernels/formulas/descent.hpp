// Gradient descent, which has no slots: what an accelerated step goes along.
//     d = sign*grad + weight_decay*param
//     displacement = scale*d + decay*param
#pragma once

#include <cstddef>

#include "kernels/compilers.hpp"
#include "kernels/formulas/decay.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T, unsigned terms>
struct Descent : Decay<T, terms> {
    T scale;

    explicit Descent(const Coefficients& c) : Decay<T, terms>(c), scale(T(c.scale)) {}

    template <class Slots, class Take>
    INLINED void run(const Slots&, const T* param, const T* RESTRICT grad, char* const*, std::size_t n,
                     const Take& take) const {
        UNROLLED for (std::size_t i = 0; i < n; ++i)
            take(i, this->decayed(scale * this->direction(param[i], grad[i]), param[i]));
    }
};

template <>
struct Code<Formula::descent> {
    template <class T, unsigned terms>
    using Of = Descent<T, terms>;
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
