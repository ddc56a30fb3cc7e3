#include "plain/threads.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__)
#define HAS_FORK
#include <pthread.h>
#endif

namespace fast_momentum {

namespace {

std::atomic<long long> request{1};
std::atomic<int> quota{0};  // of the cgroup; 0 for none
std::atomic<unsigned> generation{0};
std::atomic<bool> openmp_used{false};
std::atomic<unsigned> pauses{0};  // after each of which OpenMP makes its threads anew

#ifdef _OPENMP
int affinity_cpus() {
#ifdef __linux__
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return CPU_COUNT(&cpus);
#endif
    return omp_get_num_procs();
}
#endif

#ifdef _OPENMP
// Whether the system lets so many more threads be at once. gcc's OpenMP ends the process where it cannot make
// one.
bool can_make_threads(int n) noexcept {
    std::mutex hold;
    std::vector<std::thread> made;
    bool can = true;
    {
        const std::lock_guard<std::mutex> all_made(hold);
        try {
            made.reserve(n);
            while (n-- > 0) made.emplace_back([&] { const std::lock_guard<std::mutex> wait(hold); });
        } catch (const std::exception&) {
            can = false;
        }
    }
    for (std::thread& thread : made) thread.join();
    return can;
}
#endif

}  // namespace

long long requested_threads() {
    return request;
}

void request_threads(long long threads) {
    if (threads > 1) quota = cgroup_cpus("/sys/fs/cgroup");
    request = threads;
}

int cgroup_cpus(const std::string& root) {
    std::string quota;
    double period = 0;
    if (!(std::ifstream(root + "/cpu.max") >> quota >> period)) {  // version 2, else version 1
        std::ifstream(root + "/cpu/cpu.cfs_quota_us") >> quota;
        std::ifstream(root + "/cpu/cpu.cfs_period_us") >> period;
    }
    const double limit = std::atof(quota.c_str());  // "max" and -1 are none
    return limit > 0 && period > 0 ? std::max(1, static_cast<int>(std::ceil(limit / period))) : 0;
}

int usable_threads() {
#ifdef _OPENMP
    if (request == 1) return 1;
    long long threads = std::min<long long>({request, omp_get_max_threads(), affinity_cpus()});
    if (quota > 0) threads = std::min<long long>(threads, quota);
    return static_cast<int>(std::max<long long>(threads, 1));
#else
    return 1;
#endif
}

std::string threading_layer() {
#ifdef _OPENMP
    return "OpenMP " + std::to_string(_OPENMP);
#else
    return "none";
#endif
}

unsigned fork_generation() {
    return generation;
}

void install_fork_handlers() {
#ifdef HAS_FORK
    const auto before = [] {
#if defined(_OPENMP) && _OPENMP >= 201811 || defined(__GNUC__) && defined(_OPENMP) && __GNUC__ >= 9
        ++pauses;
        if (openmp_used) omp_pause_resource_all(omp_pause_soft);
#endif
    };
    pthread_atfork(before, nullptr, [] { ++generation; });
#endif
}

void note_parallel_region() {
    openmp_used = true;
}

int threads_to_be_had(int wanted) noexcept {
#ifdef _OPENMP
    thread_local int had = 1;  // by OpenMP, kept for the regions of this thread
    thread_local unsigned since = pauses;
    if (since != pauses) had = 1;
    since = pauses;
    // Twice as many, since those that have ended may still be counted when OpenMP makes its own.
    if (wanted > had && !can_make_threads(2 * (wanted - had))) return 1;
    had = wanted;
#endif
    return wanted;
}

}  // namespace fast_momentum
