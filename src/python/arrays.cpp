#include "python/arrays.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "plain/gather.hpp"
#include "plain/isa.hpp"

namespace fast_momentum {

namespace {

constexpr std::size_t n_scales(std::size_t size) {
    return (size + scale_block - 1) / scale_block;
}

constexpr std::size_t alignment = 64;  // of each velocity
constexpr std::size_t page = 4096;     // of the block of memory
constexpr std::size_t most_bytes = std::size_t(PTRDIFF_MAX) / 2 / alignment * alignment;

// A stride of an array in memory, for items of another size; of arrays that have no memory, 0.
std::ptrdiff_t scaled(std::ptrdiff_t stride, std::size_t itemsize, std::size_t other) {
    if (itemsize == 0) return 0;
    return stride / static_cast<std::ptrdiff_t>(itemsize) * static_cast<std::ptrdiff_t>(other);
}

// Strides of a dense array, whose last axes have the smallest ones.
std::vector<std::ptrdiff_t> dense_strides(const std::vector<std::ptrdiff_t>& shape, const Axes& axes,
                                          std::size_t itemsize) {
    std::vector<std::ptrdiff_t> strides(shape.size());
    auto stride = static_cast<std::ptrdiff_t>(itemsize);
    for (auto d = axes.rbegin(); d != axes.rend(); ++d) {
        const auto axis = static_cast<std::size_t>(*d);
        strides[axis] = stride;
        stride *= std::max<std::ptrdiff_t>(shape[axis], 1);
    }
    return strides;
}

// NumPy's flags for the strides of a dense array.
int contiguity(const std::ptrdiff_t* shape, const std::ptrdiff_t* strides, int ndim, std::size_t size) {
    std::vector<std::ptrdiff_t> steps;  // where there is more than one
    for (int d = 0; d < ndim; ++d)
        if (shape[d] != 1) steps.push_back(strides[d]);
    const bool f = size == 0 || std::is_sorted(steps.begin(), steps.end());
    const bool c = size == 0 || std::is_sorted(steps.rbegin(), steps.rend());
    return (c ? py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ : 0) |
           (f ? py::detail::npy_api::NPY_ARRAY_F_CONTIGUOUS_ : 0);
}

// Where a large velocity begins: half a page from its parameter, modulo a page. A load waits for an earlier
// store whose address agrees with its own in the last twelve bits (docs/decisions.md).
std::size_t padding(std::size_t end, std::size_t bytes, const char* param) {
    if (bytes < 4 * page) return 0;
    const std::size_t wanted =
        (reinterpret_cast<std::uintptr_t>(param) + page / 2) % page / alignment * alignment;
    return (wanted + page - end % page) % page;
}

// What elements are read from: where it lies, and with which strides in reals.
struct Source {
    Operand operand;
    std::vector<std::ptrdiff_t> strides;
};

Source source_of(py::handle array, const DtypeKernels& dtype, Stored stored) {
    const ArrayStruct& found = array_struct(array.ptr());
    return {{found.data, storage_of(stored), nullptr}, strides_in_reals(found, dtype)};
}

// The dimensions of the source in the order of array i, made one where they follow one another in both.
std::vector<Dimension> in_order(const Arrays& arrays, std::size_t i, const std::ptrdiff_t* strides) {
    std::vector<Dimension> dims;
    for (const long long axis : axes_of(arrays.strides(i), arrays[i].n_axes)) {
        const std::ptrdiff_t size = arrays.shape(i)[axis], stride = strides[axis];
        if (size == 1) continue;
        if (dims.empty() || dims.back().strides[0] != stride * size)
            dims.push_back({static_cast<std::size_t>(size), {stride}});
        else
            dims.back() = {dims.back().size * static_cast<std::size_t>(size), {stride}};
    }
    if (dims.empty()) dims.push_back({1, {}});
    return dims;
}

// Calls run(values, begin, n) for block after block of the source, which has the shape of array i, in the
// order of that one and in the dtype that is worked on in. No Python code runs, and the GIL is kept.
template <class Run>
void each_block(const Arrays& arrays, std::size_t i, const Source& source, const Run& run) {
    constexpr std::size_t block = 16 * scale_block;
    alignas(64) char stored[block * sizeof(double)];
    alignas(64) float loaded[block];
    const std::vector<Dimension> dimensions = in_order(arrays, i, source.strides.data());
    const Order order = {dimensions.data(), static_cast<unsigned>(dimensions.size()), 0};
    const auto& [data, storage, scales] = source.operand;
    for (std::size_t begin = 0; begin < arrays[i].size; begin += block) {
        const std::size_t n = std::min(block, arrays[i].size - begin);
        gather(stored, data, order, source.operand.itemsize(arrays.dtype(i)), begin, n);
        if (storage) storage->load(loaded, stored, scales ? scales + begin / scale_block : nullptr, n);
        run(storage ? reinterpret_cast<const char*>(loaded) : stored, begin, n);
    }
}

template <class Test>
bool any(const Arrays& arrays, std::size_t i, const Source& source, const Test& test) {
    bool found = false;
    each_block(arrays, i, source, [&](const char* values, std::size_t, std::size_t n) {
        const auto look = [&](const auto* x) { found = found || std::any_of(x, x + n, test); };
        arrays.dtype(i).itemsize == sizeof(float) ? look(reinterpret_cast<const float*>(values))
                                                  : look(reinterpret_cast<const double*>(values));
    });
    return found;
}

template <class T>
bool multiplied(Arrays& arrays, std::size_t i, double factor) {
    const py::array before = arrays.copy(i);
    py::array values = arrays.copy(i);
    T* product = static_cast<T*>(values.mutable_data());
    const std::size_t n = arrays[i].size;
    for (std::size_t k = 0; k < n; ++k) product[k] = static_cast<T>(static_cast<double>(product[k]) * factor);
    arrays.assign(i, values, Stored::native);
    const py::array after = arrays.copy(i);
    const T *was = static_cast<const T*>(before.data()), *is = static_cast<const T*>(after.data());
    for (std::size_t k = 0; k < n; ++k)
        if (std::isfinite(was[k]) && !std::isfinite(is[k])) return false;
    return true;
}

}  // namespace

Axes axes_of(const std::ptrdiff_t* strides, int ndim) {
    Axes axes(static_cast<std::size_t>(ndim));
    std::iota(axes.begin(), axes.end(), 0);
    std::stable_sort(axes.begin(), axes.end(),
                     [&](long long a, long long b) { return magnitude(strides[a]) > magnitude(strides[b]); });
    return axes;
}

Stored stored_as(py::handle name, Dtype dtype) {
    const Storage* rows = isa_in_use().kernels->storages;
    for (unsigned row = 0; row < n_storages; ++row)
        if (dtype == Dtype::float32 && !rows[row].has_scales && py::str(rows[row].name).equal(name))
            return Stored(row);
    throw py::value_error("storage must be one that parameters can have, not " + brief(name));
}

std::string Params::worked_in(std::size_t i) const {
    const std::string dtype = dtype_kernels(dtypes[i]).name, array = "params" + tree.path(i);
    if (stored[i] == Stored::native) return dtype + ", the dtype of " + array;
    return dtype + ", in which " + array + ", of " + storage_of(stored[i])->name + ", is worked on";
}

Arrays::Arrays(const Leaves& leaves, const Params& params, const std::vector<Stored>& stored) {
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        const ArrayStruct& param = array_struct(leaves[i]);
        const std::vector<std::ptrdiff_t> shape = shape_in_reals(param, dtype_kernels(params.dtypes[i]));
        const int n_axes = static_cast<int>(shape.size());
        arrays_.push_back({params.dtypes[i], stored[i], param.nd, n_axes, 0, 1, dimensions_.size(), 0, 0});
        Array& array = arrays_.back();
        for (const std::ptrdiff_t signed_length : shape) {
            const auto length = static_cast<std::size_t>(signed_length);
            if (length != 0 && array.size > most_bytes / sizeof(double) / length) throw std::bad_alloc();
            array.size *= length;
        }
        reserve(array, param.data);
        Axes axes = params.axes[i];
        if (n_axes > param.nd) axes.push_back(param.nd);
        const std::vector<std::ptrdiff_t> strides = dense_strides(shape, axes, itemsize(i));
        array.contiguity = contiguity(shape.data(), strides.data(), param.nd, array.size);
        dimensions_.insert(dimensions_.end(), shape.begin(), shape.end());
        dimensions_.insert(dimensions_.end(), strides.begin(), strides.end());
    }
    allocate();
}

