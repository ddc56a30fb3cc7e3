#include "python/candidate.hpp"

#include <algorithm>

#include "python/ending.hpp"

namespace fast_momentum {

Candidate::Candidate(const Kept& kept, const Leaves& grads) : kept_(kept) {
    containers_ = kept.params.tree.build([&](std::size_t i) {
        return grads[i] == Py_None ? py::object(py::none()) : py::object(kept.model().empty(i));
    });
    kept.params.tree.match(containers_, "candidate", "params", arrays_);
}

std::vector<char*> Candidate::memory() const {
    std::vector<char*> memory;
    for (std::size_t i = 0; i < arrays_.size(); ++i)
        memory.push_back(arrays_[i] == Py_None ? nullptr : array_struct(arrays_[i]).data);
    return memory;
}

void Candidate::hand_to(py::handle prox) {
    const std::vector<char*> before = memory();
    const py::object returned = called(py::reinterpret_borrow<py::object>(prox), py::make_tuple(containers_));
    if (!returned.is_none())
        throw py::type_error("prox must change its argument in place and return None, not return what is " +
                             type_name(returned) + "; let it end with candidate[...] = ...");
    Leaves found;
    kept_.params.tree.match(containers_, "candidate", "params", found);
    for (std::size_t i = 0; i < found.size(); ++i) check(i, found[i], before[i]);
}

void Candidate::check(std::size_t i, PyObject* found, char* memory) const {
    const std::string path = "candidate" + kept_.params.tree.path(i);
    if (found != arrays_[i])
        throw py::value_error(path +
                              " must be the array that prox was handed, changed in place, not another " +
                              "object; let it do " + path + "[...] = ...");
    if (!memory) return;
    const Arrays& model = kept_.model();
    const ArrayStruct& array = array_struct(found);
    const std::ptrdiff_t* strides = model.strides(i);
    const bool is_as_before = array.data == memory && has_dtype(array, model.dtype(i)) &&
                              has_shape(array, model, i) &&
                              (model[i].size == 0 || std::equal(strides, strides + array.nd, array.strides));
    if (!is_as_before)
        throw py::value_error(path +
                              " must keep its shape, dtype and memory in prox, not have others; copy the "
                              "values with " +
                              path + "[...] = ...");
}

}  // namespace fast_momentum
