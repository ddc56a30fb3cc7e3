// Elements of an array that is not dense, in a given order, to and from a buffer. Plain data, no Python.
#pragma once

#include <cstddef>

#include "plain/work.hpp"

namespace fast_momentum {

// The order of the elements: the last dimension runs fastest.
struct Order {
    const Dimension* dimensions;
    unsigned n_dimensions;
    unsigned operand;         // whose strides count
    std::ptrdiff_t unit = 1;  // of these strides, in bytes
};

// Where element i lies, from the first one on.
std::ptrdiff_t offset(const Order& order, std::size_t i);
// Elements [begin, begin + n).
void gather(char* buffer, const char* array, const Order& order, std::size_t itemsize, std::size_t begin,
            std::size_t n);
void scatter(const char* buffer, char* array, const Order& order, std::size_t itemsize, std::size_t begin,
             std::size_t n);
// All bytes of the elements become zero.
void clear(char* array, const Order& order, std::size_t itemsize, std::size_t begin, std::size_t n);

}  // namespace fast_momentum