Arrays::Arrays(const Arrays& other)
    : arrays_(other.arrays_), dimensions_(other.dimensions_), bytes_(other.bytes_) {
    allocate();
    std::memcpy(memory_.get(), other.memory_.get(), bytes_);
}

Arrays::Arrays(const Arrays& model, const std::vector<Stored>& stored)
    : arrays_(model.arrays_), dimensions_(model.dimensions_) {
    for (std::size_t i = 0; i < size(); ++i) {
        arrays_[i].stored = stored[i];
        reserve(arrays_[i], nullptr);
        std::ptrdiff_t* strides = dimensions_.data() + arrays_[i].dimensions + arrays_[i].n_axes;
        for (int d = 0; d < arrays_[i].n_axes; ++d)
            strides[d] = scaled(strides[d], model.itemsize(i), itemsize(i));
    }
    allocate();
}

void Arrays::reserve(Array& array, const char* param) {
    const auto reserved = [&](std::size_t n_bytes) {
        const std::size_t bytes = (n_bytes + alignment - 1) / alignment * alignment;
        if (param) bytes_ += padding(bytes_, bytes, param);
        if (bytes_ > most_bytes || bytes > most_bytes - bytes_) throw std::bad_alloc();
        bytes_ += bytes;
        return bytes_ - bytes;
    };
    array.offset = reserved(array.size * itemsize(array));
    param = nullptr;
    const Storage* storage = storage_of(array.stored);
    if (storage && storage->has_scales) array.scales = reserved(n_scales(array.size) * sizeof(float));
}

