// A libcuda.so.1 whose one device is the CPU: memory is malloc's, streams are in order and done at once, and kernels of
// kernels.cu run in the emulator. With it the real cuda-python and the real pycuda are exercised without a GPU.
//
// A stream can be made late: its work is done only once somebody waits for it, so that what is ordered by luck alone fails.
//
// While a stream is captured others take part that wait for a mark of it; the first has to wait for their last work before
// the end. What waits or allocates in between is refused, and with it the capture, as CUDA does in its thread-local mode.
//
// Stricter than a driver: handles of streams that were never made, frees of what was never allocated, calls without a
// current context and blocks of more threads than a kernel's __launch_bounds__ are errors, and new memory holds rubbish.
#include "emulator.h"
// the kernels, as plain C++
#include "kernels.cu"

#include <dlfcn.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

namespace {

template <typename... Arguments>
struct Launcher {
  using Kernel = void (*)(Arguments...);
  Kernel kernel;
  std::tuple<Arguments...> values;

  static void call(void* self) {
    auto* launcher = (Launcher*)self;
    std::apply(launcher->kernel, launcher->values);
  }

  template <size_t... I>
  static int launch(Kernel kernel, emulator::Index grid, emulator::Index block, void** parameters,
                    std::index_sequence<I...>) {
    Launcher launcher{kernel, {*(Arguments*)parameters[I]...}};
    return emulator::run_grid(grid, block, &Launcher::call, &launcher);
  }
};

using Run = int (*)(emulator::Index, emulator::Index, void**);

template <auto kernel>
struct Wrap;

template <typename... Arguments, void (*kernel)(Arguments...)>
struct Wrap<kernel> {
  static int run(emulator::Index grid, emulator::Index block, void** parameters) {
    return Launcher<Arguments...>::launch(kernel, grid, block, parameters, std::index_sequence_for<Arguments...>());
  }
  static void sizes(std::vector<size_t>& out) { out = {sizeof(Arguments)...}; }
};

struct Function {
  Run run;
  std::vector<size_t> sizes;
  unsigned most;  // threads of a block
};

std::map<std::string, Function> functions() {
  std::map<std::string, Function> table;
#define KERNEL(name) table[#name].run = Wrap<name>::run, Wrap<name>::sizes(table[#name].sizes)
  KERNEL(arcedge_kernels_4);
  KERNEL(letterbox_bgr_u8);
  KERNEL(letterbox_nv12_u8);
  KERNEL(letterbox_bgr_f32);
  KERNEL(letterbox_nv12_f32);
  KERNEL(align_bgr);
  KERNEL(align_nv12);
  KERNEL(place);
  KERNEL(sharpness);
  KERNEL(decode_heads);
  KERNEL(suppress);
  KERNEL(vote);
  KERNEL(normalise_rows);
  KERNEL(search_blocks);
  KERNEL(merge_blocks);
#define BOUND(name, threads) table[#name].most = threads
#include "bounds.inc"
  return table;
}

std::map<std::string, Function> table = functions();
std::set<void*> device_memory, host_memory, streams, events;
thread_local std::vector<void*> contexts;
// One device, one thing at a time, whichever thread asks for it.
std::recursive_mutex device_mutex;
thread_local int held = 0;  // how often this thread has it
struct Hold {
  Hold() { device_mutex.lock(), ++held; }
  ~Hold() { --held, device_mutex.unlock(); }
};
// While Python's code runs nobody has it: pycuda waits for it with Python's own lock in its hand.
struct LetGo {
  int levels = held;
  LetGo() { for (; held > 0; --held) device_mutex.unlock(); }
  ~LetGo() { for (; held < levels; ++held) device_mutex.lock(); }
};
#define ONE_AT_A_TIME Hold hold
int context_object, module_object;
enum { ok = 0, invalid_value = 1, out_of_memory = 2, not_initialised = 3, no_context = 201, unsupported_ptx = 222, not_found = 500, out_of_resources = 701, launch_timeout = 702, capture_unsupported = 900, capture_invalidated = 901, capture_unmatched = 903, capture_unjoined = 904, capture_isolation = 905, captured_event = 907, capture_wrong_thread = 908 };
bool initialised = false;
long room = -1;  // things that can be made yet; below 0 without end
long launches = 0, graph_launches = 0, bytes_up = 0, bytes_down = 0;

#define NEED_CONTEXT \
  if (contexts.empty() || !contexts.back()) return no_context

#define NEED_ROOM \
  if (!room) return out_of_memory; \
  if (room > 0) --room

bool known(void* stream) { return !stream || streams.count(stream); }

// Work of a stream: done at once, or while the stream is captured only written down.
using Work = std::function<int()>;
using Graph = std::vector<Work>;
struct Capture {
  void* origin;
  std::thread::id thread;
  Graph work;
  std::map<void*, size_t> queued, joined;  // by stream: how much of it there is, and how much the origin has waited for
  bool invalid = false, ended = false;
};
struct Mark {
  std::shared_ptr<Capture> capture;
  void* stream;
  size_t place;
};
std::map<void*, std::shared_ptr<Capture>> captures;  // by stream
std::map<void*, Mark> captured_marks;                // by event
std::set<void*> graphs;

// Whether this thread captures a stream; what may not be called then spoils the capture.
bool spoils_capture() {
  bool found = false;
  for (auto& entry : captures)
    if (entry.second->thread == std::this_thread::get_id()) found = entry.second->invalid = true;
  return found;
}
#define NOT_WHILE_CAPTURING \
  if (spoils_capture()) return capture_unsupported

// Late streams, with what they have not done yet; how much each has done; and behind how much of which stream a mark is.
std::map<void*, std::deque<Work>> late;
std::map<void*, size_t> done;
std::map<void*, std::pair<void*, size_t>> marks;

// Has a stream do its work up to a place in it.
int catch_up(void* stream, size_t place) {
  for (auto found = late.find(stream); found != late.end() && !found->second.empty() && done[stream] < place;) {
    Work work = std::move(found->second.front());
    found->second.pop_front();
    ++done[stream];
    if (int status = work()) return status;
    found = late.find(stream);
  }
  return ok;
}

int catch_up_all(void) {
  for (auto& entry : late)
    if (int status = catch_up(entry.first, (size_t)-1)) return status;
  return ok;
}

int queue(void* stream, Work work) {
  ONE_AT_A_TIME;
  NEED_CONTEXT;
  if (!known(stream)) return invalid_value;
  auto captured = captures.find(stream);
  if (captured != captures.end()) {
    if (captured->second->invalid) return capture_invalidated;
    ++captured->second->queued[stream];
    return captured->second->work.push_back(std::move(work)), ok;
  }
  auto later = late.find(stream);
  if (later == late.end()) return work();
  return later->second.push_back(std::move(work)), ok;
}

}  // namespace

