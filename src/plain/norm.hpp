// The global norm of many arrays, and whether they are finite: the same for any number of threads and any
// instruction set, since blocks and the tree that adds them up are fixed. Plain data, no Python.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "plain/work.hpp"

namespace fast_momentum {

// Neighbours in pairs, again and again; the last one of an odd number goes on as it is. Overwrites them.
double sum_of_blocks(std::vector<double>& sums) noexcept;

struct FoundNorm {
    double norm;
    bool finite;  // each element is
};

// From total(factor), the sum of squares of all elements times `factor`, in float64. Where there are elements
// of float64 it may be touched by overflow or underflow, and is then formed anew with another factor.
template <class Total>
FoundNorm norm_of(bool has_float64, const Total& total) {
    constexpr double smallest_sum = 0x1p-960, largest_sum = 0x1p960;
    constexpr double upwards = 0x1p600, downwards = 0x1p-600;
    double sum = total(1.0), factor = 1;
    if (has_float64 && !(sum >= smallest_sum && sum <= largest_sum)) {
        factor = sum < smallest_sum ? upwards : downwards;
        sum = total(factor);
    }
    return {std::sqrt(sum) * (1 / factor), std::isfinite(sum)};
}

class Norm {
  public:
    void clear();
    // To be read in the order of memory where they are C or Fortran contiguous, and `strides` is nullptr;
    // else in C order.
    void add(const Operand& values, const DtypeKernels& dtype, std::size_t n, const std::ptrdiff_t* strides,
             const std::ptrdiff_t* shape, int ndim);

    std::size_t bytes() const { return bytes_; }

    // Of all elements times `scale`. No allocation.
    FoundNorm norm(double scale, int threads) noexcept;
    // The sum of squares of each block, of elements times `scale` and `factor`. No allocation.
    void sum_blocks(double scale, double factor, int threads) noexcept;
    const std::vector<double>& blocks() const { return blocks_; }
    // Whether all elements times `scale` are finite.
    bool finite(double scale, int threads) noexcept;

  private:
    struct Array {
        Operand values;
        const DtypeKernels* dtype;
        std::size_t n;
        unsigned n_dimensions;
        std::size_t first_dimension;
        std::size_t first_block;
    };

    // of_block(dtype, elements, n) for each block of each array, into blocks_.
    template <class OfBlock>
    void each_block(int threads, const OfBlock& of_block) noexcept;

    std::vector<Array> arrays_;
    std::vector<Dimension> dimensions_;
    std::vector<double> blocks_;
    std::size_t bytes_ = 0;
    bool has_float64_ = false;
};

}  // namespace fast_momentum
