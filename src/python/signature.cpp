#include "python/signature.hpp"

#include "python/ending.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

Arguments Signature::bound(const py::args& args, const py::kwargs& kwargs) const {
    Arguments found;
    std::size_t n_used = 0;
    bool is_good = true;
    for (const Parameter& parameter : parameters_) {
        PyObject* named = PyDict_GetItemWithError(kwargs.ptr(), parameter.name.ptr());
        if (PyErr_Occurred()) throw py::error_already_set();
        const bool is_placed = parameter.is_positional && found.size() < args.size();
        is_good = is_good && (is_placed ? !named : named || parameter.otherwise);
        n_used += is_placed || named;
        found.push_back(is_placed ? py::object(args[found.size()])
                        : named   ? py::reinterpret_borrow<py::object>(named)
                                  : parameter.otherwise);
    }
    if (!is_good || n_used != args.size() + kwargs.size())
        refuse_call(name_, parameters_, args.size(), kwargs);
    return found;
}

void refuse_call(const std::string& name, const std::vector<Parameter>& parameters, std::size_t n_placed,
                 const py::kwargs& keywords) {
    py::list names, required;
    std::size_t places = 0;
    for (const Parameter& parameter : parameters) {
        names.append(parameter.name);
        if (!parameter.otherwise) required.append(parameter.name);
        places += parameter.is_positional;
    }
    const py::object message = py::module_::import("fast_momentum._keywords").attr("message");
    throw py::type_error(text_of(
        called(message, py::make_tuple(name, py::list(keywords), n_placed, names, required, places))));
}

}  // namespace fast_momentum
