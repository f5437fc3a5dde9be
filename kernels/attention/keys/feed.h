// SPDX-License-Identifier: Apache-2.0
// What a loop asks of a feed, which brings a workgroup its tiles of keys. For tiles [first, end) of an item:
//   start(first, end)
//   per tile: wait(), key_piece of all its keys, next_keys(tile + 1), values of all its keys, next(tile + 1)
//   finish()
// A feed that has restart(request, head, seen, first, end) may be restarted for the next item after finish(); others
// are made anew. Its Shared is the part of the workgroup's shared memory that it needs.
#pragma once

namespace rocmforge {

template <class K>
concept KeyFeed = requires(K keys, int tile) {
  typename K::Shared;
  keys.start(tile, tile);
  keys.wait();
  keys.next(tile);
  keys.finish();
};

// Gives each wave the operands of its products: piece P of the dims of key tile J, as R::kSteps operands; and of
// values, for operand Op of group G of the second product, band by band runs of dims of the keys' rows, or operands of
// a tile.
template <class K>
concept WaveFeed =
    KeyFeed<K> && requires(K keys, int tile, typename K::Operand* operands, typename K::FirstRuns& runs) {
      keys.next_keys(tile);
      keys.template key_piece<0, 0>(operands);
      requires K::kTransposed || requires { keys.template value_runs<0, 0, 0>(runs); };
      requires !K::kTransposed || requires { keys.template value_operand<0, 0, 0>(); };
    };

}  // namespace rocmforge
