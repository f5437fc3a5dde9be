// SPDX-License-Identifier: Apache-2.0
// Vector instructions on 32-bit floats.
#include "elementwise.h"
#include "tables.h"

namespace amdgpu {

Handlers vector_float() {
  static const Handler table[] = {
      lanes<[](float a, float b) { return a + b; }>("v_add_f32"),
      lanes<[](float a, float b) { return a - b; }>("v_sub_f32"),
      lanes<[](float a, float b) { return b - a; }>("v_subrev_f32"),
      lanes<[](float a, float b) { return a * b; }>("v_mul_f32"),
      lanes<[](float a, float b, float c) { return std::fma(a, b, c); }>("v_fma_f32"),
      lanes<[](Half a) { return to_float(a); }>("v_cvt_f32_f16"),
      lanes<[](float a) { return to_half(a); }>("v_cvt_f16_f32"),
  };
  return table;
}

}  // namespace amdgpu
