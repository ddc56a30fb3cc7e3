#include "python/rows.hpp"

#include <structmember.h>

#include <type_traits>

#include "python/messages.hpp"

namespace fast_momentum {

PyTypeObject* rows_type = nullptr;

namespace {

// ---- the object, which nothing can be changed of ----

PyObject* make(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    static const char* names[] = {"indices", "values", nullptr};
    PyObject *indices, *values;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Rows", const_cast<char**>(names), &indices, &values))
        return nullptr;
    auto* rows = reinterpret_cast<RowsObject*>(type->tp_alloc(type, 0));
    if (!rows) return nullptr;
    rows->indices = Py_NewRef(indices);
    rows->values = Py_NewRef(values);
    return reinterpret_cast<PyObject*>(rows);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(rows_of(self).indices);
    Py_VISIT(rows_of(self).values);
    return 0;
}

void deallocate(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, deallocate)  // which may hold others of its kind, a million deep
        Py_XDECREF(rows_of(self).indices);
    Py_XDECREF(rows_of(self).values);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

PyObject* repr(PyObject* self) {
    return PyUnicode_FromFormat("Rows(indices=%R, values=%R)", rows_of(self).indices, rows_of(self).values);
}

// For copies and pickles.
PyObject* reduce(PyObject* self, PyObject*) {
    return Py_BuildValue("O(OO)", Py_TYPE(self), rows_of(self).indices, rows_of(self).values);
}

PyMemberDef members[] = {
    {"indices", T_OBJECT_EX, offsetof(RowsObject, indices), READONLY, "Which rows, in any order."},
    {"values", T_OBJECT_EX, offsetof(RowsObject, values), READONLY, "The gradient of each of them."},
    {}};
PyMethodDef methods[] = {{"__reduce__", reduce, METH_NOARGS, "What to make another one of."}, {}};

// ---- indices ----

// Each is read once, as another thread may change it.
template <class T>
std::size_t copy_until_outside(const ArrayStruct& indices, std::size_t n_rows, Rows& rows) {
    const char* at = indices.data;
    for (std::size_t i = 0; i < rows.items.size(); ++i, at += indices.strides[0]) {
        const auto row = static_cast<std::uint64_t>(*reinterpret_cast<const volatile T*>(at));
        rows.items[i] = {row, i};
        if (row >= n_rows) return i;
    }
    return rows.items.size();
}

// Calls run(T()) for the type of these elements, by numpy.dtype.num; false where they are no integers.
template <class Run>
bool with_integer(int number, const Run& run) {
    switch (number) {
        case 1:
            return run(static_cast<signed char>(0)), true;
        case 2:
            return run(static_cast<unsigned char>(0)), true;
        case 3:
            return run(static_cast<short>(0)), true;
        case 4:
            return run(static_cast<unsigned short>(0)), true;
        case 5:
            return run(0), true;
        case 6:
            return run(0u), true;
        case 7:
            return run(0l), true;
        case 8:
            return run(0ul), true;
        case 9:
            return run(0ll), true;
        case 10:
            return run(0ull), true;
        default:
            return false;
    }
}

constexpr int bool_number = 0;

}  // namespace

void def_rows(py::module_& m, const char* doc) {
    static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(make)},
                                  {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                                  {Py_tp_repr, reinterpret_cast<void*>(repr)},
                                  {Py_tp_members, members},
                                  {Py_tp_methods, methods},
                                  {Py_tp_doc, const_cast<char*>(doc)},
                                  {0, nullptr}};
    static PyType_Spec spec = {"fast_momentum.Rows", sizeof(RowsObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, slots};
    const py::object type = owned(PyType_FromSpec(&spec));
    m.attr("Rows") = type;
    rows_type = reinterpret_cast<PyTypeObject*>(type.ptr());
}

std::size_t check_indices(PyObject* indices, const PathOf& path) {
    if (!numpy_types().is_array(indices)) refuse_type(indices, path(), false);
    const ArrayStruct& array = array_struct(indices);
    if (array.nd != 1)
        throw py::value_error(path() + " must have one dimension, not " + std::to_string(array.nd) +
                              "; pass .ravel(), with values of as many rows");
    const int number = dtype_number(array);
    std::size_t itemsize = 0;
    if (!with_integer(number, [&](auto integer) { itemsize = sizeof integer; }))
        throw py::type_error(path() + " must have an integer dtype, not " + dtype_text(array) +
                             (number == bool_number ? "; numpy.flatnonzero() gives the rows of a mask" : ""));
    if (!is_native(py::detail::array_descriptor_proxy(array.descr)->byteorder))
        throw py::type_error(path() + " must be in native byte order, not " + dtype_text(array) +
                             copy_way_out(".astype('int64')", false));
    if (!(array.flags & aligned)) refuse_misaligned(path(), itemsize, false);
    return static_cast<std::size_t>(array.dimensions[0]);
}

void read_indices(PyObject* indices, std::size_t n_rows, Rows& rows, const PathOf& path,
                  const PathOf& param) {
    const ArrayStruct& array = array_struct(indices);
    with_integer(dtype_number(array), [&](auto integer) {
        using T = decltype(integer);
        const std::size_t outside = copy_until_outside<T>(array, n_rows, rows);
        if (outside == rows.items.size()) return;
        const auto index = static_cast<T>(rows.items[outside].row);
        const bool is_negative = std::is_signed_v<T> && index < T(0);
        throw py::value_error(path() + " must be below " + std::to_string(n_rows) +
                              ", the number of rows of " + param() + ", and not negative, not " +
                              std::to_string(index) + " at position " + std::to_string(outside) +
                              (is_negative ? "; add that number to count from the end" : ""));
    });
}

}  // namespace fast_momentum
