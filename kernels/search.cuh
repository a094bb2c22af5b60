// The nearest groups of vectors of a gallery. The reference is edge.matching.nearest.
#pragma once

#include "portable.cuh"

namespace arc {

constexpr int kTop = 8;           // neighbours kept for a probe
constexpr int kProbes = 8;        // faces searched in one pass over the gallery
constexpr int kMaxDimensions = 512;

// The kTop best groups of a stream of scores, best first, each with its best score; of equal scores the lower group.
struct Top {
  float score[kTop];
  int group[kTop];

  ARC_FN void clear() {
    for (int i = 0; i < kTop; ++i) {
      score[i] = -2.0f;  // below any cosine
      group[i] = -1;
    }
  }

  ARC_FN static bool better(float s, int g, float other, int other_group) {
    return s > other || (s == other && g >= 0 && (other_group < 0 || g < other_group));
  }

  ARC_FN void insert(float s, int g) {
    if (!better(s, g, score[kTop - 1], group[kTop - 1])) return;
    int at = kTop - 1;  // what makes room: the last, or the group's own lesser score
    for (int i = 0; i < kTop; ++i)
      if (group[i] == g) {
        if (s <= score[i]) return;
        at = i;
      }
    for (; at > 0 && better(s, g, score[at - 1], group[at - 1]); --at) {
      score[at] = score[at - 1];
      group[at] = group[at - 1];
    }
    score[at] = s;
    group[at] = g;
  }
};

}  // namespace arc
