// SPDX-License-Identifier: Apache-2.0
// For targets that take no hints: what amd.h spells out for its compiler, as it goes without saying elsewhere. Included
// at the end of the target's header.
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