// Zero pages that nobody has written take no memory yet, so calloc() and not a vector.
void Arrays::allocate() {
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

const DtypeKernels& Arrays::dtype(std::size_t i) const {
    return dtype_kernels(arrays_[i].dtype);
}

std::size_t Arrays::itemsize(const Array& array) const {
    if (array.stored == Stored::absent) return 0;
    const Storage* storage = storage_of(array.stored);
    return storage ? storage->itemsize : dtype_kernels(array.dtype).itemsize;
}

float* Arrays::scales(std::size_t i) const {
    const Storage* storage = storage_of(arrays_[i].stored);
    return storage && storage->has_scales ? reinterpret_cast<float*>(memory_.get() + arrays_[i].scales)
                                          : nullptr;
}

Region Arrays::region(std::size_t i, bool written) const {
    return {data(i), itemsize(i), arrays_[i].n_axes, shape(i), strides(i), written};
}

Span Arrays::span(bool written) const {
    return {reinterpret_cast<std::uintptr_t>(memory_.get()), bytes_, written};
}

py::capsule Arrays::owner() const {
    auto shared = std::make_unique<std::shared_ptr<char>>(memory_);
    py::capsule capsule(shared.get(),
                        [](void* memory) { delete static_cast<std::shared_ptr<char>*>(memory); });
    shared.release();
    return capsule;
}

// Its base is a capsule and no array or buffer, of which NumPy could find out that it is writable.
py::array Arrays::shared(std::size_t i, const py::dtype& dtype, int n_axes) const {
    return py::array(dtype, {shape(i), shape(i) + n_axes}, {strides(i), strides(i) + n_axes}, data(i),
                     owner());
}

py::array Arrays::view(std::size_t i) const {
    py::array array = shared(i, py::dtype(dtype(i).number), arrays_[i].ndim);
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
}

py::array Arrays::items(std::size_t i) const {
    const Storage* storage = storage_of(arrays_[i].stored);
    if (!storage) return shared(i, py::dtype(dtype(i).number), arrays_[i].ndim);
    const char* name = storage->place == Stored::bfloat16 ? "uint16" : storage->name;
    return shared(i, py::dtype(name), arrays_[i].n_axes);
}

py::object Arrays::items_of_scales(std::size_t i) const {
    if (!scales(i)) return py::none();
    return py::array(py::dtype::of<float>(), {n_scales(arrays_[i].size)}, {sizeof(float)}, scales(i),
                     owner());
}

py::array Arrays::empty(std::size_t i) const {
    std::vector<py::ssize_t> strides(this->strides(i), this->strides(i) + arrays_[i].ndim);
    for (py::ssize_t& stride : strides) stride = scaled(stride, itemsize(i), dtype(i).itemsize);
    return py::array(py::dtype(dtype(i).number), {shape(i), shape(i) + arrays_[i].ndim}, strides);
}

py::array Arrays::copy(std::size_t i) const {
    py::array values = empty(i);
    const Storage* storage = storage_of(arrays_[i].stored);
    if (storage)
        storage->load(static_cast<float*>(values.mutable_data()), data(i), scales(i), arrays_[i].size);
    else
        std::memcpy(values.mutable_data(), data(i), arrays_[i].size * itemsize(i));
    return values;
}

void Arrays::set_block(std::size_t i, const char* values, std::size_t begin, std::size_t n) noexcept {
    char* to = data(i) + begin * itemsize(i);
    if (const Storage* storage = storage_of(arrays_[i].stored))
        storage->store(to, scales(i) ? scales(i) + begin / scale_block : nullptr,
                       reinterpret_cast<const float*>(values), n);
    else
        std::memcpy(to, values, n * itemsize(i));
}

void Arrays::assign(std::size_t i, py::handle array, Stored stored) {
    each_block(*this, i, source_of(array, dtype(i), stored),
               [&](const char* values, std::size_t begin, std::size_t n) { set_block(i, values, begin, n); });
}

bool Arrays::any_nonzero(std::size_t i) const {
    return any(*this, i, {operand(i), {strides(i), strides(i) + arrays_[i].n_axes}},
               [](auto x) { return x != 0; });
}

bool Arrays::any_negative(std::size_t i, py::handle array) const {
    return any(*this, i, source_of(array, dtype(i), Stored::native), [](auto x) { return x < 0; });
}

bool Arrays::all_as_at_first(std::size_t i, py::handle array) const {
    return !any(*this, i, source_of(array, dtype(i), Stored::native),
                [](auto x) { return x != 0 || std::signbit(x); });
}

// Zero is the same bits in each way to store it.
void Arrays::set_zero(std::size_t i) noexcept {
    std::memset(data(i), 0, arrays_[i].size * itemsize(i));
    if (float* first = scales(i)) std::fill_n(first, n_scales(arrays_[i].size), 0.0f);
}

bool Arrays::scale(std::size_t i, double factor) {
    return (dtype(i).itemsize == sizeof(float) ? multiplied<float> : multiplied<double>)(*this, i, factor);
}

void Arrays::take(const Arrays& other) noexcept {
    std::memcpy(memory_.get(), other.memory_.get(), bytes_);
}

// ---- all that a State keeps ----

Kept::Kept(const Kept& other)
    : params(other.params), slots(other.slots), has_plain_formula(other.has_plain_formula) {
    point();
}

void Kept::point() {
    made.clear();
    operands_.assign(size() * Slot::n, {});
    for (const Slot& slot : all_slots) {
        if (!slots[slot.place]) continue;
        made.push_back(slot.place);
        for (std::size_t i = 0; i < size(); ++i)
            if (has(slot.place, i)) operands_[i * Slot::n + slot.place] = slots[slot.place]->operand(i);
    }
    model_ = &*slots[made.front()];
}

void Kept::make_slots(const Rule& rule, const Values& settings, const Leaves& leaves) {
    const auto wanted = [&](const Slot& slot) {
        switch (slot.when) {
            case Slot::kept_by_the_rule:
                return rule.keeps_slot(slot.place) &&
                       (slot.only_with == Setting::n || settings[slot.only_with] != 0);
            case Slot::compensation_wanted:
                return settings[Setting::compensated] != 0;
            case Slot::params_narrow:
                return settings[Setting::compensated] == 0 && has_narrow_params();
            case Slot::average_wanted:
                break;
        }
        return false;
    };
    has_plain_formula = rule.formula < Formula::n_plain;
    const Arrays* first = nullptr;
    for (const Slot& slot : all_slots) {
        if (!wanted(slot)) continue;
        auto& arrays = slots[slot.place];
        first = first ? &arrays.emplace(*first, stored_as(slot, settings))
                      : &arrays.emplace(leaves, params, stored_as(slot, settings));
    }
    point();
}

std::vector<Stored> Kept::stored_as(const Slot& slot, const Values& settings) const {
    if (params.kept_elsewhere) return std::vector<Stored>(size(), Stored::absent);
    if (slot.as == Slot::params) return params.stored;
    std::vector<Stored> stored(size(), slot.as == Slot::velocity_dtype || slot.as == Slot::dithered
                                           ? Stored(static_cast<unsigned>(settings[Setting::velocity_dtype]))
                                           : Stored::native);
    if (slot.when == Slot::params_narrow)
        for (std::size_t i = 0; i < size(); ++i)
            if (params.stored[i] == Stored::native) stored[i] = Stored::absent;
    return stored;
}

bool Kept::has_narrow_params() const {
    return std::any_of(params.stored.begin(), params.stored.end(),
                       [](Stored stored) { return stored != Stored::native; });
}

void Kept::make_room_for_average() {
    if (slots[Slot::average]) return;
    const Stored stored = params.kept_elsewhere ? Stored::absent : Stored::native;
    slots[Slot::average].emplace(model(), std::vector<Stored>(size(), stored));
    point();
}

bool Kept::is_plain() const {
    if (!has_plain_formula) return false;
    for (const Slot::Name slot : made)
        if (slot != Slot::velocity && slot != Slot::average) return false;
    return size() == 0 || velocity()[0].stored == Stored::native;
}

}  // namespace fast_momentum
