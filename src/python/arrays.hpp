// What a State keeps for each of its parameters, such as the velocities: zero at first, in one block of
// memory, each dense in the order of its parameter.
#pragma once

#include <pybind11/numpy.h>

#include <memory>
#include <optional>
#include <vector>

#include "kernels/kernels.hpp"
#include "plain/overlap.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// As what an array lies in memory: by a row of Kernels::storages, as the dtype that it is worked on in, or
// not at all.
enum class Stored : unsigned char { float16, bfloat16, int8, native, absent };

// The row, or nullptr.
const Storage* storage_of(Stored stored);
// By the name of the row, which must be one for parameters that are worked on in `dtype`.
Stored stored_as(py::handle name, unsigned char dtype);

class Arrays {
  public:
    struct Array {
        unsigned char dtype;  // that it is worked on in; index of Kernels::dtypes
        Stored stored;
        int ndim;
        int contiguity;          // NumPy's flags
        std::size_t size;        // in elements
        std::size_t dimensions;  // where its shape begins, followed by its strides
        std::size_t offset;      // where its memory begins
        std::size_t scales;      // where its scales begin, if it has some
    };

    // One for each array of `params`, which have been checked and are worked on in `dtypes`.
    Arrays(const Leaves& params, const std::vector<unsigned char>& dtypes, const std::vector<Stored>& stored);
    // Of the shapes and orders of `model`.
    Arrays(const Arrays& model, const std::vector<Stored>& stored);
    Arrays(const Arrays& other);
    Arrays& operator=(const Arrays&) = delete;

    std::size_t size() const { return arrays_.size(); }
    const Array& operator[](std::size_t i) const { return arrays_[i]; }
    bool has(std::size_t i) const { return arrays_[i].stored != Stored::absent; }
    const DtypeKernels& dtype(std::size_t i) const;
    const std::ptrdiff_t* shape(std::size_t i) const { return dimensions_.data() + arrays_[i].dimensions; }
    const std::ptrdiff_t* strides(std::size_t i) const { return shape(i) + arrays_[i].ndim; }
    std::size_t itemsize(std::size_t i) const { return itemsize(arrays_[i]); }  // as it is stored
    char* data(std::size_t i) const { return memory_.get() + arrays_[i].offset; }
    float* scales(std::size_t i) const;  // nullptr where it has none
    Region region(std::size_t i, bool written) const;
    Span span(bool written) const;  // of all of them

    // A read-only array that shares this memory, keeps it alive, and cannot be made writable. Only where it
    // is stored as the dtype that it is worked on in.
    py::array view(std::size_t i) const;
    // A new array of the dtype that this one is worked on in, in its order: with nothing in it, with its
    // values.
    py::array empty(std::size_t i) const;
    py::array copy(std::size_t i) const;
    // `values` has the order of this array, and that dtype.
    void set(std::size_t i, const void* values) noexcept;
    void set_zero(std::size_t i) noexcept;

  private:
    std::size_t itemsize(const Array& array) const;
    // Finds a place for the array; beside `param`, its parameter, if that is not nullptr.
    void reserve(Array& array, const char* param);
    void allocate();
    std::vector<Array> arrays_;
    std::vector<std::ptrdiff_t> dimensions_;
    std::size_t bytes_ = 0;
    std::shared_ptr<char> memory_;
};

// All that a State keeps for its parameters.
struct Kept {
    std::vector<Stored> params;  // as what the parameters themselves are stored
    Arrays velocity;
    std::optional<Arrays> master, compensation, average;

    // Whether params and velocities are as they are worked on, and the step needs nothing else.
    bool is_plain() const {
        return !master && !compensation && (velocity.size() == 0 || velocity[0].stored == Stored::native);
    }
};

}  // namespace fast_momentum
