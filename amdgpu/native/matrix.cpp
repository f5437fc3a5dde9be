// SPDX-License-Identifier: Apache-2.0
// MFMA (CDNA) and WMMA (RDNA). MFMA ignores EXEC, as its manuals say; WMMA is refused if a lane is off.
#include "matrix.h"

#include <string>

#include "matrix_elements.h"
#include "matrix_product.h"
#include "tables.h"
#include "wave.h"

namespace amdgpu {

namespace {

using namespace matrix_element;  // NOLINT: of this file only
using namespace matrix_product;  // NOLINT

// How C and D lie in registers: element r of a lane is in register r / kPerWord.
template <class T, bool Flush = false>
struct Words {
  using Value = T;
  static constexpr int kPerWord = 1;
  static constexpr char kLetter = std::is_same_v<T, float> ? 'f' : 'i';
  static int shift(int, const Operand&) { return 0; }
  static T value(uint32_t word, int) {
    if constexpr (Flush) return flushed(std::bit_cast<T>(word));
    else return std::bit_cast<T>(word);
  }
  static uint32_t word(T value, uint32_t, int) {
    if constexpr (Flush) value = flushed(value);
    return std::bit_cast<uint32_t>(value);
  }
};

// 16 bits: two to a word (RDNA 4), or one in the half that op_sel of C names (RDNA 3), the other of which stays. The
// sum is a float's and is rounded once, at the end.
template <bool Bf16, int PerWord>
struct Halfwords {
  using Value = float;
  static constexpr int kPerWord = PerWord;
  static constexpr char kLetter = Bf16 ? 't' : 'h';
  static int shift(int r, const Operand& c) {
    return PerWord == 2 ? 16 * (r % 2) : c.flags & operand_flag::kLowFromHigh ? 16 : 0;
  }
  static float value(uint32_t word, int shift) {
    const auto bits = static_cast<uint16_t>(word >> shift);
    if constexpr (Bf16) return bf16_to_float(bits);
    else return to_float(Half{bits});
  }
  static uint32_t word(float value, uint32_t old, int shift) {
    uint32_t bits;
    if constexpr (Bf16) bits = float_to_bf16(value);
    else bits = to_half(value).bits;
    return (old & ~(0xffffu << shift)) | bits << shift;
  }
};

template <class S, class Out, int L, class T>
void read_c(const Wave<L>& w, const Operand& o, T (*d)[S::M]) {
  if (o.kind != Kind::kVector) {
    const T value = Out::value(static_cast<uint32_t>(w.scalar(o)), 0);
    for (int row = 0; row < S::M * S::kBlocks; ++row) columns<S::M>([&](int c) { d[row][c] = value; });
    return;
  }
  for (int r = 0; r < S::kResults; ++r) {
    const uint32_t* from = w.v[o.reg + r / Out::kPerWord];
    const int shift = Out::shift(r, o);
    for (int g = 0; g < L / S::M; ++g)
      columns<S::M>([&](int c) { d[S::Rows::row(g, r)][c] = Out::value(from[g * S::M + c], shift); });
  }
}

template <class S, class Out, int L, class T>
void write_d(Wave<L>& w, const Operand& o, const Operand& c, const T (*d)[S::M]) {
  for (int r = 0; r < S::kResults; ++r) {
    uint32_t* to = w.v[o.reg + r / Out::kPerWord];
    const int shift = Out::shift(r, c);
    for (int g = 0; g < L / S::M; ++g) {
      columns<S::M>([&](int c) {
        uint32_t& word = to[g * S::M + c];
        word = Out::word(d[S::Rows::row(g, r)][c], word, shift);
      });
    }
  }
}

// RDNA 3: lanes 16 to 31 hold copies of what lanes 0 to 15 hold of A and B.
template <int L>
void check_copies(const Wave<L>& w, const Instruction& i, int operand) {
  const Operand& o = i.operand[operand];
  for (int q = 0; q < o.count; ++q) {
    for (int l = 0; l < 16; ++l) {
      if (w.v[o.reg + q][l] == w.v[o.reg + q][l + 16]) continue;
      w.fail(i, "lane " + std::to_string(l + 16) + " does not hold lane " + std::to_string(l) + "'s copy of v" +
                    std::to_string(o.reg + q));
    }
  }
}

// D, A, B, C; D may be registers of the others. Signs can be changed in no way but that of SignedByFlags.
template <class S, class A, class B, class Out>
struct Product {
  using T = typename Out::Value;

  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    if constexpr (L != S::kLanes) {
      w.fail(i, "of waves of " + std::to_string(S::kLanes) + " lanes only");
    } else {
      if (L == 32 && w.exec() != w.kAll) w.fail(i, "with lanes off in EXEC is not modelled");
      // Which 16 bits the assembler's constants are here, it does not say.
      if (Out::kLetter == 't' && i.operand[3].kind == Kind::kConstant && w.constant(i.operand[3]) != 0) {
        w.fail(i, "with a constant for C is not modelled");
      }
      if (w.group->checked && S::kGroups * S::M < L) check_copies(w, i, 1), check_copies(w, i, 2);
      for (int at = 1; at < 4 && std::is_same_v<T, float>; ++at) {
        constexpr int kSigns = operand_flag::kNegate | operand_flag::kNegateHigh;
        if (i.operand[at].flags & kSigns) w.fail(i, "with neg_lo or neg_hi is not modelled");
      }
      alignas(64) T a[S::K * S::kBlocks][S::M], b[S::K * S::kBlocks][S::M], d[S::M * S::kBlocks][S::M];
      unpack<A, S>(w.v + i.operand[1].reg, a);
      unpack<B, S>(w.v + i.operand[2].reg, b);
      read_c<S, Out>(w, i.operand[3], d);
      multiply<S, T>(d, a, b);
      write_d<S, Out>(w, i.operand[0], i.operand[3], d);
    }
  }

