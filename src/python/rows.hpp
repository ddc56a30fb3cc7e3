// Gradients of some rows: the object of Python, and what its indices must be.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <string>

#include "plain/rows.hpp"

namespace fast_momentum {

namespace py = pybind11;

struct RowsObject {
    PyObject ob_base;
    PyObject *indices, *values;
};

// Made at the import.
extern PyTypeObject* rows_type;
void def_rows(py::module_& m, const char* doc);

inline bool is_rows(PyObject* object) {
    return Py_TYPE(object) == rows_type;
}
inline const RowsObject& rows_of(PyObject* object) {
    return *reinterpret_cast<RowsObject*>(object);
}

using PathOf = std::function<std::string()>;

// How many there are of them; throws where they are not what indices must be. No index is looked at.
std::size_t check_indices(PyObject* indices, const PathOf& path);
// Copies them into the items of `rows`, each a row of an array of so many, which is param() in messages.
void read_indices(PyObject* indices, std::size_t n_rows, Rows& rows, const PathOf& path, const PathOf& param);

}  // namespace fast_momentum
