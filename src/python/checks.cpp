#include "python/checks.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/compilers.hpp"
#include "plain/isa.hpp"

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
    py::object generic = py::module_::import("numpy").attr("generic");
    mutable int bfloat16_number = -1;  // of the dtype that ml_dtypes registers, once one was seen

    bool is_array(PyObject* object) const {
        const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
        return type == ndarray.ptr() || type == memmap.ptr();
    }
    // By its name: whoever has such an array has imported ml_dtypes, and nobody else needs it.
    bool is_bfloat16(PyObject* descr) const {
        const int number = py::detail::array_descriptor_proxy(descr)->type_num;
        constexpr int first_user_number = 256;
        if (number < first_user_number) return false;
        if (number != bfloat16_number && text_of(py::handle(descr).attr("name")) == "bfloat16" &&
            py::handle(descr).attr("itemsize").cast<int>() == 2)
            bfloat16_number = number;
        return number == bfloat16_number;
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

constexpr int float16_number = 23;  // numpy.dtype.num

// As what an array that is worked on in float32 may be stored: native where it is none of them.
Stored narrow_storage(const ArrayStruct& array) {
    const auto* descr = py::detail::array_descriptor_proxy(array.descr);
    if (!is_native(descr->byteorder)) return Stored::native;
    if (descr->type_num == float16_number) return Stored::float16;
    return numpy_types().is_bfloat16(array.descr) ? Stored::bfloat16 : Stored::native;
}

// In place of std::equal, which calls memcmp() for two or three numbers.
INLINED bool same(const std::ptrdiff_t* a, const std::ptrdiff_t* b, int n) {
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

// `wanted` is the name of a dtype that meets the requirement, `number` its number.
[[noreturn]] void refuse_dtype(const ArrayStruct& array, const std::string& path,
                               const std::string& requirement, const char* wanted, int number,
                               bool is_written) {
    const bool swapped = py::detail::array_descriptor_proxy(array.descr)->type_num == number;
    throw py::type_error(
        path + (swapped ? " must be in native byte order" : " must have dtype " + requirement) + ", not " +
        dtype_text(array) + copy_way_out(std::string(".astype('") + wanted + "')", is_written));
}

// An array of a dtype that nothing can be worked on in.
[[noreturn]] void refuse_param(const ArrayStruct& array, const std::string& path, bool is_written) {
    const Kernels& kernels = *isa_in_use().kernels;
    const int number = py::detail::array_descriptor_proxy(array.descr)->type_num;
    const DtypeKernels* wanted = &kernels.dtypes[0];
    std::string names;
    for (const DtypeKernels& dtype : kernels.dtypes) {
        if (dtype.number == number) wanted = &dtype;
        names += dtype.name + std::string(", ");
    }
    if (number == float16_number) refuse_dtype(array, path, names, "float16", number, is_written);
    refuse_dtype(array, path, names + "float16 or bfloat16", wanted->name, wanted->number, is_written);
}

INLINED bool has_shape(const ArrayStruct& array, const Arrays& arrays, std::size_t i) {
    return array.nd == arrays[i].ndim && same(array.dimensions, arrays.shape(i), array.nd);
}

[[noreturn]] void refuse_shape(const ArrayStruct& array, const Arrays& arrays, std::size_t i,
                               const std::string& path, const std::string& model) {
    throw py::value_error(
        path + " must have the shape " + (model.empty() ? "it had in init()" : "of " + model) + ", " +
        shape_text(arrays.shape(i), arrays[i].ndim) + ", not " + shape_text(array.dimensions, array.nd));
}

struct Role {
    enum Name { params, grads, out, velocity, average };
};
constexpr const char* role_names[] = {"params", "grads", "out", "velocity", "average"};

// Of one array, as the operand of a slice.
struct Memory {
    char* data;
    const std::ptrdiff_t* strides;
    int contiguity;
};

INLINED Memory memory_of(const ArrayStruct& array) {
    return {array.data, array.strides, array.flags & contiguous};
}

// Checks the arrays of one call one by one, and then together. `whole`: parameters may be narrow; the code
// without that is shorter.
class Checker {
  public:
    Checker(const Tree& tree, const Kept& kept, Call& call)
        : tree_(tree),
          kept_(kept),
          velocities_(kept.velocity),
          dtypes_(isa_in_use().kernels->dtypes),
          types_(numpy_types()),
          call_(call) {
        constexpr std::size_t roles = 2, of_the_state = 2;
        call.bounds.begin(roles * velocities_.size() + of_the_state);
    }

    const DtypeKernels& dtype(std::size_t i) const { return dtypes_[velocities_[i].dtype]; }

    template <bool whole>
    INLINED const ArrayStruct& read(Role::Name role, std::size_t i, const DtypeKernels& dtype,
                                    PyObject* object) {
        return checked<false, whole>(role, i, dtype, object);
    }
    template <bool whole>
    INLINED const ArrayStruct& written(Role::Name role, std::size_t i, const DtypeKernels& dtype,
                                       PyObject* object) {
        return checked<true, whole>(role, i, dtype, object);
    }

    // A gradient may be a NumPy scalar where the parameter is 0-d: operations on 0-d arrays return scalars.
    // It is zeroed afterwards if `is_written`.
    template <bool whole>
    INLINED Memory gradient(std::size_t i, const DtypeKernels& dtype, PyObject* object, bool is_written) {
        if (whole && is_written) return written_gradient(i, object);
        if (velocities_[i].ndim == 0 && py::isinstance(object, types_.generic))
            return scalar_gradient(i, object);
        return memory_of(read<whole>(Role::grads, i, dtype, object));
    }
    Memory written_gradient(std::size_t i, PyObject* object) {
        if (!types_.is_array(object)) fast_momentum::refuse_type(object, name(Role::grads, i), true);
        return memory_of(written<true>(Role::grads, i, dtype(i), object));
    }

    bool has_narrow_grad() const { return narrow_grad_ != Stored::native; }

    Memory velocity_of(std::size_t i) const {
        return {velocities_.data(i), velocities_.strides(i), velocities_[i].contiguity};
    }

    INLINED void add_slice(std::size_t i, Memory first, Memory second, Memory third, std::size_t itemsize,
                           Kernel kernel, const Coefficients* coefficients) {
        char* const data[] = {first.data, second.data, third.data};
        if (first.contiguity & second.contiguity & third.contiguity)
            call_.work.add_dense(data, velocities_[i].size, itemsize, kernel, coefficients);
        else
            call_.work.add_strided(data, {first.strides, second.strides, third.strides}, velocities_.shape(i),
                                   velocities_[i].ndim, itemsize, kernel, coefficients);
    }

    // `partner`: the gradient, or what lookahead() writes; none where its data is nullptr.
    void add_update(std::size_t i, Memory param, Memory partner, const Coefficients* coefficients) {
        Update update{};
        update.dtype = &dtype(i);
        update.coefficients = coefficients;
        update.n = velocities_[i].size;
        const Stored partner_stored =
            call_.work.pass.task == Task::lookahead ? kept_.params[i] : narrow_grad_;
        update.param = {param.data, storage_of(kept_.params[i]), nullptr};
        update.partner = {partner.data, storage_of(partner_stored), nullptr};
        narrow_grad_ = Stored::native;
        update.velocity = operand(velocities_, i);
        if (kept_.compensation) update.compensation = operand(*kept_.compensation, i);
        if (kept_.master && kept_.master->has(i)) update.master = kept_.master->data(i);
        if (call_.work.pass.averages) update.average = kept_.average->data(i);
        if (!partner.data) partner = param;
        const bool dense = (param.contiguity & partner.contiguity & velocities_[i].contiguity) != 0;
        call_.work.add_update(update, {dense ? nullptr : param.strides, partner.strides},
                              velocities_.strides(i), velocities_.shape(i), velocities_[i].ndim);
    }

    void add_to_norm(std::size_t i, Memory grad) {
        call_.norm.add({grad.data, storage_of(narrow_grad_), nullptr}, dtype(i), velocities_[i].size,
                       grad.contiguity ? nullptr : grad.strides, velocities_.shape(i), velocities_[i].ndim);
    }

    // No array that is written may share memory with another one. Nearly always their bounds tell.
    void check_overlap(Role::Name others, bool others_written, bool state_written) {
        const bool average_written = call_.work.pass.averages;
        call_.bounds.add(velocities_.span(state_written));
        if (kept_.average) call_.bounds.add(kept_.average->span(average_written));
        if (!call_.bounds.meet()) return;
        std::vector<Region> regions;
        std::vector<std::pair<Role::Name, std::size_t>> names;
        const auto add = [&](Role::Name role, std::size_t i, const Region& region) {
            regions.push_back(region);
            names.emplace_back(role, i);
        };
        for (std::size_t i = 0; i < velocities_.size(); ++i) {
            add(Role::params, i, region(i, array_struct(call_.params[i]), others != Role::out));
            if (call_.others.size() > 0 && types_.is_array(call_.others[i]))
                add(others, i, region(i, array_struct(call_.others[i]), others_written));
            add(Role::velocity, i, velocities_.region(i, state_written));
            if (kept_.average) add(Role::average, i, kept_.average->region(i, average_written));
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

    Memory scalar_gradient(std::size_t i, PyObject* object) {
        const py::object dtype_ = py::handle(object).attr("dtype");
        const int number = py::detail::array_descriptor_proxy(dtype_.ptr())->type_num;
        if (number == dtype(i).number && dtype(i).itemsize == sizeof(double))
            return scalar(PyFloat_AsDouble(object));
        if (dtype(i).itemsize == sizeof(float) &&
            (number == dtype(i).number || number == float16_number || types_.is_bfloat16(dtype_.ptr())))
            return scalar(static_cast<float>(PyFloat_AsDouble(object)));
        throw py::type_error(name(Role::grads, i) + " must be a numpy." + dtype(i).name +
                             " or a 0-d array of that, as " + name(Role::params, i) + " is, not " +
                             type_name(object));
    }

    static Operand operand(const Arrays& arrays, std::size_t i) {
        return {arrays.data(i), storage_of(arrays[i].stored), arrays.scales(i)};
    }

    // Inlined, as ten thousand arrays make ten thousand calls; what refuses is not.
    template <bool is_written, bool whole>
    INLINED const ArrayStruct& checked(Role::Name role, std::size_t i, const DtypeKernels& dtype,
                                       PyObject* object) {
        if (!types_.is_array(object)) refuse_type(role, i, object);
        const ArrayStruct& array = array_struct(object);
        std::size_t itemsize = dtype.itemsize;
        if ((whole && !kept_.is_plain()) || !has_dtype(array, dtype))
            itemsize = checked_storage(role, i, array);
        if (!has_shape(array, velocities_, i)) refuse_shape(role, i, array);
        if (!(array.flags & aligned)) refuse_misaligned(role, i, array);
        if (is_written && !(array.flags & writeable)) refuse_read_only(role, i);
        const std::size_t bytes = velocities_[i].size * itemsize;
        if (!(array.flags & contiguous))
            check_strided(role, i, array, is_written);
        else if (bytes)
            call_.bounds.add({reinterpret_cast<std::uintptr_t>(array.data), bytes, is_written});
        return array;
    }

    // Gradients that are worked on in float32 may be stored in another way than the parameters. Returns the
    // itemsize.
    std::size_t checked_storage(Role::Name role, std::size_t i, const ArrayStruct& array) {
        const bool is_native = has_dtype(array, dtype(i));
        const Stored found = is_native ? Stored::native : narrow_storage(array);
        const bool has_one = is_native || found != Stored::native;
        const bool fits =
            role == Role::grads ? is_native || dtype(i).itemsize == sizeof(float) : found == kept_.params[i];
        if (!has_one || !fits) refuse_storage(role, i, array);
        if (role == Role::grads) narrow_grad_ = found;
        const Storage* storage = storage_of(found);
        return storage ? storage->itemsize : dtype(i).itemsize;
    }

    void check_strided(Role::Name role, std::size_t i, const ArrayStruct& array, bool is_written) {
        const Region elements = region(i, array, is_written);
        if (is_written) check_own_elements(role, i, elements);
        if (velocities_[i].size) call_.bounds.add(elements.span());
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

    [[noreturn]] void refuse_storage(Role::Name role, std::size_t i, const ArrayStruct& array) const {
        const Storage* narrow = storage_of(kept_.params[i]);
        const char* wanted = role != Role::grads && narrow ? narrow->name : dtype(i).name;
        const int number =
            role != Role::grads && narrow
                ? (kept_.params[i] == Stored::float16 ? float16_number : types_.bfloat16_number)
                : dtype(i).number;
        const std::string requirement = role == Role::params ? std::string(wanted) + ", as in init()"
                                        : role == Role::grads && narrow
                                            ? "float32, float16 or bfloat16"
                                            : std::string(wanted) + ", as " + name(Role::params, i) + " has";
        refuse_dtype(array, name(role, i), requirement, wanted, number, role != Role::grads);
    }

    [[noreturn]] void refuse_shape(Role::Name role, std::size_t i, const ArrayStruct& array) const {
        fast_momentum::refuse_shape(array, velocities_, i, name(role, i),
                                    role == Role::params ? "" : name(Role::params, i));
    }

    [[noreturn]] void refuse_misaligned(Role::Name role, std::size_t i, const ArrayStruct& array) const {
        throw py::value_error(
            name(role, i) + " must be aligned in memory, not at addresses that are no multiple of " +
            std::to_string(itemsize_in(i, array)) + copy_way_out(".copy()", role != Role::grads));
    }

    [[noreturn]] void refuse_read_only(Role::Name role, std::size_t i) const {
        throw py::value_error(name(role, i) + " must be writable, not read-only" +
                              copy_way_out(".copy()", true));
    }

    // All dtypes that are narrower than the one that is worked on in have two bytes.
    std::size_t itemsize_in(std::size_t i, const ArrayStruct& array) const {
        return has_dtype(array, dtype(i)) ? dtype(i).itemsize : sizeof(std::uint16_t);
    }

    Region region(std::size_t i, const ArrayStruct& array, bool is_written) const {
        return {array.data, itemsize_in(i, array), array.nd, array.dimensions, array.strides, is_written};
    }

    std::string name(Role::Name role, std::size_t i) const { return role_names[role] + tree_.path(i); }

    const Tree& tree_;
    const Kept& kept_;
    const Arrays& velocities_;
    const DtypeKernels* dtypes_;
    const NumpyTypes& types_;
    // Of the gradient that was checked last, until it is added: beside Memory, which small steps keep in
    // registers.
    Stored narrow_grad_ = Stored::native;
    Call& call_;
};

}  // namespace

void Call::clear() {
    params.clear();
    others.clear();
    work.clear();
    if (norm.bytes() > 0) norm.clear();
    if (!scalars.empty()) scalars.clear();
}

void find_numpy_types() {
    types_found = new NumpyTypes;
}

ParamDtypes checked_dtypes(const Tree& tree, const Leaves& params) {
    const Kernels& kernels = *isa_in_use().kernels;
    const DtypeKernels* rows = kernels.dtypes;
    ParamDtypes found;
    for (std::size_t i = 0; i < params.size(); ++i) {
        const auto path = [&] { return role_names[Role::params] + tree.path(i); };
        if (!numpy_types().is_array(params[i])) refuse_type(params[i], path(), true);
        const ArrayStruct& array = array_struct(params[i]);
        const auto* row = std::find_if(rows, rows + n_dtypes,
                                       [&](const DtypeKernels& dtype) { return has_dtype(array, dtype); });
        const Stored stored = narrow_storage(array);
        if (row == rows + n_dtypes && stored == Stored::native) refuse_param(array, path(), true);
        found.dtypes.push_back(stored == Stored::native ? static_cast<unsigned char>(row - rows) : 0);
        found.stored.push_back(stored);
    }
    return found;
}

void check_loaded(const Tree& tree, const Arrays& arrays, std::size_t i, py::handle array,
                  const std::string& path) {
    if (!numpy_types().is_array(array.ptr())) refuse_type(array, path, false);
    const ArrayStruct& given = array_struct(array.ptr());
    const DtypeKernels& dtype = arrays.dtype(i);
    const std::string model = role_names[Role::params] + tree.path(i);
    if (!has_dtype(given, dtype))
        refuse_dtype(given, path, std::string(dtype.name) + ", in which " + model + " is worked on",
                     dtype.name, dtype.number, false);
    if (!has_shape(given, arrays, i)) refuse_shape(given, arrays, i, path, model);
}

namespace {

// `whole`: whether there may be more to do than slices. A loop without it is a tenth shorter.
template <bool whole>
void check_arrays(Checker& checker, const Kept& kept, const Constants& constants,
                  const std::vector<unsigned char>& started, const Request& request, Call& call) {
    const bool plain = !whole || (kept.is_plain() && request.pass.is_plain());
    const bool zeroes_grads = whole && request.pass.zeroes_grads;
    const std::size_t n = kept.velocity.size();
    for (std::size_t i = 0; i < n; ++i) {
        const DtypeKernels& dtype = checker.dtype(i);
        const ArrayStruct& param = checker.written<whole>(Role::params, i, dtype, call.params[i]);
        PyObject* given = call.others[i];
        if (given == Py_None) {
            if (whole && request.pass.averages) checker.add_update(i, memory_of(param), {}, nullptr);
            continue;
        }
        const Memory grad = checker.gradient<whole>(i, dtype, given, zeroes_grads);
        const Coefficients* coefficients = constants.of(i, started[i]);
        if (whole && request.needs_norm) checker.add_to_norm(i, grad);
        if (plain && !checker.has_narrow_grad())
            checker.add_slice(i, memory_of(param), grad, checker.velocity_of(i), dtype.itemsize,
                              dtype.step[coefficients->variant], coefficients);
        else
            checker.add_update(i, memory_of(param), grad, coefficients);
    }
}

}  // namespace

void check_step(const Tree& tree, const Kept& kept, const Constants& constants,
                const std::vector<unsigned char>& started, const Request& request, Call& call) {
    call.work.access = {{true, true, true}, {true, false, true}};
    call.work.pass = request.pass;
    Checker checker(tree, kept, call);
    if (request.is_plain)
        check_arrays<false>(checker, kept, constants, started, request, call);
    else
        check_arrays<true>(checker, kept, constants, started, request, call);
    checker.check_overlap(Role::grads, request.pass.zeroes_grads, true);
}

void check_lookahead(const Tree& tree, const Kept& kept, const Constants& constants, Call& call) {
    Checker checker(tree, kept, call);
    call.work.access = {{false, true, true}, {true, false, false}};
    call.work.pass.task = Task::lookahead;
    const bool plain = kept.is_plain();
    for (std::size_t i = 0; i < kept.velocity.size(); ++i) {
        const DtypeKernels& dtype = checker.dtype(i);
        const Memory param = memory_of(checker.read<true>(Role::params, i, dtype, call.params[i]));
        const Memory point = memory_of(checker.written<true>(Role::out, i, dtype, call.others[i]));
        const Coefficients* coefficients = constants.of(i, true);
        if (plain)
            checker.add_slice(i, point, param, checker.velocity_of(i), dtype.itemsize, dtype.lookahead,
                              coefficients);
        else
            checker.add_update(i, param, point, coefficients);
    }
    checker.check_overlap(Role::out, true, false);
}

void check_swap(const Tree& tree, const Kept& kept, Call& call) {
    Checker checker(tree, kept, call);
    call.work.pass = {};
    call.work.pass.task = Task::swap_average;
    call.work.pass.averages = true;
    for (std::size_t i = 0; i < kept.velocity.size(); ++i)
        checker.add_update(
            i, memory_of(checker.written<true>(Role::params, i, checker.dtype(i), call.params[i])), {},
            nullptr);
    checker.check_overlap(Role::params, true, true);
}

py::object empty_like(const Kept& kept, std::size_t i, py::handle param) {
    if (kept.params[i] == Stored::native) return kept.velocity.empty(i);
    if (!numpy_types().is_array(param.ptr())) return py::none();
    return py::module_::import("numpy").attr("empty_like")(param);
}

void check_norm(const Tree& tree, const Leaves& grads, Norm& norm) {
    for (std::size_t i = 0; i < grads.size(); ++i) {
        if (grads[i] == Py_None) continue;
        const auto path = [&] { return role_names[Role::grads] + tree.path(i); };
        if (!numpy_types().is_array(grads[i])) refuse_type(grads[i], path(), false);
        const ArrayStruct& array = array_struct(grads[i]);
        const DtypeKernels* rows = isa_in_use().kernels->dtypes;
        const auto* row = std::find_if(rows, rows + n_dtypes,
                                       [&](const DtypeKernels& dtype) { return has_dtype(array, dtype); });
        const Stored stored = narrow_storage(array);
        if (row == rows + n_dtypes && stored == Stored::native) refuse_param(array, path(), false);
        if (!(array.flags & aligned))
            throw py::value_error(
                path() + " must be aligned in memory, not at addresses that are no multiple of " +
                std::to_string(stored == Stored::native ? row->itemsize : sizeof(std::uint16_t)) +
                copy_way_out(".copy()", false));
        std::size_t size = 1;
        for (int d = 0; d < array.nd; ++d) size *= static_cast<std::size_t>(array.dimensions[d]);
        norm.add({array.data, storage_of(stored), nullptr}, stored == Stored::native ? *row : rows[0], size,
                 array.flags & contiguous ? nullptr : array.strides, array.dimensions, array.nd);
    }
}

}  // namespace fast_momentum
