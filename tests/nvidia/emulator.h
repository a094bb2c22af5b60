// Enough of CUDA's device language to run kernels.cu on a CPU, thread by thread, block by block.
//
// A thread of a block runs until it ends or waits, at __syncthreads for its block or in a shuffle for its warp; a barrier
// opens when all that have not ended wait at it. Threads that wait for each other for ever are reported, so a barrier in a
// divergent branch fails the test instead of hanging a GPU. Blocks run one after the other, which is all that `static` needs
// to stand in for __shared__. Of speed, memory coalescing and races inside a warp it says nothing.
//
// Threads run on fibres, one after the other on the same one for as long as none of them waits; one that does keeps its
// fibre. A fibre is begun by ucontext, and left and gone on with by setjmp and longjmp, which ask nothing of the kernel.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#define __global__
#define __device__ static
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(threads)  // the driver keeps to them, see emulated_driver.cpp

namespace emulator {

struct Index {
  unsigned x, y, z;
};

enum class State { ready, at_block, at_warp, ended };

struct Thread {
  State state;
  size_t fibre;  // which it waits on
};

struct Fibre {
  jmp_buf here;
  std::vector<char> stack;
};

constexpr size_t kStack = 64 << 10;

inline Index thread_index, block_index, block_size, grid_size;
inline std::vector<Thread> threads;
inline size_t running, begun;  // the thread that runs now; threads that have begun
inline std::deque<Fibre> fibres;
inline std::vector<size_t> idle;  // fibres on which nobody waits
inline size_t current;            // the fibre that runs now
inline jmp_buf scheduler;
inline float exchanged[1024];
inline void (*body)(void*);
inline void* arguments;

inline Index index_of(size_t thread) {
  return {(unsigned)(thread % block_size.x), (unsigned)(thread / block_size.x % block_size.y),
          (unsigned)(thread / block_size.x / block_size.y)};
}

[[gnu::noinline]] inline void leave() {
  if (_setjmp(fibres[current].here) == 0) _longjmp(scheduler, 1);
}

inline void wait(State state) {
  threads[running].state = state;
  threads[running].fibre = current;
  leave();
}

// What a fibre does for ever: threads that have not begun, until one has to wait or there is none.
inline void work() {
  for (;;) {
    while (begun < threads.size()) {
      running = begun++;
      thread_index = index_of(running);
      body(arguments);
      threads[running].state = State::ended;  // after a barrier it is another thread than was begun here, or the same
    }
    idle.push_back(current);
    leave();
  }
}

[[gnu::noinline]] inline void go_on(size_t fibre) {
  current = fibre;
  if (_setjmp(scheduler) == 0) _longjmp(fibres[fibre].here, 1);
}

[[gnu::noinline]] inline void begin() {
  if (!idle.empty()) {
    const size_t fibre = idle.back();
    idle.pop_back();
    return go_on(fibre);
  }
  current = fibres.size();
  Fibre& fibre = fibres.emplace_back();
  fibre.stack.resize(kStack);
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fibre.stack.data();
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, work, 0);
  if (_setjmp(scheduler) == 0) setcontext(&context);
}

// Opens the barrier of threads [from, to) if all that have not ended wait at it.
inline bool release(size_t from, size_t to, State barrier) {
  bool any = false;
  for (size_t i = from; i < to; ++i) {
    if (threads[i].state == barrier) any = true;
    else if (threads[i].state != State::ended) return false;
  }
  for (size_t i = from; any && i < to; ++i)
    if (threads[i].state == barrier) threads[i].state = State::ready;
  return any;
}

// False where the block's threads wait for each other for ever.
inline bool run_block() {
  const size_t count = (size_t)block_size.x * block_size.y * block_size.z;
  threads.assign(count, {State::ready, 0});
  for (begun = 0; begun < count;) begin();
  for (;;) {
    bool alive = false, moved = false;
    for (size_t i = 0; i < count; ++i) alive |= threads[i].state != State::ended;
    if (!alive) return true;
    for (size_t warp = 0; warp < count; warp += 32)
      moved |= release(warp, warp + 32 < count ? warp + 32 : count, State::at_warp);
    moved |= release(0, count, State::at_block);
    if (!moved) {  // nobody will go on with their fibres
      fibres.clear();
      idle.clear();
      return false;
    }
    for (running = 0; running < count; ++running) {
      if (threads[running].state != State::ready) continue;
      thread_index = index_of(running);
      go_on(threads[running].fibre);
    }
  }
}

// 0, or 1 where a block hangs.
inline int run_grid(Index grid, Index block, void (*kernel)(void*), void* parameters) {
  grid_size = grid;
  block_size = block;
  body = kernel;
  arguments = parameters;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        if (!run_block()) return 1;
      }
  return 0;
}

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

inline void __syncthreads() { emulator::wait(emulator::State::at_block); }

inline float __shfl_xor_sync(unsigned, float value, int offset) {
  const size_t self = emulator::running;
  emulator::exchanged[self] = value;
  emulator::wait(emulator::State::at_warp);
  const float other = emulator::exchanged[self ^ (size_t)offset];
  emulator::wait(emulator::State::at_warp);
  return other;
}

inline int atomicAdd(int* address, int value) {
  const int before = *address;
  *address += value;
  return before;
}
