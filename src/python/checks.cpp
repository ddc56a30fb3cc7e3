#include "python/checks.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "plain/isa.hpp"
#include "plain/row_steps.hpp"
#include "python/disjoint.hpp"
#include "python/messages.hpp"
#include "python/rows.hpp"

namespace fast_momentum {

namespace {

// Of one array, as the operand of a slice.
struct Memory {
    char* data;
    const std::ptrdiff_t* strides;
    int contiguity;
};

INLINED Memory memory_of(const ArrayStruct& array) {
    return {array.data, array.strides, array.flags & contiguous};
}

// Checks the arrays of one call one by one. From the first to the last no Python code runs but to say what is
// wrong: it could free the memory of those that have been checked. `whole`: parameters may be narrow; the
// code without that is shorter. Inlined where ten thousand arrays make ten thousand calls; what refuses is
// not.
class Checker {
  public:
    Checker(const Kept& kept, Call& call)
        : kept_(kept),
          model_(kept.model()),
          dtypes_(isa_in_use().kernels->dtypes),
          types_(numpy_types()),
          call_(call) {
        constexpr std::size_t roles = 2;
        call.bounds.begin(roles * model_.size() + kept.made.size());
    }

    bool is_array(PyObject* object) const { return types_.is_array(object); }
    const DtypeKernels& dtype(std::size_t i) const { return dtypes_[unsigned(model_[i].dtype)]; }

    // `stored` becomes as what it is stored.
    template <bool is_written, bool whole>
    INLINED const ArrayStruct& checked(Role role, std::size_t i, const DtypeKernels& dtype, PyObject* object,
                                       Stored& stored) {
        if (!types_.is_array(object)) refuse_type(object, name(role, i), role != Role::grads || is_written);
        const ArrayStruct& array = array_struct(object);
        std::size_t itemsize = dtype.itemsize;
        if ((whole && kept_.params.stored[i] != Stored::native) || !has_dtype(array, dtype))
            itemsize = checked_storage(role, i, array, stored);
        if (!has_shape(array, model_, i)) refuse_shape(role, i, array);
        if (!(array.flags & aligned)) refuse_misaligned(name(role, i), itemsize, role != Role::grads);
        if (is_written && !(array.flags & writeable)) refuse_read_only(name(role, i));
        const std::size_t bytes = model_[i].size * itemsize;
        if (!(array.flags & contiguous))
            check_strided(role, i, object, is_written);
        else if (bytes)
            call_.bounds.add({reinterpret_cast<std::uintptr_t>(array.data), bytes, is_written});
        return array;
    }

    // It is zeroed afterwards if `is_written`.
    template <bool whole>
    INLINED Memory gradient(std::size_t i, const DtypeKernels& dtype, PyObject* object, bool is_written,
                            Stored& stored) {
        if (whole && is_written) return memory_of(checked<true, true>(Role::grads, i, dtype, object, stored));
        return memory_of(checked<false, whole>(Role::grads, i, dtype, object, stored));
    }

    // A gradient may be a NumPy scalar where the parameter is 0-d: operations on 0-d arrays return scalars.
    OUTLINED Memory scalar_gradient(std::size_t i, PyObject* object) {
        const bool is_written = call_.work.pass.zeroes_grads;
        if (is_written || model_[i].ndim > 0 || !types_.is_scalar(object))
            refuse_type(object, name(Role::grads, i), is_written);
        call_.has_rest = true;
        const py::object descr = dtype_of_scalar(object);
        const int number = py::detail::array_descriptor_proxy(descr.ptr())->type_num;
        if (number == dtype(i).number && dtype(i).reals > 1) {
            void* data = &call_.scalars.emplace_back();
            copy_of_scalar(object, descr.ptr(), data, dtype(i).reals * dtype(i).itemsize);
            return {static_cast<char*>(data), nullptr, contiguous};
        }
        if (number == dtype(i).number && dtype(i).itemsize == sizeof(double))
            return scalar(value_of_scalar(object, descr.ptr()));
        if (dtype(i).place == Dtype::float32 &&
            (number == dtype(i).number || number == float16_number || types_.is_bfloat16(descr.ptr())))
            return scalar(static_cast<float>(value_of_scalar(object, descr.ptr())));
        throw py::type_error(name(Role::grads, i) + " must be a numpy." + dtype(i).name +
                             " or a 0-d array of that, as " + name(Role::params, i) + " is, not " +
                             type_name(object));
    }

