// SPDX-License-Identifier: Apache-2.0
#include "operands.h"

#include <cstring>

namespace amdgpu::detail {

namespace {

template <int L>
void spread(uint64_t mask, uint32_t (&lane)[L]) {
  for (int first = 0; first < L; first += 32) {
    const auto bits = static_cast<uint32_t>(mask >> first);
    for (int l = 0; l < 32; ++l) lane[first + l] = bits >> l & 1u;
  }
}

template <int L>
uint64_t collect(const uint32_t (&lane)[L]) {
  uint8_t bytes[L];
  for (int l = 0; l < L; ++l) bytes[l] = static_cast<uint8_t>(lane[l]);
  uint64_t mask = 0;
  for (int l = 0; l < L; l += 8) {  // the product has byte n, which is 0 or 1, at bit 56 + n
    uint64_t eight;
    std::memcpy(&eight, &bytes[l], 8);
    mask |= eight * 0x0102040810204080u >> 56 << l;
  }
  return mask;
}

// Of a pair in one word.
template <int L, class T>
void gather_pair(const Wave<L>& w, const Operand& o, T (&room)[L]) {
  const int low = o.flags & operand_flag::kLowFromHigh ? 16 : 0, high = o.flags & operand_flag::kHighFromHigh ? 0 : 16;
  constexpr uint32_t kSigns = 0x80008000u;
  const uint32_t keep = o.flags & operand_flag::kAbsolute ? ~kSigns : ~0u;
  const uint32_t flip = (o.flags & operand_flag::kNegate ? kSigns & 0xffffu : 0u) |
                        (o.flags & operand_flag::kNegateHigh ? kSigns & 0xffff0000u : 0u);
  const auto chosen = [=](uint32_t word) {
    return (((word >> low & 0xffffu) | (word << high & 0xffff0000u)) & keep) ^ flip;
  };
  auto* to = reinterpret_cast<uint32_t*>(room);
  if (o.kind == Kind::kVector) {
    const uint32_t* from = w.v[o.reg];
    for (int l = 0; l < L; ++l) to[l] = chosen(from[l]);
  } else {
    const uint32_t word = chosen(static_cast<uint32_t>(w.scalar(o)));
    for (int l = 0; l < L; ++l) to[l] = word;
  }
}

template <int L>
void gather_mixed(const Wave<L>& w, const Operand& o, Mixed (&room)[L]) {
  const bool half = o.part != Part::kWhole;
  const SignChange<uint32_t> sign(o.flags);
  const int at = part_at(o.part);
  uint32_t word[L];
  if (o.kind == Kind::kVector) {
    for (int l = 0; l < L; ++l) word[l] = w.v[o.reg][l];
  } else {
    const auto value = static_cast<uint32_t>(w.scalar(o));
    for (int l = 0; l < L; ++l) word[l] = value;
  }
  if (half) {
    for (int l = 0; l < L; ++l) word[l] = as_bits(to_float(Half{static_cast<uint16_t>(word[l] >> at)}));
  }
  for (int l = 0; l < L; ++l) room[l].value = as_float(sign(word[l]));
}

template <int L>
void gather_integers(const Wave<L>& w, const Operand& o, Integers (&room)[L]) {
  const uint32_t has_signs = o.flags & operand_flag::kNegate ? 1 : 0;
  const auto value = o.kind == Kind::kVector ? 0 : static_cast<uint32_t>(w.scalar(o));
  const uint32_t* from = o.kind == Kind::kVector ? w.v[o.reg] : nullptr;
  for (int l = 0; l < L; ++l) room[l] = {from ? from[l] : value, has_signs};
}

template <int L, class T>
void gather_plain(const Wave<L>& w, const Operand& o, Stored<T> (&room)[L]) {
  using Bits = BitsOf<T>;
  const SignChange<Bits> sign(o.flags);
  const bool extend = o.flags & operand_flag::kSignExtend;
  if (o.kind != Kind::kVector) {
    uint64_t value = w.scalar(o);
    if (o.part != Part::kWhole) value = take_part(static_cast<uint32_t>(value), o.part, extend);
    const Stored<T> all = stored(std::bit_cast<T>(sign(static_cast<Bits>(value))));
    for (int l = 0; l < L; ++l) room[l] = all;
  } else if constexpr (sizeof(T) == 8) {
    const uint32_t *low = w.v[o.reg], *high = w.v[o.reg + 1];
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(sign(low[l] | uint64_t{high[l]} << 32));
  } else if (sizeof(T) == 2 && o.part <= Part::kHigh) {
    const uint32_t* word = w.v[o.reg];
    const int at = part_at(o.part);
    for (int l = 0; l < L; ++l) room[l] = stored(std::bit_cast<T>(sign(static_cast<Bits>(word[l] >> at))));
  } else {
    const uint32_t* word = w.v[o.reg];
    const auto part = o.part;
    for (int l = 0; l < L; ++l) {
      room[l] = stored(std::bit_cast<T>(sign(static_cast<Bits>(take_part(word[l], part, extend)))));
    }
  }
}

template <class T>
T output_factor(const Instruction& i) {
  const int shift = (i.flags & instruction_flag::kOutputMask) / instruction_flag::kOutputShift / 2;
  return shift == 1 ? T(2) : shift == 2 ? T(4) : shift == 3 ? T(0.5) : T(1);
}

template <class T>
T clamped(T x) {  // NaN becomes 0
  return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}
Half clamped(Half x) {
  const float value = to_float(x);
  return value > 0 ? (value < 1 ? x : Half{0x3c00}) : Half{0};
}

template <int L, class R>
void shape_output(const Instruction& i, Stored<R> (&r)[L]) {
  const bool clamp = i.flags & instruction_flag::kClamp, scale = i.flags & instruction_flag::kOutputMask;
  if (!clamp && !scale) return;
  if constexpr (std::is_floating_point_v<R>) {
    const R factor = output_factor<R>(i);
    for (int l = 0; l < L; ++l) r[l] *= factor;
    for (int l = 0; l < L; ++l) r[l] = clamp ? clamped(r[l]) : r[l];
  } else if constexpr (std::is_same_v<R, Half>) {
    const float factor = output_factor<float>(i);
    for (int l = 0; l < L; ++l) {
      const Half x = to_half(to_float(loaded<Half>(r[l])) * factor);
      r[l] = stored(clamp ? clamped(x) : x);
    }
  } else if constexpr (std::is_same_v<R, HalfPair> || std::is_same_v<R, FloatPair>) {
    for (int l = 0; l < L; ++l) r[l] = clamp ? pair(clamped(r[l].low()), clamped(r[l].high())) : r[l];
  }
}

}  // namespace

template <int L, class T>
void ValuesOf<L, T>::gather(const Wave<L>& w, const Operand& o, Stored<T> (&room)[L]) {
  if constexpr (std::is_same_v<T, bool>) spread<L>(w.mask(o), room);
  else if constexpr (std::is_same_v<T, Mixed>) gather_mixed<L>(w, o, room);
  else if constexpr (std::is_same_v<T, Integers>) gather_integers<L>(w, o, room);
  else if constexpr (std::is_same_v<T, Pair> || std::is_same_v<T, HalfPair>) gather_pair<L, T>(w, o, room);
  else gather_plain<L, T>(w, o, room);
}

template <int L, class R>
void ValuesOf<L, R>::write(Wave<L>& w, const Instruction& i, const Operand& o, Stored<R> (&r)[L]) {
  if constexpr (std::is_same_v<R, bool>) {
    w.set_mask(o.reg, collect<L>(r) & w.exec());
  } else {
    shape_output<L, R>(i, r);
    uint32_t word[L];
    if constexpr (sizeof(R) == 8) {
      for (int half = 0; half < 2; ++half) {
        for (int l = 0; l < L; ++l) word[l] = static_cast<uint32_t>(std::bit_cast<uint64_t>(r[l]) >> (32 * half));
        write_words<L>(w, o.reg + half, word);
      }
    } else {
      if (o.part == Part::kWhole) return write_words<L>(w, o.reg, reinterpret_cast<uint32_t*>(r));
      for (int l = 0; l < L; ++l) word[l] = std::bit_cast<uint32_t>(r[l]);
      const int at = part_at(o.part);
      const uint32_t bits = (o.part >= Part::kByte0 ? 0xffu : 0xffffu) << at;
      const uint32_t kept = o.flags & operand_flag::kZeroRest ? 0 : ~bits;
      const uint32_t* old = w.v[o.reg];
      for (int l = 0; l < L; ++l) word[l] = (word[l] << at & bits) | (old[l] & kept);
      write_words<L>(w, o.reg, word);
    }
  }
}

Handler handler(std::string name, Run<32> run32, Run<64> run64, const char* types, Flow flow) {
  return {std::move(name), run32, run64, types, flow};
}

template struct ValuesOf<32, bool>;
template struct ValuesOf<32, uint16_t>;
template struct ValuesOf<32, int16_t>;
template struct ValuesOf<32, uint32_t>;
template struct ValuesOf<32, int32_t>;
template struct ValuesOf<32, uint64_t>;
template struct ValuesOf<32, int64_t>;
template struct ValuesOf<32, Half>;
template struct ValuesOf<32, float>;
template struct ValuesOf<32, double>;
template struct ValuesOf<32, Pair>;
template struct ValuesOf<32, HalfPair>;
template void ValuesOf<32, FloatPair>::write(Wave<32>&, const Instruction&, const Operand&, FloatPair (&)[32]);
template struct ValuesOf<32, Mixed>;
template struct ValuesOf<32, Integers>;
template struct ValuesOf<64, bool>;
template struct ValuesOf<64, uint16_t>;
template struct ValuesOf<64, int16_t>;
template struct ValuesOf<64, uint32_t>;
template struct ValuesOf<64, int32_t>;
template struct ValuesOf<64, uint64_t>;
template struct ValuesOf<64, int64_t>;
template struct ValuesOf<64, Half>;
template struct ValuesOf<64, float>;
template struct ValuesOf<64, double>;
template struct ValuesOf<64, Pair>;
template struct ValuesOf<64, HalfPair>;
template void ValuesOf<64, FloatPair>::write(Wave<64>&, const Instruction&, const Operand&, FloatPair (&)[64]);
template struct ValuesOf<64, Mixed>;
template struct ValuesOf<64, Integers>;

}  // namespace amdgpu::detail
