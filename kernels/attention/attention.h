// SPDX-License-Identifier: Apache-2.0
// Paged attention, for decode and prefill alike. A workgroup walks its share of the plan (schedule/segments.h); per
// item it keeps the queries and the output in registers (rows/) and a loop (loops/) streams tiles of keys (keys/) past
// them, through the running softmax; what came of it is written (rows/results.h). What is computed is the problem
// (problem/), how is the choice (tuning/).
#pragma once

#include "keys/head_start.h"
#include "loops/key_rows.h"
#include "loops/warpgroup.h"
#include "loops/waves.h"
#include "problem/problem.h"
#include "rows/results.h"
#include "tuning/choice.h"

namespace rocmforge {

template <class G, class Loop>
struct LoopOf;
template <class G, class Feed>
struct LoopOf<G, Waves<Feed>> {
  using Type = WaveLoop<G, Feed>;
};
template <class G>
struct LoopOf<G, Warpgroups> {
  using Type = WarpgroupLoop<G>;
};

template <class G>
struct LoopOf<G, KeyRows> {
  using Type = KeyRowsLoop<G>;
};

template <class Core, class Problem, auto kChoice>
struct Attention {
  using Args = AttentionArgs;
  using G = Geometry<Core, Problem, kChoice>;
  using R = typename G::R;
  using Loop = typename LoopOf<G, typename decltype(kChoice)::Loop>::Type;
  using Keys = typename Loop::Keys;
  using State = typename Loop::State;
  using Result = Results<G>;

  struct Shared {
    union {
      typename Keys::Shared keys;
      typename Result::Merge merge;
    };
    typename Loop::Shared loop;
  };
  static constexpr int kWavesPerUnit = kChoice.residency.simd_waves;
  static constexpr LaunchConfig kConfig{.wave = R::kWave,
                                        .threads = G::kThreads,
                                        .shared_bytes = sizeof(Shared),
                                        .rows = G::kBlockRows,
                                        .keys = G::kTileKeys,
                                        .blocks_per_unit = kChoice.residency.blocks_per_unit,
                                        .prefers_shared = !__is_same(typename decltype(kChoice)::Loop, Waves<Direct>),
                                        .rounds = kChoice.residency.rounds,
                                        .row_elements = G::Format::kRowElements,
                                        .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    const Plan plan{args.work.plan, args.work.workgroups};
    const Share share = plan.share(block_index(0));
    const RowBlock block = plan.first_block(block_index(0));  // asked for at once, whether there is one or not
    issue_loads(share);
    issue_loads(block);
    if constexpr (kEarlyLaunch) fetch_first_keys<typename G::Format>(args.keys, share, block, G::kTileKeys);
    wait_for_previous();
    let_next_start();  // combine, which fits beside us once a workgroup has ended
    Segments<R::kWave, kChoice.residency.rounds> segments;
    Segment seg;
    if (!segments.first(args, share, block, seg)) return;
    Shared& shared = shared_memory<Shared>();
    if constexpr (requires(Keys keys, KeySpan seen) { keys.restart(0, 0, seen, 0, 0); }) {
      mark_whole(args, seg);
      // The next item's copies are under way while this one's result is written.
      fetch_queries(args, seg);
      Keys keys = start_keys(args, seg);
      for (bool more = true; more;) {
        const Segment done = seg;
        State state;
        Loop::attend(args, done, shared.loop, keys, state);
        more = segments.next(args, seg);
        if (more) mark_whole(args, seg);
        if (more && seg.end > seg.begin) {
          fetch_queries(args, seg);
          keys.restart(seg.request, seg.head, item_keys<G>(args, seg), seg.first_tile + seg.begin,
                       seg.first_tile + seg.end);
        }
        if constexpr (kWritesItself) Loop::write(args, done, shared.loop, state);
        else Result::write(args, done, shared.merge, state);
      }
    } else {
      do {
        const Args& again = reload_args(args);
        mark_whole(again, seg);
        Keys keys = start_keys(again, seg);
        State state;
        Loop::attend(again, seg, shared.loop, keys, state);
        Result::write(again, seg, shared.merge, state);
      } while (segments.next(args, seg));
    }
  }

 private:
  // Of fixed parts one that has all tiles of its rows is whole.
  RF_DEVICE static void mark_whole(const Args& args, Segment& seg) {
    if (!args.work.fixed_parts) return;
    const KeySpan keys = item_keys<G>(args, seg);
    if (seg.tiles == ceil_div(keys.last + 1, G::kTileKeys) - keys.first / G::kTileKeys) seg.place = Segment::kWhole;
  }

  static constexpr bool kWritesItself = requires(const Args& args, const Segment& seg, typename Loop::Shared& shared,
                                                 State& state) { Loop::write(args, seg, shared, state); };

  // Where they are copied, as the keys are: before these, so that they do not come in behind two tiles.
  RF_DEVICE static void fetch_queries(const Args& args, const Segment& seg) {
    if constexpr (requires(typename Loop::Shared& shared) { Loop::fetch_queries(args, seg, shared); }) {
      if (seg.end > seg.begin) Loop::fetch_queries(args, seg, shared_memory<Shared>().loop);
    }
  }

  RF_DEVICE static Keys start_keys(const Args& args, const Segment& seg) {
    Keys keys(args.keys, shared_memory<Shared>().keys, seg.request, seg.head, item_keys<G>(args, seg), G::key_wave());
    if (seg.end > seg.begin) keys.start(seg.first_tile + seg.begin, seg.first_tile + seg.end);
    return keys;
  }
};

}  // namespace rocmforge
