#include "checks.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "compilers.hpp"
#include "isa.hpp"

namespace fast_momentum {

namespace {

using ArrayStruct = py::detail::PyArray_Proxy;

constexpr int c_contiguous = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
constexpr int f_contiguous = py::detail::npy_api::NPY_ARRAY_F_CONTIGUOUS_;
constexpr int aligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
constexpr int writeable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_;

constexpr int contiguous = c_contiguous | f_contiguous;

// The types that are taken for an array. Other subclasses may mean something else by their elements.
struct NumpyTypes {
    py::object ndarray = py::module_::import("numpy").attr("ndarray");
    py::object memmap = py::module_::import("numpy").attr("memmap");
    py::object float32 = py::module_::import("numpy").attr("float32");
    py::object float64 = py::module_::import("numpy").attr("float64");
    py::object generic = py::module_::import("numpy").attr("generic");

    bool is_array(PyObject* object) const {
        const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
        return type == ndarray.ptr() || type == memmap.ptr();
    }
    bool is_float32(PyObject* object) const {
        return reinterpret_cast<PyObject*>(Py_TYPE(object)) == float32.ptr();
    }
    bool is_float64(PyObject* object) const {
        return reinterpret_cast<PyObject*>(Py_TYPE(object)) == float64.ptr();
    }
};

// Never deleted: there may be no interpreter by then.
const NumpyTypes* types_found = nullptr;

const NumpyTypes& numpy_types() {
    return *types_found;
}

const ArrayStruct& array_struct(PyObject* array) {
    return *py::detail::array_proxy(array);
}

bool is_native(char byteorder) {
    const std::uint16_t one = 1;
    const bool little = *reinterpret_cast<const char*>(&one) == 1;
    return byteorder == '=' || byteorder == '|' || byteorder == (little ? '<' : '>');
}

bool has_dtype(const ArrayStruct& array, const DtypeKernels& dtype) {
    const auto* descr = py::detail::array_descriptor_proxy(array.descr);
    return descr->type_num == dtype.number && is_native(descr->byteorder);
}

// In place of std::equal, which calls memcmp() for two or three numbers.
bool same(const std::ptrdiff_t* a, const std::ptrdiff_t* b, int n) {
    for (int d = 0; d < n; ++d)
        if (a[d] != b[d]) return false;
    return true;
}

std::string shape_text(const std::ptrdiff_t* shape, int ndim) {
    std::string text = "(";
    for (int d = 0; d < ndim; ++d) text += std::to_string(shape[d]) + (d + 1 < ndim ? ", " : "");
    return text + (ndim == 1 ? ",)" : ")");
}

std::string type_way_out(py::handle object, bool is_written) {
    if (py::isinstance(object, py::module_::import("numpy.ma").attr("MaskedArray")))
        return "; its mask would be ignored, pass its .data or .filled()";
    if (py::isinstance(object, numpy_types().ndarray))
        return "; pass numpy.asarray() of it, which shares its memory";
    if (py::isinstance(object, numpy_types().generic))
        return is_written ? "; it cannot be updated in place, use a 0-d array"
                          : "; only the gradient of a 0-d array may be a scalar, and sum(keepdims=True) "
                            "gives an array";
    if (py::hasattr(object, "__dlpack__"))
        return "; pass an array that shares its memory, such as numpy.from_dlpack() gives";
    return "";
}

[[noreturn]] void refuse_type(py::handle object, const std::string& path, bool is_written) {
    throw py::type_error(path + " must be a numpy.ndarray, not " + type_name(object) +
                         type_way_out(object, is_written));
}

// float16, >f4, [('x', '<f4')]
std::string dtype_text(const ArrayStruct& array) {
    constexpr std::size_t most = 80;
    const std::string text = text_of(py::str(py::handle(array.descr)));
    return text.size() <= most ? text : text.substr(0, most) + "...";
}

// What to do about an array that `made_by` would mend. A copy of an array that is written has to be kept: an
// update of a copy that nobody has is lost.
std::string copy_way_out(const std::string& made_by, bool is_written) {
    return is_written ? "; keep a copy in its place, made by " + made_by
                      : "; pass a copy, made by " + made_by;
}

// `wanted` is a dtype that meets the requirement.
[[noreturn]] void refuse_dtype(const ArrayStruct& array, const std::string& path,
                               const std::string& requirement, const DtypeKernels& wanted, bool is_written) {
    const bool swapped = py::detail::array_descriptor_proxy(array.descr)->type_num == wanted.number;
    throw py::type_error(
        path + (swapped ? " must be in native byte order" : " must have dtype " + requirement) + ", not " +
        dtype_text(array) + copy_way_out(std::string(".astype('") + wanted.name + "')", is_written));
}

bool has_shape(const ArrayStruct& array, const Velocities& velocities, std::size_t i) {
    return array.nd == velocities[i].ndim && same(array.dimensions, velocities.shape(i), array.nd);
}

// Array i lacks the dtype or shape of its velocity; `model` is the array that has them too, if not that of
// init().
[[noreturn]] void refuse_kind(const ArrayStruct& array, const Velocities& velocities, std::size_t i,
                              const std::string& path, const std::string& model, bool is_written) {
    const DtypeKernels& dtype = velocities.dtype(i);
    if (!has_dtype(array, dtype))
        refuse_dtype(array, path,
                     std::string(dtype.name) + (model.empty() ? ", as in init()" : ", as " + model + " has"),
                     dtype, is_written);
    throw py::value_error(path + " must have the shape " +
                          (model.empty() ? "it had in init()" : "of " + model) + ", " +
                          shape_text(velocities.shape(i), velocities[i].ndim) + ", not " +
                          shape_text(array.dimensions, array.nd));
}

struct Role {
    enum Name { params, grads, out, velocity };
};
constexpr const char* role_names[] = {"params", "grads", "out", "velocity"};

// Of one array, as the operand of a slice.
struct Memory {
    char* data;
    const std::ptrdiff_t* strides;
    int contiguity;
};

// Checks the arrays of one call one by one, and then together.
class Checker {
  public:
    Checker(const Tree& tree, const Velocities& velocities, Call& call)
        : tree_(tree),
          velocities_(velocities),
          dtypes_(isa_in_use().kernels->dtypes),
          types_(numpy_types()),
          call_(call) {}

