// How sharp a crop is: the Laplacian of its grey values inside the face. The reference is edge.quality.sharpness.
#pragma once

#include "align.cuh"

namespace arc {

// The part of a crop that is face.
constexpr int kFaceTop = 20, kFaceLeft = 22, kFaceHeight = 88, kFaceWidth = 68;

constexpr int kSummers = 128;  // threads that add up one crop

// OpenCV's integers: BT.601's factors times 2^15.
ARC_FN int grey_of(const uint8_t* bgr) { return (3735 * bgr[0] + 19235 * bgr[1] + 9798 * bgr[2] + (1 << 14)) >> 15; }

// Outside of the part as its mirror image, the edge pixel once (OpenCV's BORDER_REFLECT_101).
ARC_FN int mirrored(int i, int size) { return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i; }

ARC_FN int face_grey(const uint8_t* crop, int x, int y) {
  const int column = kFaceLeft + mirrored(x, kFaceWidth), row = kFaceTop + mirrored(y, kFaceHeight);
  return grey_of(crop + 3 * (row * kCrop + column));
}

ARC_FN int laplacian(const uint8_t* crop, int x, int y) {
  return face_grey(crop, x - 1, y) + face_grey(crop, x + 1, y) + face_grey(crop, x, y - 1) + face_grey(crop, x, y + 1) -
         4 * face_grey(crop, x, y);
}

}  // namespace arc
