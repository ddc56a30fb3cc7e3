// All that one call is going to do, and in which order: shapes and strides -> slices. Plain data, no Python.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/kernels.hpp"
#include "plain/rows.hpp"
#include "plain/tables.hpp"

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

// Which operands a kernel reads, and which it writes.
struct Access {
    bool read[n_operands], written[n_operands];

    constexpr unsigned streams() const {
        unsigned count = 0;
        for (unsigned operand = 0; operand < n_operands; ++operand) count += read[operand] + written[operand];
        return count;
    }
};

// Where an operand of an update lies, and as what it is stored there.
struct Operand {
    char* data = nullptr;
    const Storage* storage = nullptr;  // nullptr: as the dtype that is worked on in
    float* scales = nullptr;

    std::size_t itemsize(const DtypeKernels& dtype) const {
        return storage ? storage->itemsize : dtype.itemsize;
    }
};

// What a call does to one array beyond the three operands of a slice. In the order in which the state stores
// its own arrays; where params and their partners (gradients, or the arrays that lookahead() writes) have
// another one, it has dimensions, with the strides of the two.
struct Update {
    const DtypeKernels* dtype;
    const Coefficients* coefficients;  // nullptr: there is no gradient
    std::size_t n;
    unsigned n_dimensions;
    std::size_t first_dimension;
    Operand param, partner;
    const Operand* slots;  // by their names, without data where there is none
    // Of an accelerated step: where it goes, if the user's own proximal map says so, in the order and the
    // dtype of the iterate; and where the sums of its blocks begin.
    char* candidate = nullptr;
    std::size_t first_sum = 0;
    // Those that alone are stepped, n elements: then the partner has the values of these rows, and the first
    // dimension goes from row to row; those within a row are in C order. nullptr: all of the array.
    const Rows* rows = nullptr;
};

// Two of them come before an accelerated step, and write no array of the user's: `propose` writes to where
// candidates are to be, and `align` sums.
enum class Task : unsigned char { step, lookahead, swap_average, zero_grads, propose, align };

// What a call does beyond the rule, to all arrays alike.
struct Pass {
    Task task = Task::step;
    bool zeroes_grads = false;
    bool has_bounds = false;
    bool restarts = false;  // an accelerated step
    double grad_scale = 1;
    double clip_coefficient = 1;       // by the norm
    const Values* settings = nullptr;  // of the State, where there are options in force

    bool wants(Setting::Name option) const { return settings && settings->has(option); }
    bool averages() const { return wants(Setting::average_decay); }
    bool prepares_grads() const {
        return grad_scale != 1 || clip_coefficient != 1 || wants(Setting::clip_norm) ||
               wants(Setting::clip_value);
    }
    // Whether the gradients are looked at before anything is written.
    bool looks_first() const { return wants(Setting::clip_norm) || nonfinite() != Nonfinite::propagate; }
    Nonfinite nonfinite() const {
        return settings ? Nonfinite(static_cast<int>((*settings)[Setting::nonfinite])) : Nonfinite::propagate;
    }
    // Whether it does nothing but the task while it goes over the arrays.
    bool is_bare() const { return !prepares_grads() && !averages() && !zeroes_grads && !has_bounds; }
};

// An array has a sum in Work::sums for so many elements, or what is left of them.
constexpr std::size_t sum_block = 512;

struct Work {
    std::vector<Slice> slices;
    std::vector<Update> updates;
    std::vector<std::unique_ptr<Rows>> rows;  // of those updates that have some
    std::vector<Dimension> dimensions;
    std::size_t n_sums = 0;            // of the updates
    mutable std::vector<double> sums;  // where they are wanted; each is of a block that one thread works on
    Pass pass;                         // for each call to set
    Access access = {};
    std::size_t operand_bytes = 0;  // of one operand of each slice
    std::size_t update_bytes = 0;   // that the updates move, more or less

    std::size_t bytes_moved() const { return operand_bytes * access.streams() + update_bytes; }

    void clear();
    void add_dense(const Slice& slice);
    // Its operands have this shape, each with its own strides. Dense after all if they lie in the same order.
    void add_strided(Slice slice, const std::ptrdiff_t* const (&strides)[n_operands],
                     const std::ptrdiff_t* shape, int ndim);
    // `strides` are those of params and partners, nullptr where both lie in the order of `order`, the strides
    // that the state's arrays have.
    void add_update(Update update, const std::ptrdiff_t* const (&strides)[2], const std::ptrdiff_t* order,
                    const std::ptrdiff_t* shape, int ndim);
    // The same for one that has rows.
    void add_rows(Update update, const std::ptrdiff_t* const (&strides)[2], const std::ptrdiff_t* order,
                  const std::ptrdiff_t* shape, int ndim);

  private:
    void clear_updates();
    void push(const Update& update);
};

}  // namespace fast_momentum
