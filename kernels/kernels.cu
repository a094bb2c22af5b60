// Every kernel of arcedge, one fat binary. C names and plain arguments: the runtime finds them by name through the driver.
// The arithmetic is in the headers, for this file and for the tests; here are threads, shared memory and bounds.
//
// __launch_bounds__ of each is the most threads of a block that the runtime starts it with: without it the compiler may
// give a thread more registers than a block of so many has, and no launch succeeds.
#include "align.cuh"
#include "detections.cuh"
#include "letterbox.cuh"
#include "place.cuh"
#include "search.cuh"
#include "sharpness.cuh"

using namespace arc;

// What the runtime asks for first. The number grows with every change of a kernel's arguments or memory, so that a fat
// binary of another version is refused: arguments that do not fit would be wild addresses.
extern "C" __global__ void __launch_bounds__(1) arcedge_kernels_4() {}

// ---- letterbox: one thread an output pixel, blocks of 32 x 8, grid over (width, height) ----

extern "C" __global__ void __launch_bounds__(32 * 8) letterbox_bgr_u8(const uint8_t* source, int pitch,
                                                                      int source_width, int source_height, uint8_t* out,
                                                                      int width, int height, int scaled_width,
                                                                      int scaled_height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  letterbox_u8(Bgr{source, pitch, source_width, source_height}, out, width, x, y, scaled_width, scaled_height);
}

extern "C" __global__ void __launch_bounds__(32 * 8) letterbox_nv12_u8(const uint8_t* luma, const uint8_t* chroma,
                                                                       int luma_pitch, int chroma_pitch,
                                                                       int source_width, int source_height,
                                                                       uint8_t* out, int width, int height,
                                                                       int scaled_width, int scaled_height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  letterbox_u8(Nv12{luma, chroma, luma_pitch, chroma_pitch, source_width, source_height}, out, width, x, y,
               scaled_width, scaled_height);
}

extern "C" __global__ void __launch_bounds__(32 * 8) letterbox_bgr_f32(const uint8_t* source, int pitch,
                                                                       int source_width, int source_height, float* out,
                                                                       int width, int height, int scaled_width,
                                                                       int scaled_height, float mean0, float mean1,
                                                                       float mean2, float scale0, float scale1,
                                                                       float scale2, int rgb) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const Normalisation n = {{mean0, mean1, mean2}, {scale0, scale1, scale2}, rgb};
  letterbox_f32(Bgr{source, pitch, source_width, source_height}, out, width, height, x, y, scaled_width, scaled_height,
                n);
}

extern "C" __global__ void __launch_bounds__(32 * 8) letterbox_nv12_f32(const uint8_t* luma, const uint8_t* chroma,
                                                                        int luma_pitch, int chroma_pitch,
                                                                        int source_width, int source_height, float* out,
                                                                        int width, int height, int scaled_width,
                                                                        int scaled_height, float mean0, float mean1,
                                                                        float mean2, float scale0, float scale1,
                                                                        float scale2, int rgb) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const Normalisation n = {{mean0, mean1, mean2}, {scale0, scale1, scale2}, rgb};
  letterbox_f32(Nv12{luma, chroma, luma_pitch, chroma_pitch, source_width, source_height}, out, width, height, x, y,
                scaled_width, scaled_height, n);
}

// ---- align: a block cuts eight rows of one crop; blocks of size x 8, grid (size / 8, faces) ----

template <typename Picture>
__device__ void align_block(const Picture& picture, const float* landmarks, int size, float zoom, uint8_t* crops) {
  __shared__ CropPlan plan;
  const int face = blockIdx.y;
  if (threadIdx.x == 0 && threadIdx.y == 0)
    plan = plan_crop(landmarks + 10 * face, Template{size, zoom}, picture.width, picture.height);
  __syncthreads();
  const int x = threadIdx.x, y = blockIdx.x * blockDim.y + threadIdx.y;
  if (x >= size || y >= size) return;
  const Pixel pixel = crop_pixel(picture, plan, x, y);
  uint8_t* to = crops + 3 * (((size_t)face * size + y) * size + x);
  to[0] = to_u8(pixel.b);
  to[1] = to_u8(pixel.g);
  to[2] = to_u8(pixel.r);
}