extern "C" {

long emulated_allocations(void) { return (long)(device_memory.size() + host_memory.size()); }
long emulated_launches(void) { return launches; }
long emulated_bytes_up(void) { return bytes_up; }
long emulated_bytes_down(void) { return bytes_down; }
long emulated_graph_launches(void) { return graph_launches; }
long emulated_events(void) { return (long)events.size(); }
int emulated_capturing(void* stream) { return (int)captures.count(stream); }
long emulated_streams(void) { return (long)streams.size(); }
// From now on others leave the device room for so many allocations, streams and events; below 0 for all there may be.
void emulated_room(long things) { room = things; }
// From now on a stream does its work only where somebody waits for it, or at once again.
int emulated_late(void* stream, int is_late) {
  ONE_AT_A_TIME;
  if (!streams.count(stream)) return invalid_value;
  if (is_late) return late[stream], ok;
  int status = catch_up(stream, (size_t)-1);
  return late.erase(stream), status;
}
// Work that is no kernel of ours: what TensorRT would queue.
int emulated_work(void* stream, void (*function)(long), long argument) {
  return queue(stream, [=] {
    LetGo let_go;
    return function(argument), ok;
  });
}

int cuInit(unsigned) { return initialised = true, ok; }
int cuDriverGetVersion(int* version) { return *version = 12090, ok; }
int cuDeviceGetCount(int* count) { return *count = 1, initialised ? ok : not_initialised; }
int cuDeviceGet(int* device, int) { return *device = 0, ok; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "CPU emulator"), ok; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = (size_t)1 << 30, ok; }
int cuMemGetInfo_v2(size_t* free, size_t* total) {
  NEED_CONTEXT;
  return *free = (size_t)1 << 29, *total = (size_t)1 << 30, ok;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 16 ? 4 : 0;  // compute capability 9.0, four multiprocessors
  return ok;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &context_object, ok; }
