// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0

// Workers on threads: PyTorch's own, or some that are started for one call.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// GOMP_parallel of the OpenMP that PyTorch runs on: (function, its argument, threads, flags).
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Workers that the threads of a team take one after the other.
template <typename AnyWorker>
struct Team {
    std::vector<std::unique_ptr<AnyWorker>> workers;
    std::atomic<size_t> next{0};

    static void run(void* team) {
        Team& self = *static_cast<Team*>(team);
        for (size_t i; (i = self.next++) < self.workers.size();) self.workers[i]->run();
    }
};

// Runs one worker per thread; 1 if memory ran out before anything was computed. PyTorch's own threads are best: between
// two of its operations they wait by spinning, and a thread of ours would share a core with them.
template <typename AnyWorker, typename Arguments>
int32_t run_workers(const Arguments& args, int64_t count) {
    Team<AnyWorker> team;
    auto& workers = team.workers;
    std::vector<std::thread> threads;
    try {
        for (int64_t i = 0; i < count; ++i) workers.emplace_back(new AnyWorker(args, i));
        threads.reserve(workers.size());
    } catch (const std::bad_alloc&) {
        return 1;
    }
    if (args.parallel && workers.size() > 1) {
        args.parallel(Team<AnyWorker>::run, &team, static_cast<unsigned>(workers.size()), 0);
        return 0;
    }
    size_t started = 1;
    try {
        for (; started < workers.size(); ++started)
            threads.emplace_back([worker = workers[started].get()] { worker->run(); });
    } catch (const std::system_error&) {  // the system gives no more threads: the rest is done here
    }
    workers[0]->run();
    for (size_t i = started; i < workers.size(); ++i) workers[i]->run();
    for (std::thread& thread : threads) thread.join();
    return 0;
}

}  // namespace
