// The nearest vectors of a gallery. The reference is edge.matching.similarities.
#pragma once

#include "portable.cuh"

namespace arc {

constexpr int kTop = 8;           // neighbours kept for a probe
constexpr int kProbes = 8;        // faces searched in one pass over the gallery
constexpr int kMaxDimensions = 512;

// The kTop best of a stream of scores, best first; of equal scores the lower row.
struct Top {
  float score[kTop];
  int row[kTop];

  ARC_FN void clear() {
    for (int i = 0; i < kTop; ++i) {
      score[i] = -2.0f;  // below any cosine
      row[i] = -1;
    }
  }

  ARC_FN static bool better(float s, int r, float other, int other_row) {
    return s > other || (s == other && r >= 0 && (other_row < 0 || r < other_row));
  }

  ARC_FN void insert(float s, int r) {
    if (!better(s, r, score[kTop - 1], row[kTop - 1])) return;
    int at = kTop - 1;
    for (; at > 0 && better(s, r, score[at - 1], row[at - 1]); --at) {
      score[at] = score[at - 1];
      row[at] = row[at - 1];
    }
    score[at] = s;
    row[at] = r;
  }
};

}  // namespace arc