    Memory velocity_of(std::size_t i) const {
        return {model_.data(i), model_.strides(i), model_[i].contiguity};
    }

    INLINED void add_slice(std::size_t i, Memory first, Memory second, Memory third, std::size_t itemsize,
                           Kernel kernel, const Coefficients* coefficients) {
        const Slice slice = {{first.data, second.data, third.data},
                             model_[i].size,
                             kernel,
                             coefficients,
                             static_cast<unsigned>(itemsize)};
        if (first.contiguity & second.contiguity & third.contiguity)
            call_.work.add_dense(slice);
        else
            add_strided(i, slice, first, second, third);
    }

    OUTLINED void add_strided(std::size_t i, const Slice& slice, Memory first, Memory second, Memory third) {
        call_.work.add_strided(slice,
                               {in_reals(i, first.strides), in_reals(i, second.strides), third.strides},
                               model_.shape(i), model_[i].n_axes);
    }

    // `partner`: the gradient, or what lookahead() writes; none where its data is nullptr.
    void add_update(std::size_t i, Memory param, Memory partner, Stored partner_stored,
                    const Coefficients* coefficients) {
        const Update update = update_of(i, param, partner, partner_stored, coefficients);
        if (!partner.data) partner = param;
        const bool dense = (param.contiguity & partner.contiguity & model_[i].contiguity) != 0;
        call_.work.add_update(update,
                              {dense ? nullptr : in_reals(i, param.strides), in_reals(i, partner.strides)},
                              model_.strides(i), model_.shape(i), model_[i].n_axes);
    }

    void add_to_norm(std::size_t i, Memory grad, Stored stored) {
        call_.has_rest = true;
        call_.norm.add({grad.data, storage_of(stored), nullptr}, dtype(i), model_[i].size,
                       grad.contiguity ? nullptr : in_reals(i, grad.strides), model_.shape(i),
                       model_[i].n_axes);
    }

    // A gradient of some rows, which are sorted and, if that is asked for, added up before anything is
    // written. Apart, as what it needs would be made room for in each call.
    OUTLINED void add_rows(std::size_t i, Memory param, const RowsObject& given,
                           const Coefficients* coefficients) {
        check_takes_rows(i);
        call_.has_rest = true;
        const auto path = [&] { return name(Role::grads, i) + ".indices"; };
        const std::size_t n = check_indices(given.indices, path);
        Stored stored = Stored::native;
        const ArrayStruct& values = checked_values(i, n, given.values, stored);
        const std::ptrdiff_t* shape = model_.shape(i);
        const auto n_rows = static_cast<std::size_t>(shape[0]);
        const std::size_t row_elements = n_rows > 0 ? model_[i].size / n_rows : 0;
        auto read = std::make_unique<Rows>(n, row_elements);
        read_indices(given.indices, n_rows, *read, path, [&] { return name(Role::params, i); });
        if (n * row_elements == 0) return;
        read->sort(n_rows);
        Rows& rows = *call_.work.rows.emplace_back(std::move(read));
        Update update = update_of(i, param, memory_of(values), stored, coefficients);
        update.n = rows.n_distinct() * row_elements;
        update.rows = &rows;
        call_.work.add_rows(update, {in_reals(i, param.strides), in_reals(i, values.strides)},
                            model_.strides(i), shape, model_[i].n_axes);
        if (!call_.work.pass.looks_first()) return;
        add_up(call_.work, call_.work.updates.back(), rows);
        call_.norm.add({reinterpret_cast<char*>(rows.sums.data()), nullptr, nullptr}, dtype(i), update.n,
                       nullptr, nullptr, 0);
    }

    // No array that is written may share memory with another one. Nearly always their bounds tell.
    void check_overlap(Role partner, const Written& written) {
        for (const Slot::Name slot : kept_.made)
            call_.bounds.add(kept_.slots[slot]->span(written.slot(slot)));
        if (call_.bounds.meet()) check_disjoint(kept_, call_.params, call_.partners, partner, written);
    }

