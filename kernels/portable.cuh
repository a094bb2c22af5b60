// What lets one source be compiled by nvcc for GPUs and by a C++ compiler for the tests.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define ARC_FN __host__ __device__ __forceinline__
#else
#define ARC_FN inline
#endif

namespace arc {

ARC_FN int imin(int a, int b) { return a < b ? a : b; }
ARC_FN int imax(int a, int b) { return a > b ? a : b; }
ARC_FN int clampi(int value, int low, int high) { return imin(imax(value, low), high); }

// Nearest grey level, ties to even as OpenCV rounds.
ARC_FN uint8_t to_u8(float value) { return (uint8_t)clampi((int)rintf(value), 0, 255); }

struct Pixel {
  float b, g, r;
};

ARC_FN Pixel operator*(Pixel p, float w) { return {p.b * w, p.g * w, p.r * w}; }
ARC_FN Pixel operator+(Pixel p, Pixel q) { return {p.b + q.b, p.g + q.g, p.r + q.r}; }

}  // namespace arc
