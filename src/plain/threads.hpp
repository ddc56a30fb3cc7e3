// How many threads a step may use, and how it enters them; nothing here knows what they do.
#pragma once

#include <cstddef>
#include <string>

#ifdef _OPENMP
#include <omp.h>

#include "plain/arithmetic.hpp"
#endif

namespace fast_momentum {

// What the user asked for; 1 unless told otherwise.
long long requested_threads();
void request_threads(long long threads);

// The request, limited by OpenMP's own setting, the CPUs of this process and its cgroup's quota; at least 1.
int usable_threads();

// CPUs that the cgroup below `root`, where cgroups are mounted, lets this process use; 0 if it sets no limit.
int cgroup_cpus(const std::string& root);

// "OpenMP 201511", or "none"
std::string threading_layer();

// Counts the forks that led to this process.
unsigned fork_generation();

// Make a fork safe at any time: the threads of OpenMP do not outlive it, and a child that entered a region
// would wait for them for ever (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=52303).
void install_fork_handlers();

void note_parallel_region();

// How many of so many threads the system lets this one have, itself among them.
int threads_to_be_had(int wanted) noexcept;

// body(part, parts) once for each thread. There may be fewer threads than asked for.
template <class Body>
void in_parallel([[maybe_unused]] int threads, const Body& body) noexcept {
#ifdef _OPENMP
    if (threads != 1) threads = threads_to_be_had(threads);
    if (threads != 1) {
        note_parallel_region();
#pragma omp parallel num_threads(threads)
        {
            const StandardArithmetic arithmetic;
            body(static_cast<std::size_t>(omp_get_thread_num()),
                 static_cast<std::size_t>(omp_get_num_threads()));
        }
        return;
    }
#endif
    body(std::size_t(0), std::size_t(1));
}

}  // namespace fast_momentum