  private:
    // Strides of an array of the user's, which has one for each element.
    const std::ptrdiff_t* in_reals(std::size_t i, const std::ptrdiff_t* strides) {
        if (!strides || dtype(i).reals == 1) return strides;
        call_.has_rest = true;
        auto& longer = call_.strides.emplace_back(strides, strides + model_[i].ndim);
        longer.push_back(static_cast<std::ptrdiff_t>(dtype(i).itemsize));
        return longer.data();
    }

    Update update_of(std::size_t i, Memory param, Memory partner, Stored partner_stored,
                     const Coefficients* coefficients) const {
        Update update{};
        update.dtype = &dtype(i);
        update.coefficients = coefficients;
        update.n = model_[i].size;
        update.param = {param.data, storage_of(kept_.params.stored[i]), nullptr};
        update.partner = {partner.data, storage_of(partner_stored), nullptr};
        update.slots = kept_.operands(i);
        if (!call_.candidates.empty()) update.candidate = call_.candidates[i];
        return update;
    }

    void check_takes_rows(std::size_t i) const {
        const auto refuse = [&](const char* where) { refuse_rows(name(Role::grads, i), where); };
        if (model_[i].ndim == 0) refuse("or a scalar for a parameter without dimensions");
        const Storage* velocity = kept_.operands(i)[Slot::velocity].storage;
        if (velocity && velocity->has_scales)
            refuse("where velocities are stored as int8, as elements of several rows share a scale");
        if (kept_.has(Slot::iterate, i))
            refuse("for the rule accelerated, whose parameters all move at each step");
        if (kept_.has(Slot::compensation, i))
            refuse(
                "with compensated=True, as what rounding took from a row would wait for its next gradient");
        if (call_.work.pass.averages())
            refuse("while average_decay is set, as the average of each row moves at each step");
    }

    // The gradients of n rows.
    const ArrayStruct& checked_values(std::size_t i, std::size_t n, PyObject* object, Stored& stored) {
        const auto path = [&] { return name(Role::values, i); };
        const bool is_written = call_.work.pass.zeroes_grads;
        if (!types_.is_array(object)) refuse_type(object, path(), is_written);
        const ArrayStruct& array = array_struct(object);
        const std::size_t itemsize = checked_storage(Role::values, i, array, stored);
        const std::ptrdiff_t* shape = model_.shape(i);
        if (array.nd != model_[i].ndim || array.dimensions[0] != static_cast<std::ptrdiff_t>(n) ||
            !std::equal(shape + 1, shape + array.nd, array.dimensions + 1)) {
            std::vector<std::ptrdiff_t> wanted(shape, shape + model_[i].ndim);
            wanted[0] = static_cast<std::ptrdiff_t>(n);
            throw py::value_error(path() + " must have the shape of the rows of " + name(Role::params, i) +
                                  " at .indices, " + shape_text(wanted.data(), model_[i].ndim) + ", not " +
                                  shape_text(array.dimensions, array.nd));
        }
        if (!(array.flags & aligned)) refuse_misaligned(path(), itemsize, is_written);
        if (is_written && !(array.flags & writeable)) refuse_read_only(path());
        const Region elements = region_of(object, dtype(i), is_written);
        if (is_written && !(array.flags & contiguous)) check_own_elements(elements, path());
        if (!elements.empty()) call_.bounds.add(elements.span());
        return array;
    }

    template <class T>
    Memory scalar(T value) {
        char* data = reinterpret_cast<char*>(&call_.scalars.emplace_back());
        std::memcpy(data, &value, sizeof value);
        return {data, nullptr, contiguous};
    }

    // Gradients that are worked on in float32 may be stored in another way than the parameters. Returns the
    // itemsize.
    std::size_t checked_storage(Role role, std::size_t i, const ArrayStruct& array, Stored& stored) const {
        const bool as_worked_on = has_dtype(array, dtype(i));
        stored = as_worked_on ? Stored::native : narrow_storage(array);
        const bool is_one = as_worked_on || stored != Stored::native;
        const bool fits = is_gradient(role) ? as_worked_on || dtype(i).place == Dtype::float32
                                            : stored == kept_.params.stored[i];
        if (!is_one || !fits) refuse_storage(role, i, array);
        return Found{&dtype(i), stored}.itemsize();
    }

    void check_strided(Role role, std::size_t i, PyObject* array, bool is_written) {
        const Region elements = region_of(array, dtype(i), is_written);
        if (is_written) check_own_elements(elements, name(role, i));
        if (model_[i].size) call_.bounds.add(elements.span());
    }

