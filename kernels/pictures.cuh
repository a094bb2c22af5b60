// Where pixels come from: interleaved BGR, or NV12 as cameras and hardware decoders give it.
#pragma once

#include "portable.cuh"

namespace arc {

// Rows of `pitch` bytes, three bytes a pixel: blue, green, red.
struct Bgr {
  const uint8_t* data;
  int pitch, width, height;

  ARC_FN Pixel at(int x, int y) const {
    const uint8_t* p = data + (size_t)y * pitch + 3 * x;
    return {(float)p[0], (float)p[1], (float)p[2]};
  }
};

// A plane of luma and one of interleaved chroma, half as high and as wide; ITU-R BT.601, limited range.
struct Nv12 {
  const uint8_t *luma, *chroma;
  int luma_pitch, chroma_pitch, width, height;

  // The integer arithmetic of OpenCV's COLOR_YUV2BGR_NV12: factors times 2^20, each 2x2 block shares its chroma.
  ARC_FN Pixel at(int x, int y) const {
    const uint8_t* uv = chroma + (size_t)(y >> 1) * chroma_pitch + (x & ~1);
    const int u = (int)uv[0] - 128, v = (int)uv[1] - 128, half = 1 << 19;
    const int grey = imax((int)luma[(size_t)y * luma_pitch + x] - 16, 0) * 1220542;
    return {(float)clampi((grey + half + 2116026 * u) >> 20, 0, 255),
            (float)clampi((grey + half - 852492 * v - 409993 * u) >> 20, 0, 255),
            (float)clampi((grey + half + 1673527 * v) >> 20, 0, 255)};
  }
};

// Bilinear at (x, y), the edge pixel going on outside the picture. Pixel centres are at whole numbers.
template <typename Picture>
ARC_FN Pixel bilinear_replicated(const Picture& picture, float x, float y) {
  x = fminf(fmaxf(x, 0.0f), (float)(picture.width - 1));
  y = fminf(fmaxf(y, 0.0f), (float)(picture.height - 1));
  const int x0 = (int)x, y0 = (int)y;
  const int x1 = imin(x0 + 1, picture.width - 1), y1 = imin(y0 + 1, picture.height - 1);
  const float fx = x - (float)x0, fy = y - (float)y0;
  return (picture.at(x0, y0) * (1.0f - fx) + picture.at(x1, y0) * fx) * (1.0f - fy) +
         (picture.at(x0, y1) * (1.0f - fx) + picture.at(x1, y1) * fx) * fy;
}

// The mean over a rectangle of the picture, pixels that it cuts weighted by the part inside (OpenCV's INTER_AREA).
template <typename Picture>
ARC_FN Pixel area_mean(const Picture& picture, float left, float top, float right, float bottom) {
  right = fminf(right, (float)picture.width);
  bottom = fminf(bottom, (float)picture.height);
  const int x_end = imin((int)ceilf(right), picture.width), y_end = imin((int)ceilf(bottom), picture.height);
  Pixel sum = {0.0f, 0.0f, 0.0f};
  float total = 0.0f;
  for (int y = (int)top; y < y_end; ++y) {
    const float high = fminf((float)(y + 1), bottom) - fmaxf((float)y, top);
    for (int x = (int)left; x < x_end; ++x) {
      const float weight = high * (fminf((float)(x + 1), right) - fmaxf((float)x, left));
      sum = sum + picture.at(x, y) * weight;
      total += weight;
    }
  }
  return sum * (1.0f / fmaxf(total, 1e-12f));
}

}  // namespace arc
