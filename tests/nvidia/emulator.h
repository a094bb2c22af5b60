// Enough of CUDA's device language to run kernels.cu on a CPU, thread by thread, block by block.
//
// Every thread of a block is a fibre. It runs until it ends or waits, at __syncthreads for its block or in a shuffle for its
// warp; a barrier opens when all that have not ended wait at it. Threads that wait for each other for ever are reported, so a
// barrier in a divergent branch fails the test instead of hanging a GPU. Blocks run one after the other, which is all that
// `static` needs to stand in for __shared__. Of speed, memory coalescing and races inside a warp it says nothing.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__ static
#define __host__
#define __shared__ static
#define __forceinline__ inline

namespace emulator {

struct Index {
  unsigned x, y, z;
};

enum class State { ready, at_block, at_warp, ended };

struct Fibre {
  ucontext_t context;
  State state;
  Index index;
  std::vector<char> stack;
};

constexpr size_t kStack = 64 << 10;

inline Index thread_index, block_index, block_size, grid_size;
inline std::vector<Fibre> fibres;
inline ucontext_t scheduler;
inline size_t running;
inline float exchanged[1024];
inline void (*body)(void*);
inline void* arguments;

inline void wait(State state) {
  fibres[running].state = state;
  swapcontext(&fibres[running].context, &scheduler);
}

inline void enter() {
  body(arguments);
  fibres[running].state = State::ended;
  swapcontext(&fibres[running].context, &scheduler);
}

// Opens the barrier of fibres [from, to) if all that have not ended wait at it.
inline bool release(size_t from, size_t to, State barrier) {
  bool any = false;
  for (size_t i = from; i < to; ++i) {
    if (fibres[i].state == barrier) any = true;
    else if (fibres[i].state != State::ended) return false;
  }
  for (size_t i = from; any && i < to; ++i)
    if (fibres[i].state == barrier) fibres[i].state = State::ready;
  return any;
}

// False where the block's threads wait for each other for ever.
inline bool run_block() {
  const size_t count = (size_t)block_size.x * block_size.y * block_size.z;
  if (fibres.size() < count) fibres.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Fibre& fibre = fibres[i];
    fibre.stack.resize(kStack);
    fibre.state = State::ready;
    fibre.index = {(unsigned)(i % block_size.x), (unsigned)(i / block_size.x % block_size.y),
                   (unsigned)(i / block_size.x / block_size.y)};
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
  }
  for (;;) {
    bool alive = false, moved = false;
    for (running = 0; running < count; ++running) {
      if (fibres[running].state != State::ready) continue;
      moved = true;
      thread_index = fibres[running].index;
      swapcontext(&scheduler, &fibres[running].context);
    }
    for (size_t i = 0; i < count; ++i) alive |= fibres[i].state != State::ended;
    if (!alive) return true;
    for (size_t warp = 0; warp < count; warp += 32)
      moved |= release(warp, warp + 32 < count ? warp + 32 : count, State::at_warp);
    moved |= release(0, count, State::at_block);
    if (!moved) return false;
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
