// What the user's own proximal map is handed, and what it has to hand back: a candidate for the next iterate
// of an accelerated step.
#pragma once

#include <vector>

#include "python/arrays.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

class Candidate {
  public:
    // New arrays in the order of those that the state keeps, in containers of the types given to init(); None
    // where there is no gradient.
    Candidate(const Kept& kept, const Leaves& grads);

    // Where each of them lies, nullptr for None.
    std::vector<char*> memory() const;
    // Calls prox(candidate), and throws where the candidate is no longer what was handed over.
    void hand_to(py::handle prox);
    const Leaves& arrays() const { return arrays_; }

  private:
    void check(std::size_t i, PyObject* found, char* memory) const;

    const Kept& kept_;
    py::object containers_;
    Leaves arrays_;
};

}  // namespace fast_momentum
