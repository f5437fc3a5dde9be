// SPDX-License-Identifier: Apache-2.0
#include "operands.h"

#include <cstring>

namespace amdgpu::detail {

namespace {

// Eight lanes of a mask at once: the bits spread to bytes of 0 or 1, and back.
uint64_t bytes_of_bits(uint64_t bits) {
  const uint64_t each = (bits & 0xff) * 0x0101010101010101u & 0x8040201008040201u;  // byte n keeps bit n
  return (each + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
}
uint64_t bits_of_bytes(uint64_t bytes) { return bytes * 0x0102040810204080u >> 56; }

template <int L>
void spread(uint64_t mask, bool (&lane)[L]) {
  for (int l = 0; l < L; l += 8) {
    const uint64_t bytes = bytes_of_bits(mask >> l);
    std::memcpy(&lane[l], &bytes, 8);
  }
}

template <int L>
uint64_t collect(const bool (&lane)[L]) {
  uint64_t mask = 0;
  for (int l = 0; l < L; l += 8) {
    uint64_t bytes;
    std::memcpy(&bytes, &lane[l], 8);
    mask |= bits_of_bytes(bytes) << l;
  }
  return mask;
}

template <int L, class T>
void gather_packed(const Wave<L>& w, const Operand& o, T (&room)[L]) {
  using Element = BitsOf<decltype(T::low)>;
  constexpr int kHighUp = 8 * sizeof(Element);
  const bool low_from_high = o.flags & operand_flag::kLowFromHigh,
             high_from_high = o.flags & operand_flag::kHighFromHigh;
  const SignChange<Element> low_sign(o.flags);
  const SignChange<Element> high_sign((o.flags & operand_flag::kAbsolute) |
                                      (o.flags & operand_flag::kNegateHigh ? operand_flag::kNegate : 0));
  if (o.kind != Kind::kVector) {
    const uint64_t word = w.scalar(o);
    const auto low = low_sign(static_cast<Element>(word >> (low_from_high ? kHighUp : 0)));
    const auto high = high_sign(static_cast<Element>(word >> (high_from_high ? kHighUp : 0)));
    const auto both = static_cast<BitsOf<T>>(low | static_cast<BitsOf<T>>(high) << kHighUp);
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(both);
  } else if constexpr (sizeof(T) == 8) {
    const uint32_t *low = w.v[o.reg + low_from_high], *high = w.v[o.reg + high_from_high];
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(low_sign(low[l]) | uint64_t{high_sign(high[l])} << 32);
  } else {
    const uint32_t* word = w.v[o.reg];
    const int low = low_from_high ? 16 : 0, high = high_from_high ? 0 : 16;
    const uint32_t keep = low_sign.keep | uint32_t{high_sign.keep} << 16;
    const uint32_t flip = low_sign.flip | uint32_t{high_sign.flip} << 16;
    for (int l = 0; l < L; ++l) {
      const uint32_t both = (word[l] >> low & 0xffffu) | (word[l] << high & 0xffff0000u);
      room[l] = std::bit_cast<T>((both & keep) ^ flip);
    }
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
  for (int l = 0; l < L; ++l) room[l] = {o.kind == Kind::kVector ? w.v[o.reg][l] : value, has_signs};
}

template <int L, class T>
void gather_plain(const Wave<L>& w, const Operand& o, T (&room)[L]) {
  using Bits = BitsOf<T>;
  const SignChange<Bits> sign(o.flags);
  const bool extend = o.flags & operand_flag::kSignExtend;
  if (o.kind != Kind::kVector) {
    uint64_t value = w.scalar(o);
    if (o.part != Part::kWhole) value = take_part(static_cast<uint32_t>(value), o.part, extend);
    const T all = std::bit_cast<T>(sign(static_cast<Bits>(value)));
    for (int l = 0; l < L; ++l) room[l] = all;
  } else if constexpr (sizeof(T) == 8) {
    const uint32_t *low = w.v[o.reg], *high = w.v[o.reg + 1];
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(sign(low[l] | uint64_t{high[l]} << 32));
  } else if (sizeof(T) == 2 && o.part <= Part::kHigh) {
    const uint32_t* word = w.v[o.reg];
    const int at = part_at(o.part);
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(sign(static_cast<Bits>(word[l] >> at)));
  } else if (o.part == Part::kWhole) {
    const uint32_t* word = w.v[o.reg];
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(sign(static_cast<Bits>(word[l])));
  } else {
    const uint32_t* word = w.v[o.reg];
    for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(sign(static_cast<Bits>(take_part(word[l], o.part, extend))));
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
void shape_output(const Instruction& i, R (&r)[L]) {
  const bool clamp = i.flags & instruction_flag::kClamp, scale = i.flags & instruction_flag::kOutputMask;
  if (!clamp && !scale) return;
  if constexpr (std::is_floating_point_v<R>) {
    const R factor = output_factor<R>(i);
    for (int l = 0; l < L; ++l) r[l] *= factor;
    for (int l = 0; l < L; ++l) r[l] = clamp ? clamped(r[l]) : r[l];
  } else if constexpr (std::is_same_v<R, Half>) {
    const float factor = output_factor<float>(i);
    for (int l = 0; l < L; ++l) r[l] = to_half(to_float(r[l]) * factor);
    for (int l = 0; l < L; ++l) r[l] = clamp ? clamped(r[l]) : r[l];
  } else if constexpr (std::is_same_v<R, HalfPair> || std::is_same_v<R, FloatPair>) {
    for (int l = 0; l < L; ++l) r[l] = clamp ? R{clamped(r[l].low), clamped(r[l].high)} : r[l];
  }
}

}  // namespace

template <int L, class T>
void Access<L, T>::gather(const Wave<L>& w, const Operand& o, T (&room)[L]) {
  if constexpr (std::is_same_v<T, bool>) spread<L>(w.mask(o), room);
  else if constexpr (std::is_same_v<T, Mixed>) gather_mixed<L>(w, o, room);
  else if constexpr (std::is_same_v<T, Integers>) gather_integers<L>(w, o, room);
  else if constexpr (kPacked<T>) gather_packed<L, T>(w, o, room);
  else gather_plain<L, T>(w, o, room);
}

template <int L, class R>
void Access<L, R>::write(Wave<L>& w, const Instruction& i, const Operand& o, R (&r)[L]) {
  if constexpr (std::is_same_v<R, bool>) {
    w.set_mask(o.reg, collect<L>(r) & w.exec());
  } else {
    shape_output<L>(i, r);
    uint32_t word[L];
    if constexpr (sizeof(R) == 8) {
      for (int half = 0; half < 2; ++half) {
        for (int l = 0; l < L; ++l) word[l] = static_cast<uint32_t>(std::bit_cast<uint64_t>(r[l]) >> (32 * half));
        write_words<L>(w, o.reg + half, word);
      }
    } else {
      if (sizeof(R) == 4 && o.part == Part::kWhole) return write_words<L>(w, o.reg, reinterpret_cast<uint32_t*>(r));
      for (int l = 0; l < L; ++l) word[l] = std::bit_cast<BitsOf<R>>(r[l]);
      if (o.part != Part::kWhole) {
        const int at = part_at(o.part);
        const uint32_t bits = (o.part >= Part::kByte0 ? 0xffu : 0xffffu) << at;
        const uint32_t kept = o.flags & operand_flag::kZeroRest ? 0 : ~bits;
        const uint32_t* old = w.v[o.reg];
        for (int l = 0; l < L; ++l) word[l] = (word[l] << at & bits) | (old[l] & kept);
      }
      write_words<L>(w, o.reg, word);
    }
  }
}

Handler handler(std::string name, Run<32> run32, Run<64> run64, const char* types, Flow flow) {
  return {std::move(name), run32, run64, types, flow};
}

template struct Access<32, bool>;
template struct Access<32, uint16_t>;
template struct Access<32, int16_t>;
template struct Access<32, uint32_t>;
template struct Access<32, int32_t>;
template struct Access<32, uint64_t>;
template struct Access<32, int64_t>;
template struct Access<32, Half>;
template struct Access<32, float>;
template struct Access<32, double>;
template struct Access<32, Pair>;
template struct Access<32, HalfPair>;
template struct Access<32, FloatPair>;
template struct Access<32, Mixed>;
template struct Access<32, Integers>;
template struct Access<64, bool>;
template struct Access<64, uint16_t>;
template struct Access<64, int16_t>;
template struct Access<64, uint32_t>;
template struct Access<64, int32_t>;
template struct Access<64, uint64_t>;
template struct Access<64, int64_t>;
template struct Access<64, Half>;
template struct Access<64, float>;
template struct Access<64, double>;
template struct Access<64, Pair>;
template struct Access<64, HalfPair>;
template struct Access<64, FloatPair>;
template struct Access<64, Mixed>;
template struct Access<64, Integers>;

}  // namespace amdgpu::detail