    [[noreturn]] void refuse_storage(Role role, std::size_t i, const ArrayStruct& array) const {
        const Storage* narrow = storage_of(kept_.params.stored[i]);
        const char* wanted = !is_gradient(role) && narrow ? narrow->name : dtype(i).name;
        const int number =
            !is_gradient(role) && narrow
                ? (kept_.params.stored[i] == Stored::float16 ? float16_number : types_.bfloat16_number.load())
                : dtype(i).number;
        const std::string requirement = role == Role::params ? std::string(wanted) + ", as in init()"
                                        : is_gradient(role) && narrow
                                            ? "float32, float16 or bfloat16"
                                            : std::string(wanted) + ", as " + name(Role::params, i) + " has";
        refuse_dtype(array, name(role, i), requirement, wanted, number, !is_gradient(role));
    }

    [[noreturn]] void refuse_shape(Role role, std::size_t i, const ArrayStruct& array) const {
        fast_momentum::refuse_shape(array, model_, i, name(role, i),
                                    role == Role::params ? "" : name(Role::params, i));
    }

    std::string name(Role role, std::size_t i) const {
        return name_of(role) + kept_.params.tree.path(i) + part_of(role);
    }

    const Kept& kept_;
    const Arrays& model_;
    const DtypeKernels* dtypes_;
    const NumpyTypes& types_;
    Call& call_;
};

// `whole`: whether there may be more to do than slices. A loop without it is a tenth shorter.
template <bool whole>
void check_arrays(Checker& checker, const Kept& kept, const Constants& constants,
                  const std::vector<long long>& steps, const Plan& plan, Call& call) {
    const Pass& pass = call.work.pass;
    const std::size_t n = kept.size();
    for (std::size_t i = 0; i < n; ++i) {
        const DtypeKernels& dtype = checker.dtype(i);
        Stored stored = Stored::native;
        const ArrayStruct& param =
            checker.checked<true, whole>(Role::params, i, dtype, call.params[i], stored);
        const Coefficients* coefficients = constants.of(i, steps[i]);
        PyObject* given = call.partners[i];
        const bool is_array = checker.is_array(given);
        if (!is_array) {
            if (given == Py_None) {
                if (whole && pass.averages())
                    checker.add_update(i, memory_of(param), {}, Stored::native, nullptr);
                continue;
            }
            if (is_rows(given)) {
                checker.add_rows(i, memory_of(param), rows_of(given), coefficients);
                continue;
            }
        }
        stored = Stored::native;
        const Memory grad = is_array
                                ? checker.gradient<whole>(i, dtype, given, whole && pass.zeroes_grads, stored)
                                : checker.scalar_gradient(i, given);
        if (whole && pass.looks_first()) checker.add_to_norm(i, grad, stored);
        if ((!whole || plan.slices) && stored == Stored::native)
            checker.add_slice(i, memory_of(param), grad, checker.velocity_of(i), dtype.itemsize,
                              dtype.step[coefficients->variant], coefficients);
        else
            checker.add_update(i, memory_of(param), grad, stored, coefficients);
    }
}

// Of `object`, which must be an array that can be worked on; path() says where it is.
template <class Path>
Found found_dtype(PyObject* object, const Path& path, bool is_written) {
    if (!numpy_types().is_array(object)) refuse_type(object, path(), is_written);
    const ArrayStruct& array = array_struct(object);
    for (const DtypeKernels& dtype : isa_in_use().kernels->dtypes)
        if (has_dtype(array, dtype)) return {&dtype, Stored::native};
    const Stored stored = narrow_storage(array);
    if (stored == Stored::native) refuse_param(array, path(), is_written);
    return {&dtype_kernels(Dtype::float32), stored};
}

}  // namespace

void Call::clear() {
    params.clear();
    partners.clear();
    work.clear();
    if (!has_rest) return;
    norm.clear();
    scalars.clear();
    strides.clear();
    has_rest = false;
}

Params checked_params(Tree tree, const Leaves& leaves) {
    Params params = {std::move(tree), {}, {}, {}, false};
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        const Found found = found_dtype(leaves[i], [&] { return "params" + params.tree.path(i); }, true);
        params.dtypes.push_back(found.dtype->place);
        params.stored.push_back(found.stored);
        params.axes.push_back(axes_of(array_struct(leaves[i]).strides, array_struct(leaves[i]).nd));
    }
    return params;
}

