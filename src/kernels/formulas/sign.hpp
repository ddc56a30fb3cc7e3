// A step of the same length for each element: Lion and Signum.
//     d = sign*grad + weight_decay*param
//     u = the sign of carried*v + direct*d
//     v = keep*v + gain*d
//     param = param - (scale*u + decay*param)
#pragma once

#include <cstddef>

#include "kernels/compilers.hpp"
#include "kernels/formulas/decay.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T, unsigned terms>
struct Sign : Decay<T, terms> {
    T keep, gain, direct, carried, scale;

    explicit Sign(const Coefficients& c)
        : Decay<T, terms>(c),
          keep(T(c.keep)),
          gain(T(c.gain)),
          direct(T(c.direct)),
          carried(T(c.carried)),
          scale(T(c.scale)) {}

    // Zeros and NaN are their own.
    static T sign_of(T x) {
        const T up = x > 0 ? T(1) : x;
        return x < 0 ? T(-1) : up;
    }

    template <class Slots, class Take>
    INLINED void run(const Slots& as, const T* param, const T* RESTRICT grad, char* const* slots,
                     std::size_t n, const Take& take) const {
        auto* RESTRICT velocity = reinterpret_cast<typename Slots::Item*>(slots[0]);
        UNROLLED for (std::size_t i = 0; i < n; ++i) {
            const T d = this->direction(param[i], grad[i]);
            const T before = as.value(velocity[i]);
            const T u = sign_of(carried * before + direct * d);
            velocity[i] = as.item(keep * before + gain * d);
            take(i, this->decayed(scale * u, param[i]));
        }
    }
};

template <>
struct Code<Formula::sign> {
    template <class T, unsigned terms>
    using Of = Sign<T, terms>;
};

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