    const DtypeKernels& dtype(std::size_t i) const { return dtypes_[velocities_[i].dtype]; }

    Memory read(Role::Name role, std::size_t i, PyObject* object) { return checked<false>(role, i, object); }
    Memory written(Role::Name role, std::size_t i, PyObject* object) {
        return checked<true>(role, i, object);
    }

    // A gradient may be a NumPy scalar where the parameter is 0-d: operations on 0-d arrays return scalars.
    Memory gradient(std::size_t i, PyObject* object) {
        if (velocities_[i].ndim == 0 && dtype(i).itemsize == sizeof(float) && types_.is_float32(object))
            return scalar(static_cast<float>(PyFloat_AsDouble(object)));
        if (velocities_[i].ndim == 0 && dtype(i).itemsize == sizeof(double) && types_.is_float64(object))
            return scalar(PyFloat_AS_DOUBLE(object));
        if (velocities_[i].ndim == 0 && py::isinstance(object, types_.generic))
            throw py::type_error(name(Role::grads, i) + " must be a numpy." + dtype(i).name +
                                 " or a 0-d array of that, as " + name(Role::params, i) + " is, not " +
                                 type_name(object));
        return read(Role::grads, i, object);
    }

    Memory velocity_of(std::size_t i) const {
        return {velocities_.data(i), velocities_.strides(i), velocities_[i].contiguity};
    }

    void add_slice(std::size_t i, const Memory& first, const Memory& second, const Memory& third,
                   Kernel kernel, const Coefficients* coefficients) {
        const std::size_t itemsize = dtype(i).itemsize;
        char* const data[] = {first.data, second.data, third.data};
        if (first.contiguity & second.contiguity & third.contiguity)
            call_.work.add_dense(data, velocities_[i].size, itemsize, kernel, coefficients);
        else
            call_.work.add_strided(data, {first.strides, second.strides, third.strides}, velocities_.shape(i),
                                   velocities_[i].ndim, itemsize, kernel, coefficients);
    }