void check_loaded(const Tree& tree, const Arrays& arrays, std::size_t i, py::handle array,
                  const std::string& path) {
    if (!numpy_types().is_array(array.ptr())) refuse_type(array, path, false);
    const ArrayStruct& given = array_struct(array.ptr());
    const DtypeKernels& dtype = arrays.dtype(i);
    const std::string model = "params" + tree.path(i);
    if (!has_dtype(given, dtype))
        refuse_dtype(given, path, std::string(dtype.name) + ", in which " + model + " is worked on",
                     dtype.name, dtype.number, false);
    if (!has_shape(given, arrays, i)) refuse_shape(given, arrays, i, path, model);
}

void check_step(const Kept& kept, const Constants& constants, const std::vector<long long>& steps,
                const Plan& plan, Call& call) {
    call.work.access = {{true, true, true}, {true, false, true}};
    Checker checker(kept, call);
    if (plan.plain)
        check_arrays<false>(checker, kept, constants, steps, plan, call);
    else
        check_arrays<true>(checker, kept, constants, steps, plan, call);
    const Pass& pass = call.work.pass;
    checker.check_overlap(Role::grads, {true, pass.zeroes_grads, true, pass.averages()});
}

void check_lookahead(const Kept& kept, const Constants& constants, Call& call) {
    Checker checker(kept, call);
    call.work.access = {{false, true, true}, {true, false, false}};
    const Plan plan(kept, call.work.pass);
    for (std::size_t i = 0; i < kept.size(); ++i) {
        const DtypeKernels& dtype = checker.dtype(i);
        Stored stored = Stored::native;
        const Memory param =
            memory_of(checker.checked<false, true>(Role::params, i, dtype, call.params[i], stored));
        const Memory point =
            memory_of(checker.checked<true, true>(Role::out, i, dtype, call.partners[i], stored));
        const Coefficients* coefficients = constants.of(i, true);
        if (plan.slices)
            checker.add_slice(i, point, param, checker.velocity_of(i), dtype.itemsize, dtype.lookahead,
                              coefficients);
        else
            checker.add_update(i, param, point, kept.params.stored[i], coefficients);
    }
    checker.check_overlap(Role::out, {false, true, false, false});
}

template <bool written>
void check_params(Checker& checker, const Kept& kept, const Call& call) {
    for (std::size_t i = 0; i < kept.size(); ++i) {
        Stored stored = Stored::native;
        const ArrayStruct& param =
            checker.checked<written, true>(Role::params, i, checker.dtype(i), call.params[i], stored);
        checker.add_update(i, memory_of(param), {}, Stored::native, nullptr);
    }
}

void check_params(const Kept& kept, Call& call, bool written) {
    Checker checker(kept, call);
    if (!written) return check_params<false>(checker, kept, call);
    check_params<true>(checker, kept, call);
    checker.check_overlap(Role::params, {true, false, true, true});
}

py::object empty_like(const Kept& kept, std::size_t i, py::handle param) {
    if (kept.params.stored[i] == Stored::native && !kept.params.kept_elsewhere) return kept.model().empty(i);
    if (!numpy_types().is_array(param.ptr())) return py::none();
    return py::module_::import("numpy").attr("empty_like")(param);
}

void check_norm(const Tree& tree, const Leaves& grads, Norm& norm) {
    for (std::size_t i = 0; i < grads.size(); ++i) {
        if (grads[i] == Py_None) continue;
        const auto path = [&] { return "grads" + tree.path(i); };
        const Found found = found_dtype(grads[i], path, false);
        const ArrayStruct& array = array_struct(grads[i]);
        if (!(array.flags & aligned)) refuse_misaligned(path(), found.itemsize(), false);
        const std::vector<std::ptrdiff_t> strides = strides_in_reals(array, *found.dtype),
                                          shape = shape_in_reals(array, *found.dtype);
        std::size_t size = 1;
        for (const std::ptrdiff_t length : shape) size *= static_cast<std::size_t>(length);
        norm.add({array.data, storage_of(found.stored), nullptr}, *found.dtype, size,
                 array.flags & contiguous ? nullptr : strides.data(), shape.data(),
                 static_cast<int>(shape.size()));
    }
}

}  // namespace fast_momentum
