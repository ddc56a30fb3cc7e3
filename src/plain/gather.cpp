#include "plain/gather.hpp"

#include <algorithm>
#include <cstring>

#include "plain/copy.hpp"

namespace fast_momentum {

namespace {

// Calls run(first, stride, length) for each run of elements along the last dimension; `first` is an offset.
template <class Run>
void for_each_run(const Order& order, std::size_t begin, std::size_t n, const Run& run) {
    const Dimension& last = order.dimensions[order.n_dimensions - 1];
    for (const std::size_t end = begin + n; begin < end;) {
        const std::size_t length = std::min(end - begin, last.size - begin % last.size);
        run(offset(order, begin), last.strides[order.operand] * order.unit, length);
        begin += length;
    }
}

void copy_run(char* to, std::ptrdiff_t to_stride, const char* from, std::ptrdiff_t from_stride, std::size_t n,
              std::size_t itemsize) {
    if (itemsize == 2) return copy_items<2>(to, to_stride, from, from_stride, n);
    if (itemsize == 4) return copy_items<4>(to, to_stride, from, from_stride, n);
    return copy_items<8>(to, to_stride, from, from_stride, n);
}

}  // namespace

std::ptrdiff_t offset(const Order& order, std::size_t i) {
    std::ptrdiff_t bytes = 0;
    for (unsigned d = order.n_dimensions; d-- > 0; i /= order.dimensions[d].size)
        bytes += static_cast<std::ptrdiff_t>(i % order.dimensions[d].size) *
                 order.dimensions[d].strides[order.operand] * order.unit;
    return bytes;
}

void gather(char* buffer, const char* array, const Order& order, std::size_t itemsize, std::size_t begin,
            std::size_t n) {
    const auto item = static_cast<std::ptrdiff_t>(itemsize);
    for_each_run(order, begin, n, [&](std::ptrdiff_t first, std::ptrdiff_t stride, std::size_t length) {
        copy_run(buffer, item, array + first, stride, length, itemsize);
        buffer += length * itemsize;
    });
}

void scatter(const char* buffer, char* array, const Order& order, std::size_t itemsize, std::size_t begin,
             std::size_t n) {
    const auto item = static_cast<std::ptrdiff_t>(itemsize);
    for_each_run(order, begin, n, [&](std::ptrdiff_t first, std::ptrdiff_t stride, std::size_t length) {
        copy_run(array + first, stride, buffer, item, length, itemsize);
        buffer += length * itemsize;
    });
}

void clear(char* array, const Order& order, std::size_t itemsize, std::size_t begin, std::size_t n) {
    for_each_run(order, begin, n, [&](std::ptrdiff_t first, std::ptrdiff_t stride, std::size_t length) {
        for (std::size_t i = 0; i < length; ++i, first += stride) std::memset(array + first, 0, itemsize);
    });
}

}  // namespace fast_momentum
