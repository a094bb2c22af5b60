// Landmarks placed anew by what a landmarker saw. The reference is edge.detect.landmarker.placed.
#pragma once

#include "align.cuh"

namespace arc {

// offsets: of the five landmarks from the template, pixels of the crop that was cut at `landmarks`; these are taken back to
// the frame's pixels in their place. They stay where they coincide, or would move by more than max_move, shares of the
// template's eye distance, mean of five. Where the landmarker gave what is no number they are none either, so that the
// host sees it.
ARC_FN void place_landmarks(const float* offsets, const Template& view, double max_move, float* landmarks) {
  double forward[6], back[6], moved = 0;
  if (!(similarity(landmarks, view, forward) > 0)) return;
  invert_similarity(forward, back);
  float found[10];
  for (int i = 0; i < 10; ++i) found[i] = (float)(offsets[i] + view.at(i));
  for (int i = 0; i < 10; i += 2) {
    const double dx = found[i] - view.at(i), dy = found[i + 1] - view.at(i + 1);
    moved += sqrt(dx * dx + dy * dy) / 5.0;
  }
  const bool number = moved < 1e39;  // above every float
  const double ex = view.at(2) - view.at(0), ey = view.at(3) - view.at(1);
  if (number && !(moved <= max_move * sqrt(ex * ex + ey * ey))) return;
  for (int i = 0; i < 10; i += 2) {
    landmarks[i] = number ? (float)(back[0] * found[i] + back[1] * found[i + 1] + back[2]) : NAN;
    landmarks[i + 1] = number ? (float)(back[3] * found[i] + back[4] * found[i + 1] + back[5]) : NAN;
  }
}

}  // namespace arc