    // No array that is written may share memory with another one. Nearly always their bounds tell.
    void check_overlap(Role::Name others, bool velocities_written) {
        call_.bounds.add(velocities_.span(velocities_written));
        if (!call_.bounds.meet()) return;
        std::vector<Region> regions;
        std::vector<std::pair<Role::Name, std::size_t>> names;
        const auto add = [&](Role::Name role, std::size_t i, const Region& region) {
            regions.push_back(region);
            names.emplace_back(role, i);
        };
        for (std::size_t i = 0; i < velocities_.size(); ++i) {
            add(Role::params, i, region(i, array_struct(call_.params[i]), others == Role::grads));
            if (types_.is_array(call_.others[i]))
                add(others, i, region(i, array_struct(call_.others[i]), others == Role::out));
            add(Role::velocity, i, velocities_.region(i, velocities_written));
        }
        const Clash clash = find_clash(regions);
        if (clash.verdict == Verdict::disjoint) return;
        const auto [first_role, first] = names[clash.first];
        const auto [second_role, second] = names[clash.second];
        const bool same = regions[clash.first].data == regions[clash.second].data;
        const bool with_grad = first_role == Role::grads || second_role == Role::grads;
        const std::string way_out = with_grad             ? "; pass a copy of the gradient"
                                    : others == Role::out ? "; pass other arrays as out"
                                                          : "; give each array once";
        const std::string first_name = name(first_role, first), second_name = name(second_role, second);
        const std::string requirement = second_name + " must share no memory with " + first_name;
        if (clash.verdict == Verdict::unknown)
            throw py::value_error("cannot prove that " + first_name + " and " + second_name +
                                  " are disjoint: " + requirement + ", not have such strides" + way_out);
        throw py::value_error(requirement + ", not " + (same ? "begin at the same element" : "overlap it") +
                              way_out);
    }

  private:
    template <class T>
    Memory scalar(T value) {
        char* data = reinterpret_cast<char*>(&call_.scalars.emplace_back());
        std::memcpy(data, &value, sizeof value);
        return {data, nullptr, contiguous};
    }

    // Inlined, as ten thousand arrays make ten thousand calls; what refuses is not.
    template <bool is_written>
    INLINED Memory checked(Role::Name role, std::size_t i, PyObject* object) {
        if (!types_.is_array(object)) refuse_type(role, i, object);
        const ArrayStruct& array = array_struct(object);
        if (!has_dtype(array, dtype(i)) || !has_shape(array, velocities_, i)) refuse_kind(role, i, array);
        if (!(array.flags & aligned)) refuse_misaligned(role, i);
        if (is_written && !(array.flags & writeable)) refuse_read_only(role, i);
        if (!(array.flags & contiguous)) return checked_strided(role, i, array, is_written);
        const std::size_t bytes = velocities_[i].size * dtype(i).itemsize;
        if (bytes) call_.bounds.add({reinterpret_cast<std::uintptr_t>(array.data), bytes, is_written});
        return {array.data, array.strides, array.flags & contiguous};
    }

    Memory checked_strided(Role::Name role, std::size_t i, const ArrayStruct& array, bool is_written) {
        const Region elements = region(i, array, is_written);
        if (is_written) check_own_elements(role, i, elements);
        if (velocities_[i].size) call_.bounds.add(elements.span());
        return {array.data, array.strides, 0};
    }

    void check_own_elements(Role::Name role, std::size_t i, const Region& elements) const {
        const Verdict verdict = self_overlap(elements);
        if (verdict == Verdict::disjoint) return;
        throw py::value_error(name(role, i) + " must have elements that share no memory, not " +
                              (verdict == Verdict::overlapping ? "overlapping ones"
                                                               : "strides of which that cannot be proved") +
                              copy_way_out(".copy()", true));
    }

    [[noreturn]] void refuse_type(Role::Name role, std::size_t i, PyObject* object) const {
        fast_momentum::refuse_type(object, name(role, i), role != Role::grads);
    }

    [[noreturn]] void refuse_kind(Role::Name role, std::size_t i, const ArrayStruct& array) const {
        fast_momentum::refuse_kind(array, velocities_, i, name(role, i),
                                   role == Role::params ? "" : name(Role::params, i), role != Role::grads);
    }