  static Handler named(const char* name) {
    return {name, run<32>, run<64>, std::string("x:xx") + Out::kLetter, Flow::kOwn};
  }
};

// Whether bytes have signs, the operands' flags say.
template <class S>
struct SignedByFlags {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const bool a = i.operand[1].flags & operand_flag::kNegate, b = i.operand[2].flags & operand_flag::kNegate;
    using Out = Words<int32_t>;
    if (i.flags & instruction_flag::kClamp) w.fail(i, "with clamp is not modelled");
    if (a && b) Product<S, Int8<true>, Int8<true>, Out>::run(w, i);
    else if (a) Product<S, Int8<true>, Int8<false>, Out>::run(w, i);
    else if (b) Product<S, Int8<false>, Int8<true>, Out>::run(w, i);
    else Product<S, Int8<false>, Int8<false>, Out>::run(w, i);
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, "x:xxi", Flow::kOwn}; }
};

// CDNA, by size, depth and number of blocks.
template <int K>
using Mfma16 = Shape<64, 16, K, 1, 4, FourByGroup>;
template <int K>
using Mfma32 = Shape<64, 32, K, 1, 2, EightByPair>;
template <int K>
using Mfma16Times4 = Shape<64, 16, K, 4, 4, FourByGroup>;
template <int K>
using Mfma32Times2 = Shape<64, 32, K, 2, 2, EightByPair>;
template <int K>
using Mfma4Times16 = Shape<64, 4, K, 16, 16, BlockByGroup>;
using Wmma11 = Shape<32, 16, 16, 1, 1, Interleaved>;
using Wmma12 = Shape<32, 16, 16, 1, 2, Halves>;

template <class S, class E, bool Flush = false>
using Floats = Product<S, E, E, Words<float, Flush>>;
template <class S, class A, class B>
using SmallFloats = Product<S, Small<A>, Small<B>, Words<float>>;
template <class S>
using Bytes = Product<S, Int8<true>, Int8<true>, Words<int32_t>>;

}  // namespace