// landmarks (faces, 5, 2) float32 pixels of the frame; crops (faces, size, size, 3) uint8 BGR, black for a face whose
// landmarks coincide. size, at most kMostCrop, and zoom: of the Template.
extern "C" __global__ void __launch_bounds__(8 * kMostCrop) align_bgr(const uint8_t* source, int pitch,
                                                                      int source_width, int source_height,
                                                                      const float* landmarks, int size, float zoom,
                                                                      uint8_t* crops) {
  align_block(Bgr{source, pitch, source_width, source_height}, landmarks, size, zoom, crops);
}

extern "C" __global__ void __launch_bounds__(8 * kMostCrop) align_nv12(const uint8_t* luma, const uint8_t* chroma,
                                                                       int luma_pitch, int chroma_pitch,
                                                                       int source_width, int source_height,
                                                                       const float* landmarks, int size, float zoom,
                                                                       uint8_t* crops) {
  align_block(Nv12{luma, chroma, luma_pitch, chroma_pitch, source_width, source_height}, landmarks, size, zoom, crops);
}

// ---- place: one thread a face ----

// offsets (faces, 10) float32, what a landmarker gave of the crops that align cut at `landmarks`; done (faces): not 0 where
// a face's landmarks are to stay. landmarks (faces, 5, 2) float32 pixels of the frame, in place.
extern "C" __global__ void __launch_bounds__(32) place(const float* offsets, const int* done, int faces, int size,
                                                       float zoom, float max_move, float* landmarks) {
  const int face = blockIdx.x * blockDim.x + threadIdx.x;
  if (face >= faces || done[face]) return;
  place_landmarks(offsets + 10 * face, Template{size, zoom}, max_move, landmarks + 10 * face);
}

// ---- sharpness: a block a crop, of kSummers threads, grid (faces) ----

// crops (faces, 112, 112, 3) uint8 BGR; sums (faces, 2): of the Laplacian, and of its squares. Whole numbers, so that the
// order of adding changes nothing.
extern "C" __global__ void __launch_bounds__(kSummers) sharpness(const uint8_t* crops, long long* sums) {
  __shared__ long long total[kSummers], squares[kSummers];
  const int thread = threadIdx.x;
  const uint8_t* crop = crops + (size_t)blockIdx.x * kCrop * kCrop * 3;
  long long sum = 0, square = 0;
  for (int i = thread; i < kFaceWidth * kFaceHeight; i += kSummers) {
    const int value = laplacian(crop, i % kFaceWidth, i / kFaceWidth);
    sum += value;
    square += value * value;
  }
  total[thread] = sum;
  squares[thread] = square;
  for (int half = kSummers / 2; half > 0; half >>= 1) {
    __syncthreads();
    if (thread < half) {
      total[thread] += total[thread + half];
      squares[thread] += squares[thread + half];
    }
  }
  if (thread == 0) {
    sums[2 * blockIdx.x] = total[0];
    sums[2 * blockIdx.x + 1] = squares[0];
  }
}

// ---- detections ----

// One thread a cell, grid (cells / block, images). `counts` (images) must be zero. Of an image with more than kCandidates
// cells above the score, counts says how many there were and which were kept is not defined.
extern "C" __global__ void __launch_bounds__(256) decode_heads(const float* cls8, const float* cls16,
                                                               const float* cls32, const float* obj8,
                                                               const float* obj16, const float* obj32,
                                                               const float* box8, const float* box16,
                                                               const float* box32, const float* points8,
                                                               const float* points16, const float* points32, int width,
                                                               int height, float min_score, float* candidates,
                                                               int* cells, int* counts) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
  const int total = (width >> 3) * (height >> 3) + (width >> 4) * (height >> 4) + (width >> 5) * (height >> 5);
  if (cell >= total) return;
  const Heads heads = {{cls8, cls16, cls32}, {obj8, obj16, obj32}, {box8, box16, box32}, {points8, points16, points32}};
  float face[kFields];
  if (!decode_cell(heads, image, cell, width, height, min_score, face)) return;
  const int place = atomicAdd(counts + image, 1);
  if (place >= kCandidates) return;
  float* to = candidates + ((size_t)image * kCandidates + place) * kFields;
  for (int i = 0; i < kFields; ++i) to[i] = face[i];
  cells[(size_t)image * kCandidates + place] = cell;
}

