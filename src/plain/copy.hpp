// Copies of elements that do not lie one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/compilers.hpp"

namespace fast_momentum {

// Copies n elements. Of the strides that the compiler knows it makes loops that it vectorises.
template <std::size_t itemsize>
void copy_items(char* to, std::ptrdiff_t to_stride, const char* from, std::ptrdiff_t from_stride,
                std::size_t n) {
    constexpr auto item = static_cast<std::ptrdiff_t>(itemsize);
    const auto each = [&](std::ptrdiff_t to_step, std::ptrdiff_t from_step) {
        UNROLLED for (std::size_t i = 0; i < n; ++i, to += to_step, from += from_step)
            std::memcpy(to, from, itemsize);
    };
    if (to_stride == item && from_stride == item)
        std::memcpy(to, from, n * itemsize);
    else if (to_stride == item && from_stride == 2 * item)
        each(item, 2 * item);
    else if (to_stride == item && from_stride == -item)
        each(item, -item);
    else if (to_stride == -item && from_stride == item)
        each(-item, item);
    else
        each(to_stride, from_stride);
}

// ---- rows that become columns, in registers: compilers do not find the shuffles ----

#ifdef HAS_SHUFFLES

constexpr bool can_turn(std::size_t itemsize) {
    return itemsize == sizeof(std::uint32_t) || itemsize == sizeof(std::uint64_t);
}

template <class Item>
struct Square {
    static constexpr std::size_t side = 16 / sizeof(Item);
    typedef Item Row __attribute__((vector_size(16)));
    Row rows[side];

    void turn() {
        if constexpr (side == 2) {
            const Row first = rows[0];
            rows[0] = __builtin_shufflevector(first, rows[1], 0, 2);
            rows[1] = __builtin_shufflevector(first, rows[1], 1, 3);
        } else {
            const Row upper_left = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
            const Row upper_right = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
            const Row lower_left = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
            const Row lower_right = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
            rows[0] = __builtin_shufflevector(upper_left, lower_left, 0, 1, 4, 5);
            rows[1] = __builtin_shufflevector(upper_left, lower_left, 2, 3, 6, 7);
            rows[2] = __builtin_shufflevector(upper_right, lower_right, 0, 1, 4, 5);
            rows[3] = __builtin_shufflevector(upper_right, lower_right, 2, 3, 6, 7);
        }
    }
};

// Copies n rows of m elements each, of a size that can_turn() is true for; they become columns.
template <std::size_t itemsize>
void turn(char* to, std::ptrdiff_t to_stride, const char* from, std::ptrdiff_t from_stride, std::size_t n,
          std::size_t m) {
    using Item = std::conditional_t<itemsize == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>;
    constexpr std::size_t side = Square<Item>::side;
    const auto to_at = [&](std::size_t row, std::size_t column) {
        return to + static_cast<std::ptrdiff_t>(row) * to_stride + column * itemsize;
    };
    const auto from_at = [&](std::size_t row, std::size_t column) {
        return from + static_cast<std::ptrdiff_t>(row) * from_stride + column * itemsize;
    };
    const std::size_t n_whole = n - n % side, m_whole = m - m % side;
    for (std::size_t i = 0; i < n_whole; i += side)
        for (std::size_t j = 0; j < m_whole; j += side) {
            Square<Item> square;
            for (std::size_t row = 0; row < side; ++row)
                std::memcpy(&square.rows[row], from_at(i + row, j), sizeof square.rows[row]);
            square.turn();
            for (std::size_t row = 0; row < side; ++row)
                std::memcpy(to_at(j + row, i), &square.rows[row], sizeof square.rows[row]);
        }
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = i < n_whole ? m_whole : 0; j < m; ++j)
            std::memcpy(to_at(j, i), from_at(i, j), itemsize);
}

#else

constexpr bool can_turn(std::size_t) {
    return false;
}
template <std::size_t>
void turn(char*, std::ptrdiff_t, const char*, std::ptrdiff_t, std::size_t, std::size_t) {}

#endif

}  // namespace fast_momentum