int cuDevicePrimaryCtxRelease_v2(int) { return ok; }
int cuCtxSetCurrent(void* context) {
  if (contexts.empty()) contexts.push_back(nullptr);
  return contexts.back() = context, ok;
}
int cuCtxGetCurrent(void** context) { return *context = contexts.empty() ? nullptr : contexts.back(), ok; }
int cuCtxPushCurrent_v2(void* context) { return contexts.push_back(context), ok; }
int cuCtxPopCurrent_v2(void** context) {
  NEED_CONTEXT;
  if (context) *context = contexts.back();
  return contexts.pop_back(), ok;
}
int cuCtxGetDevice(int* device) {
  NEED_CONTEXT;
  return *device = 0, ok;
}
int cuCtxGetApiVersion(void*, unsigned* version) { return *version = 3020, ok; }
int cuCtxSynchronize(void) { return ok; }
int cuMemAlloc_v2(void** address, size_t bytes) {
  ONE_AT_A_TIME;
  NEED_CONTEXT;
  if (!bytes) return invalid_value;
  NOT_WHILE_CAPTURING;
  NEED_ROOM;
  *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(*address, 0xAB, bytes);  // nobody may count on zeros
  return device_memory.insert(*address), ok;
}
int cuMemFree_v2(void* address) {
  ONE_AT_A_TIME;
  NOT_WHILE_CAPTURING;
  if (int status = catch_up_all()) return status;
  if (!device_memory.erase(address)) return invalid_value;
  return free(address), ok;
}
int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  ONE_AT_A_TIME;
  NEED_CONTEXT;
  NOT_WHILE_CAPTURING;
  NEED_ROOM;
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return host_memory.insert(*address), ok;
}
int cuMemFreeHost(void* address) {
  ONE_AT_A_TIME;
  NOT_WHILE_CAPTURING;
  if (int status = catch_up_all()) return status;
  if (!host_memory.erase(address)) return invalid_value;
  return free(address), ok;
}
int cuMemHostGetDevicePointer_v2(void** device, void* host, unsigned) { return *device = host, ok; }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return queue(stream, [=] { return memcpy(to, from, bytes), bytes_up += bytes, ok; });
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return queue(stream, [=] { return memcpy(to, from, bytes), bytes_down += bytes, ok; });
}
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return queue(stream, [=] { return memcpy(to, from, bytes), ok; });
}
int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
  return queue(stream, [=] { return memset(to, value, bytes), ok; });
}
int cuStreamCreate(void** stream, unsigned) {
  ONE_AT_A_TIME;
  NEED_CONTEXT;
  NEED_ROOM;
  return *stream = malloc(1), streams.insert(*stream), ok;
}
int cuStreamDestroy_v2(void* stream) {
  ONE_AT_A_TIME;
  if (captures.count(stream)) return invalid_value;
  if (!streams.erase(stream)) return invalid_value;
  int status = catch_up(stream, (size_t)-1);
  return late.erase(stream), done.erase(stream), free(stream), status;
}
int cuStreamSynchronize(void* stream) {
  ONE_AT_A_TIME;
  auto captured = captures.find(stream);
  if (captured != captures.end()) return captured->second->invalid = true, capture_unsupported;
  return known(stream) ? catch_up(stream, (size_t)-1) : invalid_value;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ONE_AT_A_TIME;
  if (!events.count(event) || !known(stream)) return invalid_value;
  auto here = captures.find(stream);
  auto there = captured_marks.find(event);
  if (there != captured_marks.end()) {
    auto& [capture, other, place] = there->second;
    if (capture->ended || capture->invalid) return captured_event;
    if (here == captures.end()) return captures[stream] = capture, ok;  // the stream takes part from now on
    if (here->second != capture) return capture_isolation;
    if (stream == capture->origin) capture->joined[other] = std::max(capture->joined[other], place);
    return ok;
  }
  if (here != captures.end()) return here->second->invalid = true, capture_isolation;
  auto mark = marks.find(event);
  if (mark == marks.end()) return ok;
  auto [other, place] = mark->second;
  return queue(stream, [other = other, place = place] { return catch_up(other, place); });
}
int cuStreamBeginCapture_v2(void* stream, int) {
  ONE_AT_A_TIME;
  if (!streams.count(stream) || captures.count(stream)) return invalid_value;
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->thread = std::this_thread::get_id();
  return captures[stream] = capture, ok;
}
int cuStreamEndCapture(void* stream, void** graph) {
  ONE_AT_A_TIME;
  auto captured = captures.find(stream);
  if (captured == captures.end()) return invalid_value;
  auto capture = captured->second;
  if (capture->origin != stream) return capture_unmatched;
  if (capture->thread != std::this_thread::get_id()) return capture_wrong_thread;
  for (auto entry = captures.begin(); entry != captures.end();)
    entry = entry->second == capture ? captures.erase(entry) : std::next(entry);
  capture->ended = true;
  *graph = nullptr;
  if (capture->invalid) return capture_invalidated;
  for (auto& entry : capture->queued)
    if (entry.first != stream && capture->joined[entry.first] != entry.second) return capture_unjoined;
  return *graph = new Graph(std::move(capture->work)), ok;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  ONE_AT_A_TIME;
  *executable = new Graph(*(Graph*)graph);
  return graphs.insert(*executable), ok;
}
int cuGraphDestroy(void* graph) { return delete (Graph*)graph, ok; }
int cuGraphExecDestroy(void* executable) {
  ONE_AT_A_TIME;
  if (!graphs.erase(executable)) return invalid_value;
  return delete (Graph*)executable, ok;
}
int cuGraphLaunch(void* executable, void* stream) {
  ONE_AT_A_TIME;
  if (!graphs.count(executable) || captures.count(stream)) return invalid_value;
  ++graph_launches;
  for (auto& work : *(Graph*)executable)
    if (int status = queue(stream, work)) return status;
  return ok;
}
int cuEventCreate(void** event, unsigned) {
  ONE_AT_A_TIME;
  NEED_CONTEXT;
  NEED_ROOM;
  return *event = malloc(1), events.insert(*event), ok;
}
int cuEventDestroy_v2(void* event) {
  ONE_AT_A_TIME;
  if (!events.erase(event)) return invalid_value;
  return marks.erase(event), captured_marks.erase(event), free(event), ok;
}
int cuEventRecord(void* event, void* stream) {
  ONE_AT_A_TIME;
  if (!events.count(event) || !known(stream)) return invalid_value;
  auto captured = captures.find(stream);
  if (captured != captures.end())
    return captured_marks[event] = {captured->second, stream, captured->second->queued[stream]}, ok;
  captured_marks.erase(event);
  auto later = late.find(stream);
  return marks[event] = {stream, done[stream] + (later == late.end() ? 0 : later->second.size())}, ok;
}
int cuEventSynchronize(void* event) {
  ONE_AT_A_TIME;
  if (!events.count(event)) return invalid_value;
  if (captured_marks.count(event)) return captured_event;
  auto mark = marks.find(event);
  return mark == marks.end() ? ok : catch_up(mark->second.first, mark->second.second);
}
int cuEventElapsedTime(float* ms, void* from, void* to) {
  return *ms = 0.0f, events.count(from) && events.count(to) ? ok : invalid_value;
}
int cuEventElapsedTime_v2(float* ms, void* from, void* to) { return cuEventElapsedTime(ms, from, to); }
int cuModuleLoadData(void** module, const void* image) {
  NEED_CONTEXT;
  if (!strncmp((const char*)image, "newer", 5)) return unsupported_ptx;
  return *module = &module_object, ok;
}
int cuModuleLoadDataEx(void** module, const void* image, unsigned, void*, void*) {
  return cuModuleLoadData(module, image);
}
int cuModuleUnload(void*) { return ok; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  auto found = table.find(name);
  if (found == table.end()) return not_found;
  return *function = &found->second, ok;
}
int cuFuncGetAttribute(int* value, int, void*) { return *value = 0, ok; }
int cuFuncSetSharedMemConfig(void*, int) { return ok; }
int cuFuncSetBlockShape(void*, int, int, int) { return ok; }  // pycuda sets it besides giving it at the launch
int cuFuncSetCacheConfig(void*, int) { return ok; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
  NEED_CONTEXT;
  if (!known(stream) || bx * by * bz > 1024 || !gx || !gy || !gz || shared) return invalid_value;
  ONE_AT_A_TIME;
  auto* kernel = (Function*)function;
  if (bx * by * bz > kernel->most) return out_of_resources;
  std::vector<void*> unpacked;
  if (!parameters) {  // one packed buffer, as pycuda gives it: CU_LAUNCH_PARAM_BUFFER_POINTER, buffer, SIZE, size, END
    char* buffer = nullptr;
    size_t bytes = 0, offset = 0;
    for (void** e = extra; e && *e; e += 2) {
      if ((size_t)*e == 1) buffer = (char*)e[1];
      if ((size_t)*e == 2) bytes = *(size_t*)e[1];
    }
    for (size_t size : kernel->sizes) {
      offset = (offset + size - 1) / size * size;
      unpacked.push_back(buffer + offset);
      offset += size;
    }
    if (!buffer || offset != bytes) return invalid_value;
    parameters = unpacked.data();
  }
  ++launches;
  std::vector<std::vector<char>> values;  // a captured launch must not look at its caller's memory later
  for (size_t i = 0; i < kernel->sizes.size(); ++i)
    values.emplace_back((char*)parameters[i], (char*)parameters[i] + kernel->sizes[i]);
  return queue(stream, [=]() mutable {
    std::vector<void*> pointers;
    for (auto& value : values) pointers.push_back(value.data());
    return kernel->run({gx, gy, gz}, {bx, by, bz}, pointers.data()) ? launch_timeout : ok;
  });
}
int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR_EMULATED", ok; }
int cuGetErrorString(int, const char** text) { return *text = "emulated error", ok; }
int cuGetProcAddress_v2(const char* name, void** address, int, uint64_t, int*) {
  const std::string plain = name, second = plain + "_v2";
  Dl_info here;
  dladdr((void*)cuInit, &here);
  void* self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  *address = dlsym(self, second.c_str());
  if (!*address) *address = dlsym(self, plain.c_str());
  if (plain == "cuGetProcAddress") *address = (void*)cuGetProcAddress_v2;
  return *address ? ok : not_found;
}

}  // extern "C"
