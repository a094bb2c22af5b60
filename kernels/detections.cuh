// From the heads of a YuNet-family network to faces. The references are `decode`, `nms` and `vote` of edge.detect.
#pragma once

#include "portable.cuh"

namespace arc {

constexpr int kFields = 15;        // x1 y1 x2 y2, five landmarks, score
constexpr int kPlaces = 14;        // numbers of a box and five landmarks, which lie before the score
constexpr int kVoters = 64;        // threads that count the votes for a face
constexpr int kCandidates = 4096;  // an image may have so many cells above the score
constexpr int kLevels = 3;

ARC_FN int stride_of(int level) { return 8 << level; }

struct Heads {
  // (N, cells, 1 | 1 | 4 | 10) float32 of strides 8, 16, 32.
  const float *cls[kLevels], *obj[kLevels], *box[kLevels], *points[kLevels];
};

// Cells are numbered through the levels, in the order the CPU looks at them. False below the score.
ARC_FN bool decode_cell(const Heads& heads, int image, int cell, int width, int height, float min_score, float* face) {
  int level = 0, cells = (height >> 3) * (width >> 3);
  while (cell >= cells) {
    cell -= cells;
    ++level;
    cells = (height / stride_of(level)) * (width / stride_of(level));
  }
  const size_t at = (size_t)image * cells + cell;
  const float product = heads.cls[level][at] * heads.obj[level][at];
  if (!(product >= min_score * min_score)) return false;
  const int stride = stride_of(level), columns = width / stride;
  const float column = (float)(cell % columns), row = (float)(cell / columns), size = (float)stride;
  const float* box = heads.box[level] + 4 * at;
  const float x = (column + box[0]) * size, y = (row + box[1]) * size;
  // A broken weight must not become an infinite box: e^8 * 32 px is already far outside any frame.
  const float half_width = expf(fminf(box[2], 8.0f)) * (size / 2), half_height = expf(fminf(box[3], 8.0f)) * (size / 2);
  face[0] = x - half_width;
  face[1] = y - half_height;
  face[2] = x + half_width;
  face[3] = y + half_height;
  const float* points = heads.points[level] + 10 * at;
  for (int i = 0; i < 5; ++i) {
    face[4 + 2 * i] = (column + points[2 * i]) * size;
    face[5 + 2 * i] = (row + points[2 * i + 1]) * size;
  }
  face[14] = sqrtf(fminf(fmaxf(product, 0.0f), 1.0f));
  return true;
}

struct Overlap {
  float shared, either;  // areas of intersection and union
};

ARC_FN Overlap overlap(const float* a, const float* b) {
  const float wide = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), high = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
  const float shared = fmaxf(wide, 0.0f) * fmaxf(high, 0.0f);
  const float area_a = fmaxf(a[2] - a[0], 0.0f) * fmaxf(a[3] - a[1], 0.0f);
  const float area_b = fmaxf(b[2] - b[0], 0.0f) * fmaxf(b[3] - b[1], 0.0f);
  return {shared, area_a + area_b - shared};
}

// Whether two boxes share more than `max_iou` of their union, without dividing by the zero of two empty boxes.
ARC_FN bool overlaps(const float* a, const float* b, float max_iou) {
  const Overlap found = overlap(a, b);
  return found.shared > max_iou * found.either;
}

// Whether two boxes are of the same face, and may vote on where it is: at least `min_iou` of their union.
ARC_FN bool same_face(const float* a, const float* b, float min_iou) {
  const Overlap found = overlap(a, b);
  return found.shared >= min_iou * found.either;
}

// Best score first; equal scores in the order of their cells, so that the result does not depend on the threads.
ARC_FN bool comes_before(float score_a, int cell_a, float score_b, int cell_b) {
  return score_a > score_b || (score_a == score_b && cell_a < cell_b);
}

}  // namespace arc
