// SPDX-License-Identifier: Apache-2.0
// Kernels that show what the runtime did with them; toy_scale.h decides one of their results.
#include "../target/device.h"
#include "toy_scale.h"

namespace rocmforge {

struct ToyArgs {
  int32_t* out;   // [blocks]
  int32_t blocks;
  int32_t width;  // grid[0]
  int32_t height; // grid[1]
};

// Adds to the block's own word: a block that runs twice, or not at all, shows.
struct ToyCount {
  using Args = ToyArgs;
  static constexpr int kWavesPerUnit = 1;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 4};
  RF_DEVICE static void run(const Args& args) {
    const int block = (block_index(2) * args.height + block_index(1)) * args.width + block_index(0);
    if (thread_index() == 0 && block < args.blocks) args.out[block] += TOY_SCALE;
  }
};

// Lane 0 waits in a barrier that no other lane reaches, in one block only.
struct ToyHang {
  using Args = ToyArgs;
  static constexpr int kWavesPerUnit = 1;
  static constexpr LaunchConfig kConfig{.wave = 32, .threads = 32};
  RF_DEVICE static void run(const Args& args) {
    if (block_index(0) == args.blocks && thread_index() == 0) barrier();
  }
};

}  // namespace rocmforge

RF_KERNEL(toy_count, rocmforge::ToyCount)
RF_KERNEL(toy_hang, rocmforge::ToyHang)
