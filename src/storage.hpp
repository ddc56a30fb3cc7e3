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

inline std::uint64_t bits_of(double value) {
    std::uint64_t bits;
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

// Of which bfloat16 are the upper half.
inline std::uint32_t rounded_to_bfloat16(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t nearest = bits + 0x7fffu + ((bits >> 16) & 1);  // ties to even
    return value != value ? bits | 0x400000u : nearest;                 // a NaN stays one
}

inline void load_bfloat16(float* RESTRICT to, const char* from_, const float*, std::size_t n) noexcept {
    const std::uint16_t* RESTRICT from = reinterpret_cast<const std::uint16_t*>(from_);
    UNROLLED for (std::size_t i = 0; i < n; ++i) to[i] = float_of(std::uint32_t(from[i]) << 16);
}

// In two loops: in one, compilers go to 16 bits before the rounding is done, at twice the cost.
inline void store_bfloat16(char* to_, float*, const float* RESTRICT from, std::size_t n) noexcept {
    std::uint16_t* RESTRICT to = reinterpret_cast<std::uint16_t*>(to_);
    std::uint32_t rounded[256];
    for (std::size_t begin = 0; begin < n; begin += 256) {
        const std::size_t length = n - begin < 256 ? n - begin : 256;
        for (std::size_t i = 0; i < length; ++i) rounded[i] = rounded_to_bfloat16(from[begin + i]);
        for (std::size_t i = 0; i < length; ++i) to[begin + i] = std::uint16_t(rounded[i] >> 16);
    }
}

// ---- float16: 5 bits of exponent, 10 of fraction ----

// Beside a power of two 13 binades above it, a float32 has the last bit of a float16: adding that power
// rounds, half to even, and subtracting it is exact. Below the normal numbers all have the last bit of the
// smallest.
constexpr std::uint32_t exponent_bits = infinity_bits, binades_above = 13u << 23;
constexpr std::uint32_t smallest_normal = (127u - 14) << 23, overflow = (127u + 16) << 23;

inline float float_of_float16(std::uint16_t half) {
    const std::uint32_t magnitude = half & 0x7fffu;
    std::uint32_t exponent = magnitude & 0x7c00u;
    exponent = exponent > 0x400u ? exponent : 0x400u;
    const std::uint32_t power = (exponent << 13) + (smallest_normal + binades_above - (1u << 23));
    const std::uint32_t finite = bits_of(float_of(power + (magnitude - exponent + 0x400u)) - float_of(power));
    const std::uint32_t special = magnitude >= 0x7c00u ? infinity_bits | magnitude << 13 : 0u;
    return float_of((finite | special) | std::uint32_t(half & 0x8000u) << 16);
}

inline std::uint16_t float16_of(float value) {
    const std::uint32_t bits = bits_of(value), magnitude = bits & ~sign_bit;
    const std::uint32_t bounded = magnitude < overflow ? magnitude : overflow;
    std::uint32_t exponent = bounded & exponent_bits;
    exponent = exponent > smallest_normal ? exponent : smallest_normal;
    const std::uint32_t power = exponent + binades_above;
    const std::uint32_t nearest = bits_of(float_of(bounded) + float_of(power)) - power;
    const std::uint32_t nan = magnitude > infinity_bits ? 0x200u : 0u;
    return std::uint16_t((nearest + ((exponent - smallest_normal) >> 13)) | nan | (bits & sign_bit) >> 16);
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
        UNROLLED for (std::size_t i = begin; i < end; ++i) to[i] = float(from[i]) * scale;
    }
}

inline void store_int8(char* to_, float* RESTRICT scales, const float* RESTRICT from,
                       std::size_t n) noexcept {
    std::int8_t* RESTRICT to = reinterpret_cast<std::int8_t*>(to_);
    // All scales first: nothing waits for the divisions of a block but the loop that needs them.
    for (std::size_t begin = 0; begin < n; begin += scale_block)
        scales[begin / scale_block] =
            scale_of(from + begin, n - begin < scale_block ? n - begin : scale_block);
    for (std::size_t begin = 0; begin < n; begin += scale_block) {
        const std::size_t end = n - begin < scale_block ? n : begin + scale_block;
        const float scale = scales[begin / scale_block];
        const float inverse = scale == 0 ? 0.0f : 1 / scale;
        for (std::size_t i = begin; i < end; ++i)
            to[i] = std::int8_t(bits_of(from[i] * inverse + integer_shift));
    }
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
