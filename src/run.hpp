// Slices -> pieces -> kernels: the only place that runs kernels, in one thread or several, on dense or
// strided memory. Plain data, no Python.
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
    unsigned n_dimensions = 0;
    std::size_t first_dimension = 0;
};

// All that one call is going to do.
struct Work {
    std::vector<Slice> slices;
    std::vector<Dimension> dimensions;
    unsigned written = 0;   // the operands that are, as bits
    unsigned streams = 0;   // operands read, and operands written
    std::size_t bytes = 0;  // that they move

    void clear();
    void set_written(unsigned operands);
    void add_dense(char* const (&operands)[n_operands], std::size_t n, std::size_t itemsize, Kernel kernel,
                   const Coefficients* coefficients);
    // Operands of one shape, each with its own strides. Dense after all if they lie in the same order.
    void add_strided(char* const (&operands)[n_operands], const std::ptrdiff_t* const (&strides)[n_operands],
                     const std::ptrdiff_t* shape, int ndim, std::size_t itemsize, Kernel kernel,
                     const Coefficients* coefficients);
};

// The GIL is released for calls that move as much as this.
constexpr std::size_t release_gil_bytes = std::size_t(1) << 20;

// Cannot fail: allocates nothing, and knows nothing of Python.
void run(const Work& work) noexcept;

}  // namespace fast_momentum
