#include "run.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "threads.hpp"

namespace fast_momentum {

namespace {

// Calls that move less than this run in one thread: starting the others would cost more than they save
// (docs/decisions.md).
constexpr std::size_t threads_bytes = std::size_t(1) << 20;

// A piece of an array begins at a multiple of this many elements: where the array begins a cache line, the
// piece does too, and no two threads write to one line.
constexpr std::size_t piece_elements = 16;

// Elements that the strided path works on at a time, copied together where they lie apart.
constexpr std::size_t block = 512;
constexpr int max_dimensions = 64;

// Walks elements [begin, begin + n) of one operand in the order of the dimensions, as runs along the last
// one: visit(address, stride, length).
template <class Visit>
void walk(const Slice& slice, const Dimension* dims, unsigned operand, std::size_t begin, std::size_t n,
          Visit visit) {
    const std::size_t last = slice.n_dimensions - 1;
    std::size_t index[max_dimensions];
    char* address = slice.operands[operand];
    std::size_t rest = begin;
    for (std::size_t d = slice.n_dimensions; d-- > 0;) {
        index[d] = rest % dims[d].size;
        rest /= dims[d].size;
        address += static_cast<std::ptrdiff_t>(index[d]) * dims[d].strides[operand];
    }
    for (;;) {
        const std::size_t length = std::min(n, dims[last].size - index[last]);
        visit(address, dims[last].strides[operand], length);
        n -= length;
        if (n == 0) return;
        address -= static_cast<std::ptrdiff_t>(index[last]) * dims[last].strides[operand];
        index[last] = 0;
        for (std::size_t d = last; d-- > 0;) {
            address += dims[d].strides[operand];
            if (++index[d] < dims[d].size) break;
            address -= static_cast<std::ptrdiff_t>(index[d]) * dims[d].strides[operand];
            index[d] = 0;
        }
    }
}

// Copies `length` elements, of which either side may lie apart.
template <std::size_t itemsize>
void copy(char* to, std::ptrdiff_t to_stride, const char* from, std::ptrdiff_t from_stride,
          std::size_t length) {
    constexpr auto item = static_cast<std::ptrdiff_t>(itemsize);
    if (to_stride == item && from_stride == item) {
        std::memcpy(to, from, length * itemsize);
        return;
    }
    for (std::size_t i = 0; i < length; ++i, to += to_stride, from += from_stride)
        std::memcpy(to, from, itemsize);
}

// Do the elements of this operand follow one another in memory?
bool is_dense(const Slice& slice, const Dimension* dims, unsigned operand) {
    auto stride = static_cast<std::ptrdiff_t>(slice.itemsize);
    for (std::size_t d = slice.n_dimensions; d-- > 0; stride *= static_cast<std::ptrdiff_t>(dims[d].size))
        if (dims[d].strides[operand] != stride) return false;
    return true;
}

// Copies together what lies apart of each block, runs the kernel on it, and puts the results back.
template <std::size_t itemsize>
void run_strided(const Work& work, const Slice& slice, std::size_t begin, std::size_t n) {
    constexpr auto item = static_cast<std::ptrdiff_t>(itemsize);
    alignas(64) char buffers[n_operands][block * itemsize];
    const Dimension* dims = work.dimensions.data() + slice.first_dimension;
    bool apart[n_operands];
    for (unsigned operand = 0; operand < n_operands; ++operand)
        apart[operand] = !is_dense(slice, dims, operand);
    for (std::size_t end = begin + n; begin < end; begin += block) {
        const std::size_t length = std::min(block, end - begin);
        char* operands[n_operands];
        for (unsigned operand = 0; operand < n_operands; ++operand) {
            operands[operand] =
                apart[operand] ? buffers[operand] : slice.operands[operand] + begin * itemsize;
            char* to = buffers[operand];
            if (!apart[operand] || !work.access.read[operand]) continue;
            walk(slice, dims, operand, begin, length,
                 [&](char* from, std::ptrdiff_t stride, std::size_t part) {
                     copy<itemsize>(to, item, from, stride, part);
                     to += part * itemsize;
                 });
        }
        slice.kernel(operands[0], operands[1], operands[2], length, *slice.coefficients);
        for (unsigned operand = 0; operand < n_operands; ++operand) {
            const char* from = buffers[operand];
            if (!apart[operand] || !work.access.written[operand]) continue;
            walk(slice, dims, operand, begin, length, [&](char* to, std::ptrdiff_t stride, std::size_t part) {
                copy<itemsize>(to, stride, from, item, part);
                from += part * itemsize;
            });
        }
    }
}

// Elements [begin, begin + n) of one slice.
void run_piece(const Work& work, const Slice& slice, std::size_t begin, std::size_t n) {
    if (slice.n_dimensions == 0) {
        const std::size_t offset = begin * slice.itemsize;
        slice.kernel(slice.operands[0] + offset, slice.operands[1] + offset, slice.operands[2] + offset, n,
                     *slice.coefficients);
        return;
    }
    if (slice.itemsize == sizeof(float)) run_strided<sizeof(float)>(work, slice, begin, n);
    if (slice.itemsize == sizeof(double)) run_strided<sizeof(double)>(work, slice, begin, n);
}

// The share of thread `part` of `parts`: an equal part of the elements, whatever arrays they belong to.
void run_part(const Work& work, std::size_t total, std::size_t part, std::size_t parts) {
    const std::size_t begin = total / parts * part;
    const std::size_t end = part + 1 == parts ? total : total / parts * (part + 1);
    std::size_t first = 0;  // of the slice, among all elements
    for (const Slice& slice : work.slices) {
        // Where in the slice element `at` falls, moved to the seam that both its neighbours agree on.
        const auto seam = [&](std::size_t at) {
            if (at <= first) return std::size_t(0);
            return at >= first + slice.n ? slice.n : (at - first) / piece_elements * piece_elements;
        };
        if (seam(begin) < seam(end)) run_piece(work, slice, seam(begin), seam(end) - seam(begin));
        first += slice.n;
        if (first >= end) break;
    }
}

}  // namespace

void Work::clear() {
    slices.clear();
    dimensions.clear();
    operand_bytes = 0;
}

void Work::add_dense(char* const (&operands)[n_operands], std::size_t n, std::size_t itemsize, Kernel kernel,
                     const Coefficients* coefficients) {
    if (n == 0) return;
    slices.push_back({{operands[0], operands[1], operands[2]},
                      n,
                      kernel,
                      coefficients,
                      static_cast<unsigned>(itemsize),
                      0,
                      0});
    operand_bytes += n * itemsize;
}

void Work::add_strided(char* const (&operands)[n_operands],
                       const std::ptrdiff_t* const (&strides)[n_operands], const std::ptrdiff_t* shape,
                       int ndim, std::size_t itemsize, Kernel kernel, const Coefficients* coefficients) {
    char* starts[n_operands] = {operands[0], operands[1], operands[2]};
    const std::size_t first = dimensions.size();
    std::size_t n = 1;
    for (int d = 0; d < ndim; ++d) {
        n *= static_cast<std::size_t>(shape[d]);
        if (shape[d] == 1) continue;
        Dimension dim = {static_cast<std::size_t>(shape[d]), {strides[0][d], strides[1][d], strides[2][d]}};
        // Most operands run forwards through memory.
        int backwards = 0;
        for (const std::ptrdiff_t stride : dim.strides) backwards += stride < 0 ? 1 : -1;
        for (unsigned operand = n_operands; backwards > 0 && operand-- > 0;) {
            starts[operand] += (shape[d] - 1) * strides[operand][d];
            dim.strides[operand] = -strides[operand][d];
        }
        dimensions.push_back(dim);
    }
    if (n == 0) return dimensions.resize(first);

    // From the largest stride of the first operand to the smallest.
    const auto begin = dimensions.begin() + static_cast<std::ptrdiff_t>(first);
    std::stable_sort(begin, dimensions.end(), [](const Dimension& a, const Dimension& b) {
        return std::abs(a.strides[0]) > std::abs(b.strides[0]);
    });
    // A dimension whose steps continue those of the next one is one with it.
    std::size_t last = first;
    for (std::size_t d = first + 1; d < dimensions.size(); ++d) {
        Dimension& outer = dimensions[last];
        const Dimension& inner = dimensions[d];
        const auto continues = [&](unsigned operand) {
            return outer.strides[operand] == inner.strides[operand] * static_cast<std::ptrdiff_t>(inner.size);
        };
        if (continues(0) && continues(1) && continues(2))
            outer = {outer.size * inner.size, {inner.strides[0], inner.strides[1], inner.strides[2]}};
        else
            dimensions[++last] = inner;
    }
    if (dimensions.size() > first) dimensions.resize(last + 1);

    const auto item = static_cast<std::ptrdiff_t>(itemsize);
    const std::size_t count = dimensions.size() - first;
    const Dimension* inner = dimensions.data() + first;
    const bool dense = count == 0 || (count == 1 && inner->strides[0] == item && inner->strides[1] == item &&
                                      inner->strides[2] == item);
    add_dense({starts[0], starts[1], starts[2]}, n, itemsize, kernel, coefficients);
    if (dense) return dimensions.resize(first);
    slices.back().first_dimension = first;
    slices.back().n_dimensions = static_cast<unsigned>(count);
}

int threads_for(const Work& work) {
    return work.bytes_moved() < threads_bytes ? 1 : usable_threads();
}

void run(const Work& work, int threads) noexcept {
    if (threads == 1) {
        for (const Slice& slice : work.slices) run_piece(work, slice, 0, slice.n);
        return;
    }
    std::size_t total = 0;
    for (const Slice& slice : work.slices) total += slice.n;
    in_parallel(threads, [&](std::size_t part, std::size_t parts) { run_part(work, total, part, parts); });
}

}  // namespace fast_momentum
