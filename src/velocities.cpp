#include "velocities.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "isa.hpp"

namespace fast_momentum {

namespace {

constexpr std::size_t alignment = 64;  // of each velocity
constexpr std::size_t page = 4096;     // of the block of memory
constexpr std::size_t most_bytes = std::size_t(PTRDIFF_MAX) / 2 / alignment * alignment;

// Strides of a dense array whose dimensions follow one another in memory as `strides` do.
void append_dense_strides(std::vector<std::ptrdiff_t>& dimensions, const Py_ssize_t* shape,
                          const Py_ssize_t* strides, int ndim, std::size_t itemsize) {
    std::vector<int> order(static_cast<std::size_t>(ndim));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return std::abs(strides[a]) < std::abs(strides[b]); });
    // Dimensions that cannot be told apart by their strides are in C order.
    for (auto begin = order.begin(); begin != order.end();) {
        const auto end = std::find_if(
            begin, order.end(), [&](int d) { return std::abs(strides[d]) != std::abs(strides[*begin]); });
        std::reverse(begin, end);
        begin = end;
    }
    const std::size_t first = dimensions.size();
    dimensions.resize(first + order.size());
    auto stride = static_cast<std::ptrdiff_t>(itemsize);
    for (const int d : order) {
        dimensions[first + static_cast<std::size_t>(d)] = stride;
        stride *= std::max<std::ptrdiff_t>(shape[d], 1);
    }
}

// NumPy's flags for these strides.
int contiguity(const std::ptrdiff_t* shape, const std::ptrdiff_t* strides, int ndim, std::size_t itemsize,
               std::size_t size) {
    auto c_stride = static_cast<std::ptrdiff_t>(itemsize), f_stride = c_stride;
    bool c = true, f = true;
    for (int d = 0; d < ndim; ++d) {
        const int back = ndim - 1 - d;
        if (shape[back] != 1) c = c && strides[back] == c_stride;
        if (shape[d] != 1) f = f && strides[d] == f_stride;
        c_stride *= shape[back];
        f_stride *= shape[d];
    }
    return (c || size == 0 ? py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ : 0) |
           (f || size == 0 ? py::detail::npy_api::NPY_ARRAY_F_CONTIGUOUS_ : 0);
}

// Where a large velocity begins: half a page from its parameter, modulo a page. A load waits for an earlier
// store whose address agrees with its own in the last twelve bits (docs/decisions.md).
std::size_t padding(std::size_t end, std::size_t bytes, const char* param) {
    if (bytes < 4 * page) return 0;
    const std::size_t wanted =
        (reinterpret_cast<std::uintptr_t>(param) + page / 2) % page / alignment * alignment;
    return (wanted + page - end % page) % page;
}

}  // namespace

Velocities::Velocities(const Leaves& params, const std::vector<unsigned char>& dtypes) {
    for (std::size_t i = 0; i < params.size(); ++i) {
        const py::detail::PyArray_Proxy& param = *py::detail::array_proxy(params[i]);
        const std::size_t itemsize = isa_in_use().kernels->dtypes[dtypes[i]].itemsize;
        std::size_t size = 1;
        for (int d = 0; d < param.nd; ++d) {
            const auto length = static_cast<std::size_t>(param.dimensions[d]);
            if (length != 0 && size > most_bytes / itemsize / length) throw std::bad_alloc();
            size *= length;
        }
        const std::size_t bytes = (size * itemsize + alignment - 1) / alignment * alignment;
        bytes_ += padding(bytes_, bytes, param.data);
        if (bytes_ > most_bytes || bytes > most_bytes - bytes_) throw std::bad_alloc();
        arrays_.push_back({dtypes[i], param.nd, 0, size, dimensions_.size(), bytes_});
        dimensions_.insert(dimensions_.end(), param.dimensions, param.dimensions + param.nd);
        append_dense_strides(dimensions_, param.dimensions, param.strides, param.nd, itemsize);
        arrays_[i].contiguity = contiguity(shape(i), strides(i), param.nd, itemsize, size);
        bytes_ += bytes;
    }
    allocate();
}

Velocities::Velocities(const Velocities& other)
    : arrays_(other.arrays_), dimensions_(other.dimensions_), bytes_(other.bytes_) {
    allocate();
    std::memcpy(memory_.get(), other.memory_.get(), bytes_);
}

// Zero pages that nobody has written take no memory yet, so calloc() and not a vector.
void Velocities::allocate() {
    std::shared_ptr<void> block(std::calloc(bytes_ + page, 1), std::free);
    if (!block) throw std::bad_alloc();
    const std::size_t past = reinterpret_cast<std::uintptr_t>(block.get()) % page;
    memory_ = std::shared_ptr<char>(block, static_cast<char*>(block.get()) + (page - past) % page);
#ifdef MADV_HUGEPAGE
    // Fewer page faults in the first step, fewer entries of the TLB in all; a refusal does not matter.
    constexpr std::size_t huge_from = std::size_t(1) << 22;  // as NumPy does for its own arrays
    if (bytes_ >= huge_from) madvise(memory_.get(), bytes_, MADV_HUGEPAGE);
#endif
}

const DtypeKernels& Velocities::dtype(std::size_t i) const {
    return isa_in_use().kernels->dtypes[arrays_[i].dtype];
}

Region Velocities::region(std::size_t i, bool written) const {
    return {data(i), dtype(i).itemsize, arrays_[i].ndim, shape(i), strides(i), written};
}

Span Velocities::span(bool written) const {
    return {reinterpret_cast<std::uintptr_t>(memory_.get()), bytes_, written};
}

// Its base is a capsule and no array or buffer, of which NumPy could find out that it is writable.
py::array Velocities::view(std::size_t i) const {
    const py::capsule owner(new std::shared_ptr<char>(memory_),
                            [](void* memory) { delete static_cast<std::shared_ptr<char>*>(memory); });
    const int ndim = arrays_[i].ndim;
    py::array array(py::dtype(dtype(i).number), std::vector<py::ssize_t>(shape(i), shape(i) + ndim),
                    std::vector<py::ssize_t>(strides(i), strides(i) + ndim), data(i), owner);
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
}

void Velocities::set(std::size_t i, const void* values) noexcept {
    std::memcpy(data(i), values, bytes(i));
}

void Velocities::set_zero(std::size_t i) noexcept {
    std::memset(data(i), 0, bytes(i));
}

}  // namespace fast_momentum
