// The velocities of a State: zero at first, in one block of memory, each dense in the order of its parameter.
#pragma once

#include <pybind11/numpy.h>

#include <memory>
#include <vector>

#include "kernels.hpp"
#include "overlap.hpp"
#include "tree.hpp"

namespace fast_momentum {

class Velocities {
  public:
    struct Array {
        unsigned char dtype;  // index of Kernels::dtypes
        int ndim;
        int contiguity;          // NumPy's flags
        std::size_t size;        // in elements
        std::size_t dimensions;  // where its shape begins, followed by its strides
        std::size_t offset;      // where its memory begins
    };

    // One for each array of `params`, which have been checked to have `dtypes`.
    Velocities(const Leaves& params, const std::vector<unsigned char>& dtypes);
    Velocities(const Velocities& other);
    Velocities& operator=(const Velocities&) = delete;

    std::size_t size() const { return arrays_.size(); }
    const Array& operator[](std::size_t i) const { return arrays_[i]; }
    const DtypeKernels& dtype(std::size_t i) const;
    const std::ptrdiff_t* shape(std::size_t i) const { return dimensions_.data() + arrays_[i].dimensions; }
    const std::ptrdiff_t* strides(std::size_t i) const { return shape(i) + arrays_[i].ndim; }
    char* data(std::size_t i) const { return memory_.get() + arrays_[i].offset; }
    Region region(std::size_t i, bool written) const;
    Span span(bool written) const;  // of all of them

    // A read-only array that shares this memory, keeps it alive, and cannot be made writable.
    py::array view(std::size_t i) const;
    // `values` has the order of the velocity.
    void set(std::size_t i, const void* values) noexcept;
    void set_zero(std::size_t i) noexcept;

  private:
    void allocate();
    std::size_t bytes(std::size_t i) const { return arrays_[i].size * dtype(i).itemsize; }

    std::vector<Array> arrays_;
    std::vector<std::ptrdiff_t> dimensions_;
    std::size_t bytes_ = 0;
    std::shared_ptr<char> memory_;
};

}  // namespace fast_momentum
