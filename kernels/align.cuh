// Faces cut out with their landmarks on a template. The reference is edge.align.align.
#pragma once

#include "pictures.cuh"

namespace arc {

constexpr int kCrop = 112;      // of what an embedder takes
constexpr int kMostCrop = 128;  // rows of threads of a block: eight are 1024

// Where the landmarks lie in a crop of size x size: on the ArcFace template, zoomed about its middle. Of 112 pixels and
// zoom 1 it is the template itself; edge.align.WIDE_96 is another.
struct Template {
  int size;
  double zoom;

  // Left eye, right eye, nose, left mouth, right mouth (Deng et al., ArcFace, 2019): x, y, x, y, ...
  ARC_FN double at(int i) const {
    const double points[10] = {38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041};
    return (points[i] - (kCrop - 1) / 2.0) * zoom + (size - 1) / 2.0;
  }
};

// How one face is sampled: a point of the crop goes to (m0 x + m1 y + m2, m3 x + m4 y + m5) of a picture whose pixels
// are the means of factor x factor blocks of the frame from (left, top) on. factor 1: the frame itself.
struct CropPlan {
  double m[6];
  int factor, left, top, width, height;
  int valid;  // 0 where the landmarks coincide
};

ARC_FN void invert_similarity(const double* forward, double* inverse) {
  const double a = forward[0], b = forward[3], determinant = a * a + b * b;
  inverse[0] = a / determinant;
  inverse[1] = b / determinant;
  inverse[3] = -b / determinant;
  inverse[4] = a / determinant;
  inverse[2] = -(inverse[0] * forward[2] + inverse[1] * forward[5]);
  inverse[5] = -(inverse[3] * forward[2] + inverse[4] * forward[5]);
}

// Least-squares similarity of five landmarks to the template (edge.align.similarity_transform); its scale, 0 where they
// coincide.
ARC_FN double similarity(const float* landmarks, const Template& to, double* forward) {
  double px = 0, py = 0, qx = 0, qy = 0;
  for (int i = 0; i < 5; ++i) {
    px += landmarks[2 * i] / 5.0;
    py += landmarks[2 * i + 1] / 5.0;
    qx += to.at(2 * i) / 5.0;
    qy += to.at(2 * i + 1) / 5.0;
  }
  double a = 0, b = 0, spread = 0;
  for (int i = 0; i < 5; ++i) {
    const double ux = landmarks[2 * i] - px, uy = landmarks[2 * i + 1] - py;
    const double vx = to.at(2 * i) - qx, vy = to.at(2 * i + 1) - qy;
    a += ux * vx + uy * vy;
    b += ux * vy - uy * vx;
    spread += ux * ux + uy * uy;
  }
  if (!(spread > 1e-9)) return 0;
  a /= spread;
  b /= spread;
  forward[0] = forward[4] = a;
  forward[1] = -b;
  forward[2] = qx - (a * px - b * py);
  forward[3] = b;
  forward[5] = qy - (b * px + a * py);
  const double scale = sqrt(a * a + b * b);
  return scale > 1e-12 ? scale : 0;
}

// The similarity, and where a face is much larger than the crop the whole factor by which the frame is averaged first
// (edge.align._reduced).
ARC_FN CropPlan plan_crop(const float* landmarks, const Template& to, int frame_width, int frame_height) {
  CropPlan plan = {{0, 0, 0, 0, 0, 0}, 1, 0, 0, frame_width, frame_height, 0};
  double forward[6];
  const double scale = similarity(landmarks, to, forward);
  if (!(scale > 0)) return plan;
  plan.valid = 1;
  invert_similarity(forward, plan.m);
  if (!(scale < 0.5)) return plan;

  const int factor = (int)(1.0 / scale);
  double low[2] = {1e30, 1e30}, high[2] = {-1e30, -1e30};
  for (int corner = 0; corner < 4; ++corner) {
    const double x = corner & 1 ? to.size : 0, y = corner & 2 ? to.size : 0;
    const double seen[2] = {plan.m[0] * x + plan.m[1] * y + plan.m[2], plan.m[3] * x + plan.m[4] * y + plan.m[5]};
    for (int i = 0; i < 2; ++i) {
      low[i] = fmin(low[i], seen[i]);
      high[i] = fmax(high[i], seen[i]);
    }
  }
  const int x1 = (int)fmin(fmax(floor(low[0]) - factor, 0.0), frame_width - 1.0);
  const int y1 = (int)fmin(fmax(floor(low[1]) - factor, 0.0), frame_height - 1.0);
  const int x2 = (int)fmin(fmax(ceil(high[0]) + factor, 1.0), (double)frame_width);
  const int y2 = (int)fmin(fmax(ceil(high[1]) + factor, 1.0), (double)frame_height);
  const int width = (x2 - x1) / factor, height = (y2 - y1) / factor;
  if (width < 1 || height < 1) return plan;
  // A block's centre is at (i + 0.5) factor - 0.5 of the frame.
  const double offset = (factor - 1) / 2.0;
  forward[2] += forward[0] * (x1 + offset) + forward[1] * (y1 + offset);
  forward[5] += forward[3] * (x1 + offset) + forward[4] * (y1 + offset);
  forward[0] *= factor;
  forward[1] *= factor;
  forward[3] *= factor;
  forward[4] *= factor;
  invert_similarity(forward, plan.m);
  plan.factor = factor;
  plan.left = x1;
  plan.top = y1;
  plan.width = width;
  plan.height = height;
  return plan;
}

// A pixel of the averaged picture, rounded to grey levels as the CPU's copy is; black outside.
template <typename Picture>
ARC_FN Pixel block_mean(const Picture& picture, const CropPlan& plan, int x, int y) {
  if (x < 0 || y < 0 || x >= plan.width || y >= plan.height) return {0.0f, 0.0f, 0.0f};
  if (plan.factor == 1) return picture.at(plan.left + x, plan.top + y);
  const int left = plan.left + x * plan.factor, top = plan.top + y * plan.factor;
  Pixel sum = {0.0f, 0.0f, 0.0f};
  for (int j = 0; j < plan.factor; ++j)
    for (int i = 0; i < plan.factor; ++i) sum = sum + picture.at(left + i, top + j);
  sum = sum * (1.0f / (float)(plan.factor * plan.factor));
  return {(float)to_u8(sum.b), (float)to_u8(sum.g), (float)to_u8(sum.r)};
}

template <typename Picture>
ARC_FN Pixel crop_pixel(const Picture& picture, const CropPlan& plan, int x, int y) {
  if (!plan.valid) return {0.0f, 0.0f, 0.0f};
  const double sx = plan.m[0] * x + plan.m[1] * y + plan.m[2], sy = plan.m[3] * x + plan.m[4] * y + plan.m[5];
  if (!(sx > -1.0 && sy > -1.0 && sx < plan.width && sy < plan.height)) return {0.0f, 0.0f, 0.0f};
  const int x0 = (int)floor(sx), y0 = (int)floor(sy);
  const float fx = (float)(sx - x0), fy = (float)(sy - y0);
  return (block_mean(picture, plan, x0, y0) * (1.0f - fx) + block_mean(picture, plan, x0 + 1, y0) * fx) * (1.0f - fy) +
         (block_mean(picture, plan, x0, y0 + 1) * (1.0f - fx) + block_mean(picture, plan, x0 + 1, y0 + 1) * fx) * fy;
}

}  // namespace arc
