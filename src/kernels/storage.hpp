// How float32 lies in memory in fewer bits: load and store, without branches, so that compilers vectorise
// them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/compilers.hpp"
#include "kernels/kernels.hpp"

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

inline double double_of(std::uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr std::uint32_t sign_bit = 0x80000000u, infinity_bits = 0x7f800000u;

// ---- bfloat16: the upper half of a float32 ----

constexpr float quiet_nan = __builtin_nanf("");

// A NaN in 32 bits, before anything is shifted: compilers would pack the comparison with the result.
inline std::uint32_t bits_without_payload(float value) {
    return bits_of(value == value ? value : quiet_nan);
}

// The highest bit that is lost, to which the last one that stays is added, rounds half to even. Shifted to
// and fro: a shift and a mask are done in 16 bits by compilers, at twice the cost.
inline std::uint16_t bfloat16_of(float value) {
    const std::uint32_t bits = bits_without_payload(value), last = bits << 15 >> 31;
    return std::uint16_t((bits + 0x7fffu + last) >> 16);
}

struct Bfloat16 {
    using Item = std::uint16_t;
    static constexpr bool in_one_loop = true;  // which is vectorised with its conversions, too
    static constexpr bool has_units = true;    // to which numbers are rounded each for itself
    static float value(Item item, float) { return float_of(std::uint32_t(item) << 16); }
    static Item item(float value) { return bfloat16_of(value); }
    // The bits that are lost and `part` make the next number together, or they do not. `least` shows 0 for 0
    // alone.
    static Item dithered_item(float value, std::uint32_t part) {
        const std::uint32_t bits = bits_without_payload(value), moved = bits + part, above = bits + 0xffffu;
        const std::uint32_t least = above < 0x10000u ? above : 0x10000u;
        return std::uint16_t((moved > least ? moved : least) >> 16);
    }
    static float dithered(float value, std::uint32_t part) {
        return Bfloat16::value(dithered_item(value, part), 0);
    }
    static void store(Item* RESTRICT to, float*, const float* RESTRICT from, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) to[i] = item(from[i]);
    }
};

// ---- float16: 5 bits of exponent, 10 of fraction ----

// Beside a power of two 13 binades above it, a float32 has the last bit of a float16: adding that power
// rounds, half to even, and subtracting it is exact. Below the normal numbers all have the last bit of the
// smallest.
constexpr std::uint32_t exponent_bits = infinity_bits, binades_above = 13u << 23;
constexpr std::uint32_t smallest_normal = (127u - 14) << 23, overflow = (127u + 16) << 23;
constexpr std::uint32_t largest_exponent = 254u << 23;
constexpr float smallest = 1.0f / (1 << 24);
constexpr float to_integer = 1 << 23;  // adding it rounds to an integer

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

// 1 or 0, by way of its bits: a choice between floats that follows another one is not vectorised.
inline float one_if(bool is_one) {
    return float_of((is_one ? ~0u : 0u) & bits_of(1.0f));
}

struct Float16 {
    using Item = std::uint16_t;
    static constexpr bool in_one_loop = false;
    static constexpr bool has_units = true;
    static float value(Item item, float) { return float_of_float16(item); }
    // How many units it is, with a fraction that the part makes one more or does not.
    static float dithered(float value, std::uint32_t part) {
        std::uint32_t exponent = bits_of(value) & exponent_bits;
        exponent = exponent > smallest_normal ? exponent : smallest_normal;
        exponent = exponent < largest_exponent ? exponent : largest_exponent;
        const std::uint32_t unit = exponent - (10u << 23), inverse = (254u << 23) - unit;
        const float units = value * float_of(inverse), nearest = (units + to_integer) - to_integer;
        const float below = nearest - one_if(nearest > units);
        const float needed = float(65536 - std::int32_t(part)) * (1.0f / 65536);
        const float moved = (below + one_if(units - below >= needed)) * float_of(unit);
        const float least = value > 0 ? smallest : 0.0f;
        return least > moved ? least : moved;
    }
    static void store(Item* RESTRICT to, float*, const float* RESTRICT from, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) to[i] = float16_of(from[i]);
    }
};

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

struct Int8 {
    using Item = std::int8_t;
    static constexpr bool in_one_loop = false;
    static constexpr bool has_units = false;  // but those of a block
    static float value(Item item, float scale) { return float(item) * scale; }
    static void store(Item* RESTRICT to, float* RESTRICT scales, const float* RESTRICT from, std::size_t n) {
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
};

// ---- all of them ----

struct Float32 {
    using Item = float;
    static float value(Item item, float) { return item; }
};

// The slots of a formula in the loop that makes them anew, as the dtype that is worked in and as others.
template <class T>
struct Native {
    using Item = T;
    explicit Native(std::uint32_t) {}
    static T value(Item item) { return item; }
    static Item item(T value) { return value; }
    static Item dithered_item(T value) { return value; }
};

template <class Narrow>
struct Narrowed {
    using Item = typename Narrow::Item;
    explicit Narrowed(std::uint32_t part_) : part(part_) {}
    static float value(Item item) { return Narrow::value(item, 0); }
    static Item item(float value) { return Narrow::item(value); }
    Item dithered_item(float value) const { return Narrow::dithered_item(value, part); }
    std::uint32_t part;
};

// Calls run(begin, end, scale) for what has one scale: n elements, or blocks of them.
template <class Run>
INLINED void by_scale(const float* scales, std::size_t n, const Run& run) {
    if (!scales) return run(0, n, 0.0f);
    for (std::size_t begin = 0; begin < n; begin += scale_block)
        run(begin, n - begin < scale_block ? n : begin + scale_block, scales[begin / scale_block]);
}

template <class Narrow>
void load(float* RESTRICT to, const char* from_, const float* scales, std::size_t n) noexcept {
    const auto* RESTRICT from = reinterpret_cast<const typename Narrow::Item*>(from_);
    by_scale(scales, n, [&](std::size_t begin, std::size_t end, float scale) {
        UNROLLED for (std::size_t i = begin; i < end; ++i) to[i] = Narrow::value(from[i], scale);
    });
}

template <class Narrow>
void dither(float* RESTRICT values, std::size_t n, std::uint32_t part) noexcept {
    UNROLLED for (std::size_t i = 0; i < n; ++i) values[i] = Narrow::dithered(values[i], part);
}

template <class Narrow>
constexpr Dither dithers() {
    if constexpr (Narrow::has_units)
        return dither<Narrow>;
    else
        return nullptr;
}

template <class Narrow>
void store(char* to, float* scales, const float* from, std::size_t n) noexcept {
    Narrow::store(reinterpret_cast<typename Narrow::Item*>(to), scales, from, n);
}

}  // namespace fast_momentum::FAST_MOMENTUM_ISA