Handlers matrix() {
  using Half16 = F16<false>;
  using Brain16 = Bf16<false>;
  using HalfFlushed = F16<true>;
  using BrainFlushed = Bf16<true>;
  static const Handler table[] = {
      Floats<Mfma16<4>, F32>::named("v_mfma_f32_16x16x4_f32"),
      Floats<Mfma32<2>, F32>::named("v_mfma_f32_32x32x2_f32"),
      Floats<Mfma16Times4<1>, F32>::named("v_mfma_f32_16x16x1_4b_f32"),
      Floats<Mfma32Times2<1>, F32>::named("v_mfma_f32_32x32x1_2b_f32"),
      Floats<Mfma4Times16<1>, F32>::named("v_mfma_f32_4x4x1_16b_f32"),

      Floats<Mfma16<16>, Half16>::named("v_mfma_f32_16x16x16_f16"),
      Floats<Mfma16<32>, Half16>::named("v_mfma_f32_16x16x32_f16"),
      Floats<Mfma32<8>, Half16>::named("v_mfma_f32_32x32x8_f16"),
      Floats<Mfma32<16>, Half16>::named("v_mfma_f32_32x32x16_f16"),
      Floats<Mfma16Times4<4>, Half16>::named("v_mfma_f32_16x16x4_4b_f16"),
      Floats<Mfma32Times2<4>, Half16>::named("v_mfma_f32_32x32x4_2b_f16"),
      Floats<Mfma4Times16<4>, Half16>::named("v_mfma_f32_4x4x4_16b_f16"),

      Floats<Mfma16<16>, Brain16>::named("v_mfma_f32_16x16x16_bf16"),
      Floats<Mfma16<32>, Brain16>::named("v_mfma_f32_16x16x32_bf16"),
      Floats<Mfma32<8>, Brain16>::named("v_mfma_f32_32x32x8_bf16"),
      Floats<Mfma32<16>, Brain16>::named("v_mfma_f32_32x32x16_bf16"),
      Floats<Mfma16Times4<4>, Brain16>::named("v_mfma_f32_16x16x4_4b_bf16"),
      Floats<Mfma32Times2<4>, Brain16>::named("v_mfma_f32_32x32x4_2b_bf16"),
      Floats<Mfma4Times16<4>, Brain16>::named("v_mfma_f32_4x4x4_16b_bf16"),

      // MI200's own spelling: these flush denormals. Without _1k, bf16 has half the depth.
      Floats<Mfma16<16>, HalfFlushed, true>::named("v_mfma_f32_16x16x16f16"),
      Floats<Mfma32<8>, HalfFlushed, true>::named("v_mfma_f32_32x32x8f16"),
      Floats<Mfma16Times4<4>, HalfFlushed, true>::named("v_mfma_f32_16x16x4f16"),
      Floats<Mfma32Times2<4>, HalfFlushed, true>::named("v_mfma_f32_32x32x4f16"),
      Floats<Mfma4Times16<4>, HalfFlushed, true>::named("v_mfma_f32_4x4x4f16"),
      Floats<Mfma16<16>, BrainFlushed, true>::named("v_mfma_f32_16x16x16bf16_1k"),
      Floats<Mfma32<8>, BrainFlushed, true>::named("v_mfma_f32_32x32x8bf16_1k"),
      Floats<Mfma16Times4<4>, BrainFlushed, true>::named("v_mfma_f32_16x16x4bf16_1k"),
      Floats<Mfma32Times2<4>, BrainFlushed, true>::named("v_mfma_f32_32x32x4bf16_1k"),
      Floats<Mfma4Times16<4>, BrainFlushed, true>::named("v_mfma_f32_4x4x4bf16_1k"),
      Floats<Mfma16<8>, BrainFlushed, true>::named("v_mfma_f32_16x16x8bf16"),
      Floats<Mfma32<4>, BrainFlushed, true>::named("v_mfma_f32_32x32x4bf16"),

      SmallFloats<Mfma16<32>, Fp8, Fp8>::named("v_mfma_f32_16x16x32_fp8_fp8"),
      SmallFloats<Mfma16<32>, Fp8, Bf8>::named("v_mfma_f32_16x16x32_fp8_bf8"),
      SmallFloats<Mfma16<32>, Bf8, Fp8>::named("v_mfma_f32_16x16x32_bf8_fp8"),
      SmallFloats<Mfma16<32>, Bf8, Bf8>::named("v_mfma_f32_16x16x32_bf8_bf8"),
      SmallFloats<Mfma32<16>, Fp8, Fp8>::named("v_mfma_f32_32x32x16_fp8_fp8"),
      SmallFloats<Mfma32<16>, Fp8, Bf8>::named("v_mfma_f32_32x32x16_fp8_bf8"),
      SmallFloats<Mfma32<16>, Bf8, Fp8>::named("v_mfma_f32_32x32x16_bf8_fp8"),
      SmallFloats<Mfma32<16>, Bf8, Bf8>::named("v_mfma_f32_32x32x16_bf8_bf8"),
      SmallFloats<Mfma16<32>, Fp8Fnuz, Fp8Fnuz>::named("v_mfma_f32_16x16x32_fp8_fp8_fnuz"),
      SmallFloats<Mfma16<32>, Fp8Fnuz, Bf8Fnuz>::named("v_mfma_f32_16x16x32_fp8_bf8_fnuz"),
      SmallFloats<Mfma16<32>, Bf8Fnuz, Fp8Fnuz>::named("v_mfma_f32_16x16x32_bf8_fp8_fnuz"),
      SmallFloats<Mfma16<32>, Bf8Fnuz, Bf8Fnuz>::named("v_mfma_f32_16x16x32_bf8_bf8_fnuz"),
      SmallFloats<Mfma32<16>, Fp8Fnuz, Fp8Fnuz>::named("v_mfma_f32_32x32x16_fp8_fp8_fnuz"),
      SmallFloats<Mfma32<16>, Fp8Fnuz, Bf8Fnuz>::named("v_mfma_f32_32x32x16_fp8_bf8_fnuz"),
      SmallFloats<Mfma32<16>, Bf8Fnuz, Fp8Fnuz>::named("v_mfma_f32_32x32x16_bf8_fp8_fnuz"),
      SmallFloats<Mfma32<16>, Bf8Fnuz, Bf8Fnuz>::named("v_mfma_f32_32x32x16_bf8_bf8_fnuz"),

      Bytes<Mfma16<16>>::named("v_mfma_i32_16x16x16_i8"),
      Bytes<Mfma32<8>>::named("v_mfma_i32_32x32x8_i8"),
      Bytes<Mfma16<32>>::named("v_mfma_i32_16x16x32_i8"),
      Bytes<Mfma32<16>>::named("v_mfma_i32_32x32x16_i8"),
      Bytes<Mfma16<64>>::named("v_mfma_i32_16x16x64_i8"),
      Bytes<Mfma32<32>>::named("v_mfma_i32_32x32x32_i8"),
      Bytes<Mfma16Times4<4>>::named("v_mfma_i32_16x16x4_4b_i8"),
      Bytes<Mfma32Times2<4>>::named("v_mfma_i32_32x32x4_2b_i8"),
      Bytes<Mfma4Times16<4>>::named("v_mfma_i32_4x4x4_16b_i8"),

      Floats<Wmma11, Half16>::named("v_wmma_f32_16x16x16_f16"),
      Floats<Wmma11, Brain16>::named("v_wmma_f32_16x16x16_bf16"),
      Product<Wmma11, Half16, Half16, Halfwords<false, 1>>::named("v_wmma_f16_16x16x16_f16"),
      Product<Wmma11, Brain16, Brain16, Halfwords<true, 1>>::named("v_wmma_bf16_16x16x16_bf16"),
      SignedByFlags<Wmma11>::named("v_wmma_i32_16x16x16_iu8"),

      Floats<Wmma12, Half16>::named("v_wmma_f32_16x16x16_f16_gfx12"),
      Floats<Wmma12, Brain16>::named("v_wmma_f32_16x16x16_bf16_gfx12"),
      Product<Wmma12, Half16, Half16, Halfwords<false, 2>>::named("v_wmma_f16_16x16x16_f16_gfx12"),
      Product<Wmma12, Brain16, Brain16, Halfwords<true, 2>>::named("v_wmma_bf16_16x16x16_bf16_gfx12"),
      SmallFloats<Wmma12, Fp8, Fp8>::named("v_wmma_f32_16x16x16_fp8_fp8_gfx12"),
      SmallFloats<Wmma12, Fp8, Bf8>::named("v_wmma_f32_16x16x16_fp8_bf8_gfx12"),
      SmallFloats<Wmma12, Bf8, Fp8>::named("v_wmma_f32_16x16x16_bf8_fp8_gfx12"),
      SmallFloats<Wmma12, Bf8, Bf8>::named("v_wmma_f32_16x16x16_bf8_bf8_gfx12"),
      SignedByFlags<Wmma12>::named("v_wmma_i32_16x16x16_iu8_gfx12"),
  };
  return table;
}

}  // namespace amdgpu
