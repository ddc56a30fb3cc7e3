// All that one call is going to do, and in which order: shapes and strides -> slices. Plain data, no Python.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels.hpp"

namespace fast_momentum {

struct Dimension {
    std::size_t size;
    std::ptrdiff_t strides[n_operands];  // in bytes
};

// The three operands of one array. No dimensions: n consecutive elements each.
struct Slice {
    char* operands[n_operands];
    std::size_t n;
    Kernel kernel;
    const Coefficients* coefficients;
    unsigned itemsize;
    unsigned n_dimensions;
    std::size_t first_dimension;
};

// Which operands a kernel reads, and which it writes.
struct Access {
    bool read[n_operands], written[n_operands];

    constexpr unsigned streams() const {
        unsigned count = 0;
        for (unsigned operand = 0; operand < n_operands; ++operand) count += read[operand] + written[operand];
        return count;
    }
};

struct Work {
    std::vector<Slice> slices;
    std::vector<Dimension> dimensions;
    Access access = {};
    std::size_t operand_bytes = 0;  // of one operand of each slice

    std::size_t bytes_moved() const { return operand_bytes * access.streams(); }

    void clear();
    void add_dense(char* const (&operands)[n_operands], std::size_t n, std::size_t itemsize, Kernel kernel,
                   const Coefficients* coefficients);
    // Operands of one shape, each with its own strides. Dense after all if they lie in the same order.
    void add_strided(char* const (&operands)[n_operands], const std::ptrdiff_t* const (&strides)[n_operands],
                     const std::ptrdiff_t* shape, int ndim, std::size_t itemsize, Kernel kernel,
                     const Coefficients* coefficients);
};

}  // namespace fast_momentum
