#include "plain/work.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "kernels/compilers.hpp"

namespace fast_momentum {

namespace {

// Without the dimensions of one element. Most operands run forwards through memory: those of `slice` do so
// afterwards.
std::vector<Dimension> forwards(Slice& slice, const std::ptrdiff_t* const (&strides)[n_operands],
                                const std::ptrdiff_t* shape, int ndim) {
    std::vector<Dimension> dims;
    for (int d = 0; d < ndim; ++d) {
        if (shape[d] == 1) continue;
        Dimension dim = {static_cast<std::size_t>(shape[d]), {strides[0][d], strides[1][d], strides[2][d]}};
        int backwards = 0;
        for (const std::ptrdiff_t stride : dim.strides) backwards += stride < 0 ? 1 : -1;
        for (unsigned operand = n_operands; backwards > 0 && operand-- > 0;) {
            slice.operands[operand] += (shape[d] - 1) * dim.strides[operand];
            dim.strides[operand] = -dim.strides[operand];
        }
        dims.push_back(dim);
    }
    return dims;
}

// From the largest stride of the first operand to the smallest, and what continues the next dimension in all
// operands made one with it.
void put_in_order(std::vector<Dimension>& dims) {
    std::stable_sort(dims.begin(), dims.end(), [](const Dimension& a, const Dimension& b) {
        return std::abs(a.strides[0]) > std::abs(b.strides[0]);
    });
    std::vector<Dimension> merged;
    for (const Dimension& inner : dims) {
        const auto continues = [&](unsigned operand) {
            return merged.back().strides[operand] ==
                   inner.strides[operand] * static_cast<std::ptrdiff_t>(inner.size);
        };
        if (merged.empty() || !continues(0) || !continues(1) || !continues(2))
            merged.push_back(inner);
        else
            merged.back() = {merged.back().size * inner.size,
                             {inner.strides[0], inner.strides[1], inner.strides[2]}};
    }
    dims = std::move(merged);
}

bool is_dense(const std::vector<Dimension>& dims, std::ptrdiff_t item) {
    if (dims.empty()) return true;
    const auto& strides = dims[0].strides;
    return dims.size() == 1 && strides[0] == item && strides[1] == item && strides[2] == item;
}

// The place of the state's strides in the dimensions of an update; params and partners come before.
constexpr unsigned state_operand = 2;

constexpr std::size_t small_tile = 256;

// The last two dimensions are worked on in tiles (strided.cpp). Where some operand has its smallest stride
// along another one than the last, that one comes before the last; else, where the two are small, the longest
// one.
void put_rows_before_columns(std::vector<Dimension>& dims) {
    const auto last = dims.end() - 1;
    const auto smaller = [](unsigned operand) {
        return [operand](const Dimension& a, const Dimension& b) {
            return std::abs(a.strides[operand]) < std::abs(b.strides[operand]);
        };
    };
    for (unsigned operand = 1; operand < n_operands; ++operand) {
        const auto rows = std::min_element(dims.begin(), dims.end(), smaller(operand));
        if (rows == last || rows->strides[operand] == 0) continue;
        std::rotate(rows, rows + 1, last);
        return;
    }
    if (dims.size() < 3 || last->size * (last - 1)->size >= small_tile) return;
    const auto longest = std::max_element(
        dims.begin(), last, [](const Dimension& a, const Dimension& b) { return a.size <= b.size; });
    std::rotate(longest, longest + 1, last);
}

}  // namespace

void Work::clear() {
    slices.clear();
    if (!updates.empty()) clear_updates();
    dimensions.clear();
    operand_bytes = update_bytes = n_sums = 0;
}

// Apart, as the registers that it needs would be saved for each call that has slices alone.
OUTLINED void Work::clear_updates() {
    updates.clear();
    rows.clear();
}

void Work::add_dense(const Slice& slice) {
    if (slice.n == 0) return;
    slices.push_back(slice);
    operand_bytes += slice.n * slice.itemsize;
}

void Work::add_strided(Slice slice, const std::ptrdiff_t* const (&strides)[n_operands],
                       const std::ptrdiff_t* shape, int ndim) {
    std::vector<Dimension> dims = forwards(slice, strides, shape, ndim);
    slice.n = 1;
    for (const Dimension& dim : dims) slice.n *= dim.size;
    if (slice.n == 0) return;
    put_in_order(dims);
    if (!is_dense(dims, slice.itemsize)) {
        put_rows_before_columns(dims);
        slice.first_dimension = dimensions.size();
        slice.n_dimensions = static_cast<unsigned>(dims.size());
        dimensions.insert(dimensions.end(), dims.begin(), dims.end());
    }
    add_dense(slice);
}

void Work::add_update(Update update, const std::ptrdiff_t* const (&strides)[2], const std::ptrdiff_t* order,
                      const std::ptrdiff_t* shape, int ndim) {
    if (update.n == 0) return;
    update.first_dimension = dimensions.size();
    if (strides[0]) {
        std::vector<Dimension> dims;
        for (int d = 0; d < ndim; ++d)
            if (shape[d] != 1)
                dims.push_back(
                    {static_cast<std::size_t>(shape[d]), {strides[0][d], strides[1][d], order[d]}});
        std::stable_sort(dims.begin(), dims.end(), [](const Dimension& a, const Dimension& b) {
            return a.strides[state_operand] > b.strides[state_operand];
        });
        dimensions.insert(dimensions.end(), dims.begin(), dims.end());
    }
    push(update);
}

void Work::add_rows(Update update, const std::ptrdiff_t* const (&strides)[2], const std::ptrdiff_t* order,
                    const std::ptrdiff_t* shape, int ndim) {
    update.first_dimension = dimensions.size();
    const auto itemsize = static_cast<std::ptrdiff_t>(update.slots[Slot::velocity].itemsize(*update.dtype));
    for (int d = 0; d < ndim; ++d)
        if (d == 0 || shape[d] != 1)
            dimensions.push_back(
                {static_cast<std::size_t>(shape[d]), {strides[0][d], strides[1][d], order[d] / itemsize}});
    push(update);
}

void Work::push(const Update& given) {
    Update update = given;
    update.n_dimensions = static_cast<unsigned>(dimensions.size() - update.first_dimension);
    const auto bytes = [&](const Operand& operand) {
        return operand.data ? operand.itemsize(*update.dtype) : 0;
    };
    std::size_t moved = 2 * bytes(update.param) + bytes(update.partner);
    for (const Slot& slot : all_slots) moved += 2 * bytes(update.slots[slot.place]);
    update_bytes += update.n * moved;
    update.first_sum = n_sums;
    n_sums += (update.n + sum_block - 1) / sum_block;
    updates.push_back(update);
}

}  // namespace fast_momentum
