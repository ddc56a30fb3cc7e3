#include "python/numpy_types.hpp"

#include "plain/isa.hpp"

namespace fast_momentum {

const NumpyTypes& numpy_types() {
    static const auto& types = *new NumpyTypes;  // never deleted: there may be no interpreter by then
    return types;
}

// By its name: whoever has such an array has imported ml_dtypes, and nobody else needs it.
bool NumpyTypes::is_bfloat16(PyObject* descr) const {
    const int number = py::detail::array_descriptor_proxy(descr)->type_num;
    constexpr int first_user_number = 256;
    if (number < first_user_number) return false;
    if (number != bfloat16_number && text_of(py::handle(descr).attr("name")) == "bfloat16" &&
        py::handle(descr).attr("itemsize").cast<int>() == 2)
        bfloat16_number = number;
    return number == bfloat16_number;
}

Stored narrow_storage(const ArrayStruct& array) {
    if (!is_native(py::detail::array_descriptor_proxy(array.descr)->byteorder)) return Stored::native;
    if (dtype_number(array) == float16_number) return Stored::float16;
    return numpy_types().is_bfloat16(array.descr) ? Stored::bfloat16 : Stored::native;
}

std::size_t Found::itemsize() const {
    const Storage* storage = storage_of(stored);
    return storage ? storage->itemsize : dtype->itemsize;
}

}  // namespace fast_momentum
