// The stages of a whole update beside the rule: loops over a block that is in L1, one rounding per operation.
#pragma once

#include <cfloat>

#include "kernels/compilers.hpp"
#include "kernels/kernels.hpp"
#include "kernels/storage.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

template <class T>
constexpr T least_normal = T(sizeof(T) == sizeof(float) ? FLT_MIN : DBL_MIN);

// A NaN is neither below nor above the bound, and stays.
template <class T>
void prepare(char* out_, const char* grad_, std::size_t n, const Preparation& preparation) noexcept {
    const T scale = T(preparation.scale), coefficient = T(preparation.coefficient);
    const T bound = T(preparation.bound);
    T* RESTRICT out = reinterpret_cast<T*>(out_);
    const T* RESTRICT grad = reinterpret_cast<const T*>(grad_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) {
        T g = scale * grad[i];
        g = g < -bound ? -bound : g;
        g = g > bound ? bound : g;
        out[i] = coefficient * g;
    }
}

// Kahan's compensated summation: what a rounding of the parameters adds is taken away by the next step.
template <class T>
void add(char* displacement_, const char* compensation_, std::size_t n) noexcept {
    T* RESTRICT displacement = reinterpret_cast<T*>(displacement_);
    const T* RESTRICT compensation = reinterpret_cast<const T*>(compensation_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) displacement[i] = displacement[i] + compensation[i];
}

template <class T>
void subtract(char* difference_, const char* param_, const char* displacement_, std::size_t n) noexcept {
    T* RESTRICT difference = reinterpret_cast<T*>(difference_);
    const T* RESTRICT param = reinterpret_cast<const T*>(param_);
    const T* RESTRICT displacement = reinterpret_cast<const T*>(displacement_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) difference[i] = param[i] - displacement[i];
}

template <class T>
void compensate(char* compensation_, const char* after_, const char* before_, const char* displacement_,
                std::size_t n) noexcept {
    T* RESTRICT compensation = reinterpret_cast<T*>(compensation_);
    const T* RESTRICT after = reinterpret_cast<const T*>(after_);
    const T* RESTRICT before = reinterpret_cast<const T*>(before_);
    const T* RESTRICT displacement = reinterpret_cast<const T*>(displacement_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) compensation[i] = (after[i] - before[i]) + displacement[i];
}

inline float of_bits(std::uint32_t bits) {
    return float_of(bits);
}
inline double of_bits(std::uint64_t bits) {
    return double_of(bits);
}

// A threshold of 0 changes no bit.
template <class T>
void proximal(char* values_, std::size_t n, double threshold_, double lower_, double upper_) noexcept {
    const T threshold = T(threshold_), lower = T(lower_), upper = T(upper_);
    T* RESTRICT values = reinterpret_cast<T*>(values_);
    if (threshold != 0) UNROLLED for (std::size_t i = 0; i < n; ++i) {
            const auto bits = bits_of(values[i]), sign = bits & bits_of(T(-0.0));
            const T rest = of_bits(bits ^ sign) - threshold;
            values[i] = of_bits(bits_of(rest <= 0 ? T(0) : rest) | sign);
        }
    UNROLLED for (std::size_t i = 0; i < n; ++i) {
        const T x = values[i] < lower ? lower : values[i];
        values[i] = x > upper ? upper : x;
    }
}

template <class T>
void advance(char* param_, const char* found_, const char* previous_, char* iterate_, std::size_t n,
             double carried_) noexcept {
    const T carried = T(carried_);
    T* param = reinterpret_cast<T*>(param_);
    const T* RESTRICT found = reinterpret_cast<const T*>(found_);
    const T* previous = reinterpret_cast<const T*>(previous_);
    T* iterate = reinterpret_cast<T*>(iterate_);
    if (carried != 0)
        UNROLLED for (std::size_t i = 0; i < n; ++i) param[i] = found[i] + carried * (found[i] - previous[i]);
    else
        std::memcpy(param, found, n * sizeof(T));
    std::memcpy(iterate, found, n * sizeof(T));
}

template <class T>
void average(char* average_, const char* param_, std::size_t n, double decay_) noexcept {
    const T decay = T(decay_), rest = T(1 - decay_);
    T* RESTRICT average = reinterpret_cast<T*>(average_);
    const T* RESTRICT param = reinterpret_cast<const T*>(param_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) average[i] = decay * average[i] + rest * param[i];
}

// Adding the lowest bit of the exponent to a number's bits reaches the sign where it is infinite or NaN, and
// only there. In integers, as not all compilers vectorise comparisons whose results are gathered.
template <class T>
bool finite(const char* grad_, std::size_t n, double scale_) noexcept {
    const T scale = T(scale_);
    const T* grad = reinterpret_cast<const T*>(grad_);
    const auto exponent_bit = bits_of(least_normal<T>), sign = bits_of(T(-0.0));
    auto seen = bits_of(T(0));
    UNROLLED for (std::size_t i = 0; i < n; ++i) seen |= (bits_of(scale * grad[i]) & ~sign) + exponent_bit;
    return (seen & sign) == 0;
}

// Sixteen sums, each of every sixteenth square, added up at the end: the same for any width of vectors. In
// double, squares of float32 are exact and can neither overflow nor vanish.
constexpr std::size_t n_lanes = 16;

template <class Term>
inline double sum_of(std::size_t n, const Term& term) {
    double lanes[n_lanes] = {};
    std::size_t i = 0;
    for (; i + n_lanes <= n; i += n_lanes)
        for (std::size_t lane = 0; lane < n_lanes; ++lane) lanes[lane] = lanes[lane] + term(i + lane);
    for (std::size_t lane = 0; i + lane < n; ++lane) lanes[lane] = lanes[lane] + term(i + lane);
    for (std::size_t half = n_lanes / 2; half > 0; half /= 2)
        for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] = lanes[lane] + lanes[lane + half];
    return lanes[0];
}

template <class T, class Value>
inline double sum_of_squares(const T* grad, std::size_t n, const Value& value) {
    return sum_of(n, [&](std::size_t i) { return value(grad[i]) * value(grad[i]); });
}

template <class T>
double alignment(const char* param_, const char* found_, const char* previous_, std::size_t n) noexcept {
    const T* param = reinterpret_cast<const T*>(param_);
    const T* found = reinterpret_cast<const T*>(found_);
    const T* previous = reinterpret_cast<const T*>(previous_);
    return sum_of(
        n, [&](std::size_t i) { return double(param[i] - found[i]) * double(found[i] - previous[i]); });
}

template <class T>
double squares(const char* grad_, std::size_t n, double scale, double factor) noexcept {
    const T* grad = reinterpret_cast<const T*>(grad_);
    const T rounded = T(scale);
    if (factor != 1) return sum_of_squares(grad, n, [=](T g) { return double(rounded * g) * factor; });
    if (scale != 1) return sum_of_squares(grad, n, [=](T g) { return double(rounded * g); });
    return sum_of_squares(grad, n, [](T g) { return double(g); });
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
