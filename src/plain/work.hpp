// All that one call is going to do, and in which order: shapes and strides -> slices. Plain data, no Python.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/kernels.hpp"

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

// Where an operand of an update lies, and as what it is stored there.
struct Operand {
    char* data = nullptr;
    const Storage* storage = nullptr;  // nullptr: as the dtype that is worked on in
    float* scales = nullptr;
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
    Operand param, partner, velocity, compensation;
    char *master, *average;  // nullptr where there is none
};

enum class Task : unsigned char { step, lookahead, swap_average, zero_grads };

// What is the same for all updates of a call.
struct Pass {
    Task task = Task::step;
    bool prepares = false;  // the gradients
    bool averages = false;  // the parameters
    bool zeroes_grads = false;
    Preparation preparation = {1, 1, 0};
    double average_decay = 0;

    bool is_plain() const { return !prepares && !averages && !zeroes_grads; }
};

struct Work {
    std::vector<Slice> slices;
    std::vector<Update> updates;
    std::vector<Dimension> dimensions;
    Pass pass;  // for each call to set
    Access access = {};
    std::size_t operand_bytes = 0;  // of one operand of each slice
    std::size_t update_bytes = 0;   // that the updates move, more or less

    std::size_t bytes_moved() const { return operand_bytes * access.streams() + update_bytes; }

    void clear();
    void add_dense(char* const (&operands)[n_operands], std::size_t n, std::size_t itemsize, Kernel kernel,
                   const Coefficients* coefficients);
    // Operands of one shape, each with its own strides. Dense after all if they lie in the same order.
    void add_strided(char* const (&operands)[n_operands], const std::ptrdiff_t* const (&strides)[n_operands],
                     const std::ptrdiff_t* shape, int ndim, std::size_t itemsize, Kernel kernel,
                     const Coefficients* coefficients);
    // `strides` are those of params and partners, nullptr where both lie in the order of `order`, the strides
    // that the state's arrays have.
    void add_update(Update update, const std::ptrdiff_t* const (&strides)[2], const std::ptrdiff_t* order,
                    const std::ptrdiff_t* shape, int ndim);
};

}  // namespace fast_momentum