    [[noreturn]] void refuse_misaligned(Role::Name role, std::size_t i) const {
        throw py::value_error(
            name(role, i) + " must be aligned in memory, not at addresses that are no multiple of " +
            std::to_string(dtype(i).itemsize) + copy_way_out(".copy()", role != Role::grads));
    }

    [[noreturn]] void refuse_read_only(Role::Name role, std::size_t i) const {
        throw py::value_error(name(role, i) + " must be writable, not read-only" +
                              copy_way_out(".copy()", true));
    }

    Region region(std::size_t i, const ArrayStruct& array, bool is_written) const {
        return {array.data, dtype(i).itemsize, array.nd, array.dimensions, array.strides, is_written};
    }

    std::string name(Role::Name role, std::size_t i) const { return role_names[role] + tree_.path(i); }

    const Tree& tree_;
    const Velocities& velocities_;
    const DtypeKernels* dtypes_;
    const NumpyTypes& types_;
    Call& call_;
};

}  // namespace

void Call::clear() {
    params.clear();
    others.clear();
    work.clear();
    if (!scalars.empty()) scalars.clear();
    bounds.clear();
}

void find_numpy_types() {
    types_found = new NumpyTypes;
}

std::vector<unsigned char> checked_dtypes(const Tree& tree, const Leaves& params) {
    const DtypeKernels* rows = isa_in_use().kernels->dtypes;
    std::vector<unsigned char> dtypes;
    for (std::size_t i = 0; i < params.size(); ++i) {
        const auto path = [&] { return role_names[Role::params] + tree.path(i); };
        if (!numpy_types().is_array(params[i])) refuse_type(params[i], path(), true);
        const ArrayStruct& array = array_struct(params[i]);
        const int number = py::detail::array_descriptor_proxy(array.descr)->type_num;
        const auto* row = std::find_if(rows, rows + n_dtypes,
                                       [&](const DtypeKernels& dtype) { return dtype.number == number; });
        if (row == rows + n_dtypes) {
            std::string names;
            for (unsigned k = 0; k < n_dtypes; ++k) names += std::string(k ? " or " : "") + rows[k].name;
            refuse_dtype(array, path(), names, rows[0], true);
        }
        if (!has_dtype(array, *row)) refuse_dtype(array, path(), row->name, *row, true);
        dtypes.push_back(static_cast<unsigned char>(row - rows));
    }
    return dtypes;
}

void check_velocity(const Tree& tree, const Velocities& velocities, std::size_t i, py::handle array,
                    const std::string& path) {
    if (!numpy_types().is_array(array.ptr())) refuse_type(array, path, false);
    const ArrayStruct& given = array_struct(array.ptr());
    if (!has_dtype(given, velocities.dtype(i)) || !has_shape(given, velocities, i))
        refuse_kind(given, velocities, i, path, role_names[Role::params] + tree.path(i), false);
}

void check_step(const Tree& tree, const Velocities& velocities, const Constants& constants,
                const std::vector<unsigned char>& started, Call& call) {
    Checker checker(tree, velocities, call);
    call.work.access = {{true, true, true}, {true, false, true}};
    const std::size_t n = velocities.size();
    for (std::size_t i = 0; i < n; ++i) {
        const Memory param = checker.written(Role::params, i, call.params[i]);
        if (call.others[i] == Py_None) continue;
        const Memory grad = checker.gradient(i, call.others[i]);
        const Coefficients* coefficients = constants.of(i, started[i]);
        checker.add_slice(i, param, grad, checker.velocity_of(i), checker.dtype(i).step[coefficients->terms],
                          coefficients);
    }
    checker.check_overlap(Role::grads, true);
}

void check_lookahead(const Tree& tree, const Velocities& velocities, const Constants& constants, Call& call) {
    Checker checker(tree, velocities, call);
    call.work.access = {{false, true, true}, {true, false, false}};
    for (std::size_t i = 0; i < velocities.size(); ++i) {
        const Memory param = checker.read(Role::params, i, call.params[i]);
        const Memory point = checker.written(Role::out, i, call.others[i]);
        checker.add_slice(i, point, param, checker.velocity_of(i), checker.dtype(i).lookahead,
                          constants.of(i, true));
    }
    checker.check_overlap(Role::out, false);
}

}  // namespace fast_momentum
