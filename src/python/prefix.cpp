#include "python/prefix.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "plain/isa.hpp"
#include "plain/limits.hpp"
#include "python/numpy_types.hpp"

namespace fast_momentum {

namespace {

// Of a NumPy scalar or a 0-d array of integers or reals; nothing, if it is neither.
std::optional<double> numpy_number(py::handle value) {
    const NumpyTypes& types = numpy_types();
    py::object scalar = py::reinterpret_borrow<py::object>(value);
    if (py::type::handle_of(value).is(types.ndarray) && array_struct(value.ptr()).nd == 0)
        scalar = value[py::tuple()];
    if (!types.is_scalar(scalar.ptr())) return std::nullopt;
    const py::object descr = dtype_of_scalar(scalar.ptr());
    const char kind = py::detail::array_descriptor_proxy(descr.ptr())->kind;
    if (kind != 'f' && kind != 'i' && kind != 'u') return std::nullopt;
    return value_of_scalar(scalar.ptr(), descr.ptr());
}

std::string number_text(py::handle value, const char* way_out) {
    if (type_name(value) != "numpy.ndarray") return type_name(value);
    if (value.attr("ndim").cast<int>() == 0)
        return "numpy.ndarray of dtype " + text_of(py::str(value.attr("dtype")));
    return "numpy.ndarray of shape " + repr_of(value.attr("shape")) + way_out;
}

// "lr_outside has", the forms of a rule that take a setting.
std::string takers(const Rule& rule, const Setting& setting) {
    std::string names;
    unsigned n = 0;
    for (const Rule& form : all_rules())
        if (std::string(form.name) == rule.name && form.takes_setting(setting.place))
            names += (n++ ? ", " : "") + std::string(form.form);
    return names + (n == 1 ? " has" : " have");
}

[[noreturn]] void refuse_kind(const Tree::Node& node, py::handle value, const Path& path) {
    const char* kinds[] = {"number: there is one array here", "number, list or tuple", "number or dict"};
    throw py::type_error(path.str() + " must be a " + kinds[node.kind] + ", as in params, not " +
                         type_name(value));
}

struct PrefixReader {
    const Setting& setting;
    const Rule& rule;
    const Params& params;
    std::vector<double>& numbers;

    py::object read(const Tree::Node& node, py::handle value, const Path& path) {
        PyObject* object = value.ptr();
        if (is_sequence(value)) return read_sequence(node, value, path);
        if (!PyFloat_Check(object))
            if (const py::object items = as_dict(value)) return read_mapping(node, items, path);
        const bool is_none = setting.kind == Kind::bound && value.is_none();
        const double x = is_none ? none : in_range(value, path);
        for (std::size_t i = node.first_leaf; i < node.first_leaf + node.n_leaves; ++i) {
            numbers[i] = x;
            if (is_none) continue;
            if (i == node.first_leaf || params.dtypes[i] != params.dtypes[i - 1] ||
                params.stored[i] != params.stored[i - 1])
                check_rounded(x, path, i);
        }
        return is_none ? py::object(py::none()) : py::float_(x);
    }

    py::object read_sequence(const Tree::Node& node, py::handle value, const Path& path) {
        if (node.kind != Tree::Node::sequence) refuse_kind(node, value, path);
        const auto items = PyList_Check(value.ptr()) ? py::tuple(owned(PyList_AsTuple(value.ptr())))
                                                     : py::reinterpret_borrow<py::tuple>(value);
        check_length(node, items, path, "params");
        py::list read_items;
        node.each([&](std::size_t i, const Tree::Node& child) {
            read_items.append(read(child, items[i], path.item(i)));
        });
        return py::tuple(read_items);
    }

    py::object read_mapping(const Tree::Node& node, py::handle value, const Path& path) {
        if (node.kind != Tree::Node::mapping) refuse_kind(node, value, path);
        check_keys(node, value, path, "params");
        py::dict read_items;
        node.each([&](std::size_t i, const Tree::Node& child) {
            const py::object& key = node.keys[i];
            const py::object held = item_at(node, i, value, path, "params");
            read_items[key] = read(child, held, path.item(key.ptr()));
        });
        return owned(PyDictProxy_New(read_items.ptr()));
    }

    double in_range(py::handle value, const Path& path) const {
        const double x =
            checked_real(value, path, "; for a number per array, pass a list or dict like params");
        if (!setting.range.contains(x))
            throw py::value_error(path.str() + " must " + setting.range.requirement + ", not " +
                                  repr_of(py::float_(x)));
        if (x != 0 && !rule.takes_setting(setting.place))
            refuse_in_form(setting, rule, path.str(), "be 0", repr_of(py::float_(x)));
        return x;
    }

