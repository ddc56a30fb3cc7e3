#include "plain/norm.hpp"

#include <algorithm>

#include "plain/gather.hpp"
#include "plain/threads.hpp"

namespace fast_momentum {

namespace {

constexpr std::size_t block = 4096;

}  // namespace

double sum_of_blocks(std::vector<double>& sums) noexcept {
    for (std::size_t n = sums.size(); n > 1; n = (n + 1) / 2)
        for (std::size_t i = 0; i < n; i += 2) sums[i / 2] = i + 1 < n ? sums[i] + sums[i + 1] : sums[i];
    return sums.empty() ? 0 : sums[0];
}

void Norm::clear() {
    arrays_.clear();
    dimensions_.clear();
    blocks_.clear();
    bytes_ = 0;
    has_float64_ = false;
}

void Norm::add(const Operand& values, const DtypeKernels& dtype, std::size_t n, const std::ptrdiff_t* strides,
               const std::ptrdiff_t* shape, int ndim) {
    if (n == 0) return;
    arrays_.push_back({values, &dtype, n, 0, dimensions_.size(), blocks_.size()});
    blocks_.resize(blocks_.size() + (n + block - 1) / block);
    bytes_ += n * values.itemsize(dtype);
    has_float64_ = has_float64_ || dtype.itemsize == sizeof(double);
    if (!strides) return;
    for (int d = 0; d < ndim; ++d)
        if (shape[d] != 1) dimensions_.push_back({static_cast<std::size_t>(shape[d]), {strides[d], 0, 0}});
    arrays_.back().n_dimensions = static_cast<unsigned>(dimensions_.size() - arrays_.back().first_dimension);
}

template <class OfBlock>
void Norm::each_block(int threads, const OfBlock& of_block) noexcept {
    const auto part_of_all = [&](std::size_t part, std::size_t parts) {
        alignas(64) char stored[block * sizeof(double)], values[block * sizeof(float)];
        const std::size_t first = blocks_.size() * part / parts, end = blocks_.size() * (part + 1) / parts;
        auto array = std::upper_bound(arrays_.begin(), arrays_.end(), first,
                                      [](std::size_t i, const Array& a) { return i < a.first_block; });
        for (std::size_t i = first; i < end; ++i) {
            while (array != arrays_.end() && array->first_block <= i) ++array;
            const Array& mine = *(array - 1);
            const std::size_t begin = (i - mine.first_block) * block, n = std::min(block, mine.n - begin);
            const Storage* storage = mine.values.storage;
            const std::size_t itemsize = mine.values.itemsize(*mine.dtype);
            const char* found = mine.values.data + begin * itemsize;
            if (mine.n_dimensions > 0) {
                const Order order = {dimensions_.data() + mine.first_dimension, mine.n_dimensions, 0};
                gather(stored, mine.values.data, order, itemsize, begin, n);
                found = stored;
            }
            if (storage) {
                storage->load(reinterpret_cast<float*>(values), found, nullptr, n);
                found = values;
            }
            blocks_[i] = of_block(*mine.dtype, found, n);
        }
    };
    in_parallel(threads, part_of_all);
}

void Norm::sum_blocks(double scale, double factor, int threads) noexcept {
    each_block(threads, [&](const DtypeKernels& dtype, const char* values, std::size_t n) {
        return dtype.stages.squares(values, n, scale, factor);
    });
}

FoundNorm Norm::norm(double scale, int threads) noexcept {
    return norm_of(has_float64_, [&](double factor) noexcept {
        sum_blocks(scale, factor, threads);
        return sum_of_blocks(blocks_);
    });
}

bool Norm::finite(double scale, int threads) noexcept {
    each_block(threads, [&](const DtypeKernels& dtype, const char* values, std::size_t n) {
        return dtype.stages.finite(values, n, scale) ? 0.0 : 1.0;
    });
    return std::all_of(blocks_.begin(), blocks_.end(), [](double bad) { return bad == 0; });
}

}  // namespace fast_momentum
