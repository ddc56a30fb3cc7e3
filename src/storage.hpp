// How float32 lies in memory in fewer bits: load and store, without branches, so that compilers vectorise
// them.
#pragma once

#include <cstdint>
#include <cstring>

#include "compilers.hpp"
#include "kernels.hpp"

namespace fast_momentum::FAST_MOMENTUM_ISA {

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr std::uint32_t sign_bit = 0x80000000u, infinity_bits = 0x7f800000u;

// ---- bfloat16: the upper half of a float32 ----

inline std::uint16_t bfloat16_of(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t nearest = bits + 0x7fffu + ((bits >> 16) & 1);  // ties to even
    const std::uint32_t quiet_nan = bits | 0x00400000u;
    return std::uint16_t(((bits & ~sign_bit) > infinity_bits ? quiet_nan : nearest) >> 16);
}

inline void load_bfloat16(float* RESTRICT to, const char* from_, const float*, std::size_t n) noexcept {
    const std::uint16_t* RESTRICT from = reinterpret_cast<const std::uint16_t*>(from_);
    for (std::size_t i = 0; i < n; ++i) to[i] = float_of(std::uint32_t(from[i]) << 16);
}

inline void store_bfloat16(char* to_, float*, const float* RESTRICT from, std::size_t n) noexcept {
    std::uint16_t* RESTRICT to = reinterpret_cast<std::uint16_t*>(to_);
    for (std::size_t i = 0; i < n; ++i) to[i] = bfloat16_of(from[i]);
}

// ---- float16: 5 bits of exponent, 10 of fraction ----

// Additions of powers of two, exact or rounded by the processor, do what lies below the normal numbers.
constexpr std::uint32_t exponent_shift = (127 - 15) << 23;  // between the two biases
constexpr std::uint32_t smallest_normal = (127 - 14) << 23;
constexpr std::uint32_t overflow = (127 + 16) << 23;

inline float float_of_float16(std::uint16_t half) {
    const std::uint32_t magnitude = half & 0x7fffu, shifted = magnitude << 13;
    const float subnormal = float_of(shifted + smallest_normal) - float_of(smallest_normal);
    const std::uint32_t normal = shifted + exponent_shift;
    const std::uint32_t special = shifted + 2 * exponent_shift;
    const std::uint32_t bits =
        magnitude < 0x400u ? bits_of(subnormal) : (magnitude >= 0x7c00u ? special : normal);
    return float_of(bits | std::uint32_t(half & 0x8000u) << 16);
}

inline std::uint16_t float16_of(float value) {
    const std::uint32_t bits = bits_of(value), magnitude = bits & ~sign_bit;
    const float half = 0.5f;  // whose last bit is the smallest float16
    const std::uint32_t subnormal = bits_of(float_of(magnitude) + half) - bits_of(half);
    const std::uint32_t normal =
        (magnitude - exponent_shift + 0xfffu + ((magnitude >> 13) & 1)) >> 13;  // ties to even
    const std::uint32_t special = magnitude > infinity_bits ? 0x7e00u : 0x7c00u;
    const std::uint32_t nearest =
        magnitude < smallest_normal ? subnormal : (magnitude >= overflow ? special : normal);
    return std::uint16_t(nearest | (bits & sign_bit) >> 16);
}

inline void load_float16(float* RESTRICT to, const char* from_, const float*, std::size_t n) noexcept {
    const std::uint16_t* RESTRICT from = reinterpret_cast<const std::uint16_t*>(from_);
    for (std::size_t i = 0; i < n; ++i) to[i] = float_of_float16(from[i]);
}

inline void store_float16(char* to_, float*, const float* RESTRICT from, std::size_t n) noexcept {
    std::uint16_t* RESTRICT to = reinterpret_cast<std::uint16_t*>(to_);
    for (std::size_t i = 0; i < n; ++i) to[i] = float16_of(from[i]);
}

// ---- int8: multiples of a scale, one for each block ----

// A 127th of the largest magnitude; NaN where that is NaN or infinite, 0 where it would be subnormal. Rounded
// up to 16 bits: times a number of 7 bits it is exact then, and what was read is stored as the same again.
inline float scale_of(const float* RESTRICT from, std::size_t n) {
    std::uint32_t largest = 0;  // of the bits without sign, in which order NaN comes last
    UNROLLED for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t magnitude = bits_of(from[i]) & ~sign_bit;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float magnitude = float_of(largest);
    const std::uint32_t scale = bits_of(magnitude / 127);
    constexpr std::uint32_t smallest_normal_bits = 1u << 23;
    const float rounded = scale < smallest_normal_bits ? 0.0f : float_of((scale + 0xffu) & ~0xffu);
    return rounded + (magnitude - magnitude);
}

// Adding this rounds to an integer, half to even, which the lowest bits of the sum then are.
constexpr float integer_shift = 12582912.0f;  // 1.5 * 2**23

inline void load_int8(float* RESTRICT to, const char* from_, const float* RESTRICT scales,
                      std::size_t n) noexcept {
    const std::int8_t* RESTRICT from = reinterpret_cast<const std::int8_t*>(from_);
    for (std::size_t begin = 0; begin < n; begin += scale_block) {
        const std::size_t end = n - begin < scale_block ? n : begin + scale_block;
        const float scale = scales[begin / scale_block];
        for (std::size_t i = begin; i < end; ++i) to[i] = float(from[i]) * scale;
    }
}

inline void store_int8(char* to_, float* RESTRICT scales, const float* RESTRICT from,
                       std::size_t n) noexcept {
    std::int8_t* RESTRICT to = reinterpret_cast<std::int8_t*>(to_);
    for (std::size_t begin = 0; begin < n; begin += scale_block) {
        const std::size_t end = n - begin < scale_block ? n : begin + scale_block;
        const float scale = scale_of(from + begin, end - begin);
        const float inverse = scale == 0 ? 0.0f : 1 / scale;
        scales[begin / scale_block] = scale;
        for (std::size_t i = begin; i < end; ++i)
            to[i] = std::int8_t(bits_of(from[i] * inverse + integer_shift));
    }
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
