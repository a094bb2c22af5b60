// Letterbox, colour, layout and normalisation in one pass over the output: the frame is read once and nothing stands
// between. The picture goes to the upper left; the rest is black. The reference is edge.detect.detector.Detector._prepare.
#pragma once

#include "pictures.cuh"

namespace arc {

// scaled_width x scaled_height is the picture's size in the output. Area averaging where it shrinks by more than two, so
// that small faces are not skipped; bilinear otherwise.
template <typename Picture>
ARC_FN Pixel letterbox_pixel(const Picture& picture, int x, int y, int scaled_width, int scaled_height) {
  if (x >= scaled_width || y >= scaled_height) return {0.0f, 0.0f, 0.0f};
  const float sx = (float)picture.width / (float)scaled_width, sy = (float)picture.height / (float)scaled_height;
  if (picture.height > 2 * scaled_height)
    return area_mean(picture, (float)x * sx, (float)y * sy, (float)(x + 1) * sx, (float)(y + 1) * sy);
  return bilinear_replicated(picture, ((float)x + 0.5f) * sx - 0.5f, ((float)y + 0.5f) * sy - 0.5f);
}

// (height, width, 3) uint8 BGR: what the models of a bundle take.
template <typename Picture>
ARC_FN void letterbox_u8(const Picture& picture, uint8_t* out, int width, int x, int y, int scaled_width,
                         int scaled_height) {
  const Pixel pixel = letterbox_pixel(picture, x, y, scaled_width, scaled_height);
  uint8_t* to = out + 3 * ((size_t)y * width + x);
  to[0] = to_u8(pixel.b);
  to[1] = to_u8(pixel.g);
  to[2] = to_u8(pixel.r);
}

struct Normalisation {
  float mean[3], scale[3];  // (value - mean) * scale, in the order of the channels that come out
  int rgb;
};

// (3, height, width) float32, normalised: what third-party models take. Rounded to grey levels first, as the CPU does.
template <typename Picture>
ARC_FN void letterbox_f32(const Picture& picture, float* out, int width, int height, int x, int y, int scaled_width,
                          int scaled_height, const Normalisation& n) {
  const Pixel pixel = letterbox_pixel(picture, x, y, scaled_width, scaled_height);
  const float value[3] = {n.rgb ? pixel.r : pixel.b, pixel.g, n.rgb ? pixel.b : pixel.r};
  const size_t plane = (size_t)width * height, at = (size_t)y * width + x;
  for (int c = 0; c < 3; ++c) out[c * plane + at] = ((float)to_u8(value[c]) - n.mean[c]) * n.scale[c];
}

}  // namespace arc
