// What a State keeps for each of its parameters, such as the velocities: zero at first, in one block of
// memory, each dense in the order of its parameter.
#pragma once

#include <pybind11/numpy.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/kernels.hpp"
#include "plain/isa.hpp"
#include "plain/overlap.hpp"
#include "plain/rules.hpp"
#include "plain/work.hpp"
#include "python/numpy_types.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

// Those of an array, from the slowest in memory to the fastest. Which one comes first where strides do not
// tell them apart: that of C order.
using Axes = std::vector<long long>;
Axes axes_of(const std::ptrdiff_t* strides, int ndim);

// By the name of the row, which must be one for parameters that are worked on in `dtype`.
Stored stored_as(py::handle name, Dtype dtype);

// What is known of the params given to init().
struct Params {
    Tree tree;
    std::vector<Dtype> dtypes;   // that each array is worked on in
    std::vector<Stored> stored;  // and as what it is stored
    std::vector<Axes> axes;
    bool kept_elsewhere = false;  // all that a State keeps for them: it has no memory of its own

    // For messages: "float32, the dtype of params[0]".
    std::string worked_in(std::size_t i) const;
};

class Arrays {
  public:
    struct Array {
        Dtype dtype;  // that it is worked on in
        Stored stored;
        int ndim;
        int n_axes;              // in reals: one more, of two, where they are parts of complex numbers
        int contiguity;          // NumPy's flags
        std::size_t size;        // in reals
        std::size_t dimensions;  // where its shape in reals begins, followed by its strides
        std::size_t offset;      // where its memory begins
        std::size_t scales;      // where its scales begin, if it has some
    };

    // One for each array of `leaves`, of which `params` tells.
    Arrays(const Leaves& leaves, const Params& params, const std::vector<Stored>& stored);
    // Of the shapes and orders of `model`.
    Arrays(const Arrays& model, const std::vector<Stored>& stored);
    Arrays(const Arrays& other);
    Arrays& operator=(const Arrays&) = delete;

    std::size_t size() const { return arrays_.size(); }
    const Array& operator[](std::size_t i) const { return arrays_[i]; }
    bool has(std::size_t i) const { return arrays_[i].stored != Stored::absent; }
    const DtypeKernels& dtype(std::size_t i) const;
    const std::ptrdiff_t* shape(std::size_t i) const { return dimensions_.data() + arrays_[i].dimensions; }
    const std::ptrdiff_t* strides(std::size_t i) const { return shape(i) + arrays_[i].n_axes; }
    std::size_t itemsize(std::size_t i) const { return itemsize(arrays_[i]); }  // of a real, as it is stored
    char* data(std::size_t i) const { return memory_.get() + arrays_[i].offset; }
    float* scales(std::size_t i) const;  // nullptr where it has none
    Operand operand(std::size_t i) const { return {data(i), storage_of(arrays_[i].stored), scales(i)}; }
    Region region(std::size_t i, bool written) const;
    Span span(bool written) const;  // of all of them

    // A read-only array that shares this memory, keeps it alive, and cannot be made writable. Only where it
    // is stored as the dtype that it is worked on in.
    py::array view(std::size_t i) const;
    // Arrays that share this memory, and keep it alive: of what is stored, bfloat16 as uint16 and complex
    // numbers, where they are stored in fewer bits, as reals, in the order of this one; and of its scales, or
    // None.
    py::array items(std::size_t i) const;
    py::object items_of_scales(std::size_t i) const;
    // A new array of the dtype that this one is worked on in, in its order: with nothing in it, with its
    // values.
    py::array empty(std::size_t i) const;
    py::array copy(std::size_t i) const;
    bool any_nonzero(std::size_t i) const;
    // `array` has this shape, whatever its layout, and that dtype, or is stored as a narrower one. NumPy is
    // not called: it would give up the GIL.
    void assign(std::size_t i, py::handle array, Stored stored);
    bool any_negative(std::size_t i, py::handle array) const;
    bool all_as_at_first(std::size_t i, py::handle array) const;  // 0.0, and no -0.0
    void set_zero(std::size_t i) noexcept;
    // Multiplied in double. Whether what was finite still is, as it is stored.
    bool scale(std::size_t i, double factor);
    // The values of another one of the same arrays, into the memory of this one.
    void take(const Arrays& other) noexcept;

  private:
    std::size_t itemsize(const Array& array) const;
    // Finds a place for the array; beside `param`, its parameter, if that is not nullptr.
    void reserve(Array& array, const char* param);
    void allocate();
    // `values` are those from `begin` on, in the order of this array: whole blocks of those with one scale.
    void set_block(std::size_t i, const char* values, std::size_t begin, std::size_t n) noexcept;
    py::capsule owner() const;  // keeps the memory alive
    py::array shared(std::size_t i, const py::dtype& dtype, int n_axes) const;
    std::vector<Array> arrays_;
    std::vector<std::ptrdiff_t> dimensions_;
    std::size_t bytes_ = 0;
    std::shared_ptr<char> memory_;
};

// In place of std::equal, which calls memcmp() for two or three numbers.
INLINED bool has_shape(const ArrayStruct& array, const Arrays& arrays, std::size_t i) {
    if (array.nd != arrays[i].ndim) return false;
    const std::ptrdiff_t* shape = arrays.shape(i);
    for (int d = 0; d < array.nd; ++d)
        if (array.dimensions[d] != shape[d]) return false;
    return true;
}

// All that a State keeps for its parameters: the slots, where there is one.
struct Kept {
    Params params;
    std::array<std::optional<Arrays>, Slot::n> slots;
    std::vector<Slot::Name> made;  // those that there are
    bool has_plain_formula = true;

    explicit Kept(Params params_) : params(std::move(params_)) {}
    Kept(const Kept& other);
    Kept& operator=(const Kept&) = delete;

    // Makes all slots but the average, which comes when it is wanted.
    void make_slots(const Rule& rule, const Values& settings, const Leaves& leaves);

    // Of array i, by the names of the slots; without data where there is none.
    const Operand* operands(std::size_t i) const { return &operands_[i * Slot::n]; }

    // The first one that the rule has for each parameter, whose order all others have, too.
    const Arrays& model() const { return *model_; }
    const Arrays& velocity() const { return *slots[Slot::velocity]; }
    std::size_t size() const { return params.stored.size(); }
    bool has(Slot::Name slot, std::size_t i) const { return slots[slot] && slots[slot]->has(i); }
    bool has_narrow_params() const;
    void make_room_for_average();
    // Whether a step takes parameters and velocities as they are worked on, and nothing else.
    bool is_plain() const;

  private:
    void point();  // the operands at the arrays
    std::vector<Operand> operands_;
    const Arrays* model_ = nullptr;
    std::vector<Stored> stored_as(const Slot& slot, const Values& settings) const;
};

}  // namespace fast_momentum