    // What a value must still be after it was rounded to the dtype of array i.
    void check_rounded(double x, const Path& path, std::size_t i) const {
        const DtypeKernels& dtype = dtype_kernels(params.dtypes[i]);
        if (const char* requirement = missed_rounding(setting.range, x, dtype))
            throw py::value_error(path.str() + " must " + requirement + " when rounded to " +
                                  params.worked_in(i) + ", not be " + repr_of(py::float_(x)) +
                                  "; use a float64 array or another value");
        if (setting.kind == Kind::bound && std::isfinite(x) && !std::isfinite(as_stored(x, i)))
            throw py::value_error(path.str() + " must stay finite when rounded to " +
                                  storage_of(params.stored[i])->name + ", the dtype of params" +
                                  params.tree.path(i) + ", not be " + repr_of(py::float_(x)) +
                                  "; use a float32 array or another value");
    }

    // What array i has of a parameter with this value, if it has fewer bits than are worked on.
    float as_stored(double x, std::size_t i) const {
        const Storage* storage = storage_of(params.stored[i]);
        float value = static_cast<float>(x);
        alignas(8) char memory[sizeof(double)];
        if (!storage) return 0;
        storage->store(memory, nullptr, &value, 1);
        storage->load(&value, memory, nullptr, 1);
        return value;
    }
};

}  // namespace

py::object read_prefix(const Setting& setting, const Rule& rule, py::handle value, const Params& params,
                       std::vector<double>& numbers) {
    numbers.assign(params.tree.n_leaves(), 0);
    PrefixReader reader{setting, rule, params, numbers};
    return reader.read(params.tree.root(), value, Path::of(setting.name));
}

double checked_real(py::handle value, const Path& path, const char* way_out) {
    PyObject* object = value.ptr();
    if (PyFloat_Check(object)) return PyFloat_AS_DOUBLE(object);
    if (const std::optional<double> number = numpy_number(value)) return *number;
    if (PyBool_Check(object) || !PyLong_Check(object))
        throw py::type_error(path.str() + " must be a real number, not " + number_text(value, way_out));
    const double converted = PyLong_AsDouble(object);
    if (converted == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw py::error_already_set();
        PyErr_Clear();
        throw py::value_error(path.str() + " must be a number that a float can hold, not one so large");
    }
    return converted;
}

bool checked_flag(const std::string& name, py::handle value) {
    if (value.ptr() == Py_True) return true;
    if (value.ptr() == Py_False) return false;
    if (py::type::handle_of(value).is(py::module_::import("numpy").attr("bool_"))) return value.cast<bool>();
    throw py::type_error(name + " must be True or False, not " + type_name(value));
}

long long checked_count(const std::string& name, py::handle value, long long least) {
    if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr()))
        throw py::type_error(name + " must be an integer, not " + type_name(value));
    const py::object index = owned(PyNumber_Index(value.ptr()));
    int overflow = 0;
    const long long count = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow != 0 || count < least || count >= most_count)
        throw py::value_error(name + " must be at least " + std::to_string(least) + " and below 2**62, not " +
                              (overflow < 0   ? "far below"
                               : overflow > 0 ? "far above"
                                              : std::to_string(count)));
    return count;
}

std::string quoted(const std::vector<const char*>& names) {
    std::string all;
    for (const char* name : names) all += (all.empty() ? "'" : ", '") + std::string(name) + "'";
    return all;
}

unsigned checked_name(const char* what, py::handle value, const std::vector<const char*>& names) {
    if (!py::isinstance<py::str>(value))
        throw py::type_error(std::string(what) + " must be a string, not " + type_name(value));
    const auto found = std::find(names.begin(), names.end(), text_of(value));
    if (found != names.end()) return static_cast<unsigned>(found - names.begin());
    throw py::value_error(std::string(what) + " must be one of " + quoted(names) + ", not " + brief(value));
}

void refuse_in_form(const Setting& setting, const Rule& rule, const std::string& path,
                    const std::string& requirement, const std::string& given) {
    throw py::value_error(path + " must " + requirement + " in the form " + rule.form + ", not " + given +
                          "; only " + takers(rule, setting) + " " + setting.name);
}

py::object plain(py::handle value) {
    if (py::isinstance<py::tuple>(value)) {
        py::list items;
        for (const py::handle item : value) items.append(plain(item));
        return py::tuple(items);
    }
    if (Py_TYPE(value.ptr()) == &PyDictProxy_Type) {
        py::dict items;
        for (const py::handle key : value) items[key] = plain(value[key]);
        return items;
    }
    return py::reinterpret_borrow<py::object>(value);
}

}  // namespace fast_momentum
