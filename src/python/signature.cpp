#include "python/signature.hpp"

#include <utility>

#include "python/tree.hpp"

namespace fast_momentum {

Signature::Signature(std::string name, const std::string& doc, std::vector<Parameter> parameters)
    : name_(std::move(name)), line_(doc.substr(0, doc.find('\n'))), parameters_(std::move(parameters)) {}

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
    if (!is_good || n_used != args.size() + kwargs.size()) refuse_call(name_, line_, args.size(), kwargs);
    return found;
}

void refuse_call(const std::string& name, const std::string& line, std::size_t n_positional,
                 py::handle keywords) {
    std::string text;
    for (const py::handle keyword : keywords) text += (text.empty() ? " and " : ", ") + text_of(keyword);
    throw py::type_error(name + "() must be called as " + line + ", not with " +
                         std::to_string(n_positional) + " positional argument" +
                         (n_positional == 1 ? "" : "s") + (text.empty() ? " and no keyword" : text));
}

}  // namespace fast_momentum