// One block an image, of any power of two up to 512 threads. faces (images, limit, kFields), best first; kept (images).
// Leaves for `vote` in chosen (images, limit) which candidate a face is, and in `cells` the candidates best first.
extern "C" __global__ void __launch_bounds__(512) suppress(const float* candidates, int* cells, const int* counts,
                                                           float max_iou, int limit, float scale_x, float scale_y,
                                                           float* faces, int* kept, int* chosen) {
  __shared__ float score[kCandidates];
  __shared__ int cell[kCandidates];
  __shared__ short order[kCandidates];
  __shared__ int taken;
  const int image = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
  const int count = imin(counts[image], kCandidates);
  const float* mine = candidates + (size_t)image * kCandidates * kFields;
  int padded = 1;
  while (padded < count) padded <<= 1;
  for (int i = thread; i < padded; i += threads) {
    const bool there = i < count;
    score[i] = there ? mine[(size_t)i * kFields + kFields - 1] : -1.0f;
    cell[i] = there ? cells[(size_t)image * kCandidates + i] : 0x7fffffff;
    order[i] = (short)i;
  }
  if (thread == 0) taken = 0;
  __syncthreads();
  for (int size = 2; size <= padded; size <<= 1)  // bitonic sort
    for (int step = size >> 1; step > 0; step >>= 1) {
      for (int i = thread; i < padded; i += threads) {
        const int other = i ^ step;
        if (other > i) {
          const bool right = comes_before(score[i], cell[i], score[other], cell[other]);
          if (right != ((i & size) == 0)) {
            const float s = score[i];
            const int c = cell[i];
            const short o = order[i];
            score[i] = score[other];
            cell[i] = cell[other];
            order[i] = order[other];
            score[other] = s;
            cell[other] = c;
            order[other] = o;
          }
        }
      }
      __syncthreads();
    }
  for (int i = thread; i < count; i += threads) cells[(size_t)image * kCandidates + i] = order[i];
  __syncthreads();
  for (int i = 0; i < count && taken < limit; ++i) {
    const int place = order[i];  // the same for all threads; below 0 once a better face has dropped it
    if (place >= 0) {
      const float* best = mine + (size_t)place * kFields;
      for (int j = i + 1 + thread; j < count; j += threads)
        if (order[j] >= 0 && overlaps(best, mine + (size_t)order[j] * kFields, max_iou)) order[j] = -1;
      if (thread < kFields) {
        const float back = thread == kFields - 1 ? 1.0f : (thread & 1 ? scale_y : scale_x);
        faces[((size_t)image * limit + taken) * kFields + thread] = best[thread] * back;
      }
      if (thread == 0) chosen[(size_t)image * limit + taken] = place;
    }
    __syncthreads();
    if (thread == 0 && place >= 0) ++taken;
    __syncthreads();
  }
  if (thread == 0) kept[image] = taken;
}

// After `suppress`, one block of kVoters threads a face, grid (limit, images): its box and landmarks become the mean over
// all candidates that saw the same face, weighted with the square of their score. The order of the sums is fixed.
extern "C" __global__ void __launch_bounds__(kVoters) vote(const float* candidates, const int* cells, const int* counts,
                                                           const int* chosen, const int* kept, int limit, float min_iou,
                                                           float scale_x, float scale_y, float* faces) {
  __shared__ float sums[kVoters][kPlaces + 1];
  const int image = blockIdx.y, face = blockIdx.x, thread = threadIdx.x;
  if (face >= kept[image]) return;  // the whole block
  const int count = imin(counts[image], kCandidates);
  const float* mine = candidates + (size_t)image * kCandidates * kFields;
  const int* order = cells + (size_t)image * kCandidates;
  const int place = chosen[(size_t)image * limit + face];
  const float* best = mine + (size_t)place * kFields;
  float sum[kPlaces + 1] = {};
  for (int i = thread; i < count; i += kVoters) {
    const float* other = mine + (size_t)order[i] * kFields;
    if (order[i] != place && !same_face(best, other, min_iou)) continue;  // the best votes even without an area
    const float weight = other[kFields - 1] * other[kFields - 1];
    for (int k = 0; k < kPlaces; ++k) sum[k] += weight * other[k];
    sum[kPlaces] += weight;
  }
  for (int k = 0; k <= kPlaces; ++k) sums[thread][k] = sum[k];
  for (int half = kVoters / 2; half > 0; half >>= 1) {
    __syncthreads();
    if (thread < half)
      for (int k = 0; k <= kPlaces; ++k) sums[thread][k] += sums[thread + half][k];
  }
  __syncthreads();
  if (thread < kPlaces) {
    const float back = thread & 1 ? scale_y : scale_x;
    faces[((size_t)image * limit + face) * kFields + thread] = sums[0][thread] / sums[0][kPlaces] * back;
  }
}

