// SPDX-License-Identifier: Apache-2.0
// Hints, and forms of shuffles, that only amd.h has code of its own for: elsewhere a hint does nothing and a shuffle
// with a known lane is any other. Included at the end of the target's header.
#pragma once

namespace rocmforge {

template <class Args>
RF_DEVICE const Args& reload_args(const Args& args) {
  return args;
}

template <int Wave, int Mask, class T>
RF_DEVICE T shuffle_xor(T value) {
  return shuffle_xor<Wave>(value, Mask);
}

template <int Wave, class T>
RF_DEVICE T broadcast(T value, int source) {
  return shuffle<Wave>(value, source);
}

template <class V>
RF_DEVICE void materialize(V&) {}

RF_DEVICE void schedule_fence() {}

}  // namespace rocmforge