// ---- search ----

// One warp a row: rows of (n, dimensions) float32 to unit length, in place. Blocks of 32 x rows.
extern "C" __global__ void __launch_bounds__(32 * 8) normalise_rows(float* vectors, int rows, int dimensions) {
  const int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
  if (row >= rows) return;
  float* vector = vectors + (size_t)row * dimensions;
  float sum = 0.0f;
  for (int i = lane; i < dimensions; i += 32) sum += vector[i] * vector[i];
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  const float factor = 1.0f / sqrtf(fmaxf(sum, 1e-24f));
  for (int i = lane; i < dimensions; i += 32) vector[i] *= factor;
}

// The gallery is read once for up to kProbes probes. Blocks of 32 x 8 (a warp a row at a time); each block leaves its best
// kTop groups of each probe: scores and groups (blocks, probes, kTop). owners: (rows), the group each row is of; null where
// each row is one of its own. dimensions: at most kMaxDimensions.
extern "C" __global__ void __launch_bounds__(32 * 8) search_blocks(const float* gallery, const int* owners, int rows,
                                                                   int dimensions, const float* probes, int probe_count,
                                                                   float* scores, int* groups) {
  __shared__ float probe[kProbes * kMaxDimensions];
  __shared__ Top best[8][kProbes];
  const int lane = threadIdx.x, warp = threadIdx.y, thread = warp * 32 + lane;
  for (int i = thread; i < probe_count * dimensions; i += 32 * blockDim.y) probe[i] = probes[i];
  __syncthreads();
  Top mine;  // lane p keeps probe p's
  mine.clear();
  for (int row = blockIdx.x * blockDim.y + warp; row < rows; row += gridDim.x * blockDim.y) {
    const float* vector = gallery + (size_t)row * dimensions;
    float sum[kProbes];
#pragma unroll
    for (int p = 0; p < kProbes; ++p) sum[p] = 0.0f;
    for (int i = lane; i < dimensions; i += 32) {
      const float value = vector[i];
#pragma unroll
      for (int p = 0; p < kProbes; ++p)
        if (p < probe_count) sum[p] += value * probe[p * dimensions + i];
    }
#pragma unroll
    for (int p = 0; p < kProbes; ++p) {
      float whole = sum[p];
      for (int offset = 16; offset > 0; offset >>= 1) whole += __shfl_xor_sync(0xffffffffu, whole, offset);
      if (lane == p) mine.insert(whole, owners ? owners[row] : row);
    }
  }
  if (lane < probe_count) best[warp][lane] = mine;
  __syncthreads();
  if (warp == 0 && lane < probe_count) {
    for (int w = 1; w < (int)blockDim.y; ++w)
      for (int i = 0; i < kTop; ++i) mine.insert(best[w][lane].score[i], best[w][lane].group[i]);
    const size_t at = ((size_t)blockIdx.x * probe_count + lane) * kTop;
    for (int i = 0; i < kTop; ++i) {
      scores[at + i] = mine.score[i];
      groups[at + i] = mine.group[i];
    }
  }
}

// The blocks' lists to one: a warp a probe, blocks of 32, grid (probes). top_scores, top_groups (probes, kTop), group -1
// where the gallery has fewer.
extern "C" __global__ void __launch_bounds__(32) merge_blocks(const float* scores, const int* groups, int blocks,
                                                              int probe_count, float* top_scores, int* top_groups) {
  __shared__ Top best[32];
  const int lane = threadIdx.x, probe = blockIdx.x;
  Top mine;
  mine.clear();
  for (int block = lane; block < blocks; block += 32) {
    const size_t at = ((size_t)block * probe_count + probe) * kTop;
    for (int i = 0; i < kTop; ++i) mine.insert(scores[at + i], groups[at + i]);
  }
  best[lane] = mine;
  __syncthreads();
  if (lane != 0) return;
  for (int other = 1; other < 32; ++other)
    for (int i = 0; i < kTop; ++i) mine.insert(best[other].score[i], best[other].group[i]);
  for (int i = 0; i < kTop; ++i) {
    top_scores[probe * kTop + i] = mine.score[i];
    top_groups[probe * kTop + i] = mine.group[i];
  }
}
