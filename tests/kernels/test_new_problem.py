# SPDX-License-Identifier: Apache-2.0
"""A score function and a key format that rocmforge has not: each a struct in its header, and together a row of the
table of what is served. Nothing else is touched, and prefill, decode and what joins their parts run with them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from rocmforge_plugin import _C
from tests import HANG

ROOT = Path(__file__).resolve().parents[2]

# A value, then its key.
FORMAT = """
template <class T, int KeyDims, int ValueDims>
struct Swapped : Joined<T, KeyDims, ValueDims> {
  RF_DEVICE static constexpr int key_at() { return ValueDims; }
  RF_DEVICE static constexpr int value_at() { return 0; }
  RF_DEVICE static constexpr float key_scale(const KeyPages&, int head) { return head == 0 ? 0.5f : 1.0f; }
  RF_DEVICE static constexpr float value_scale(const KeyPages&, int head) { return head == 0 ? 1.0f : 2.0f; }
};
"""
# Keys weigh less the farther they are from the query, for the second query head twice as much as for the first.
SCORE = """
struct Tilted {
  static constexpr bool kReshapes = true;
  struct Row {
    float slope;
    int last;
  };
  RF_DEVICE static float factor(const SoftmaxArgs& args) { return args.scale_log2; }
  RF_DEVICE static Row row(const SoftmaxArgs&, int head, int last) { return {0.25f * (1 + head), last}; }
  RF_DEVICE static float shape(const SoftmaxArgs&, Row row, int key, float product) {
    return product + row.slope * static_cast<float>(key - row.last);
  }
};
"""
ROW = '    ("swapped", "tilted", ((64, 64),)),\n'
# Only what the test runs is built.
UNITS = """
UNITS = [unit for unit in UNITS if unit.name == "attention_plan" or unit.name.endswith(("bf16_d64_swapped_tilted",
                                                                                         "combine_bf16_d64"))]
"""
RUN = """
import torch
import rocmforge_plugin
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem

HEADS, KV_HEADS, DIMS, BLOCK = 4, 2, 64, 16
torch.manual_seed(0)
new, lens = [1, 1, 40, 90], [300, 17, 200, 90]
pages = [-(-n // BLOCK) for n in lens]
table = torch.zeros(len(lens), max(pages), dtype=torch.int32)
order = torch.randperm(sum(pages)).int()
for request, count in enumerate(pages):
    table[request, :count] = order[sum(pages[:request]):][:count]
cache = torch.randn(sum(pages), KV_HEADS, BLOCK, 2 * DIMS).bfloat16()
starts = torch.tensor([0, *torch.tensor(new).cumsum(0)], dtype=torch.int32)
query = torch.randn(sum(new), HEADS, DIMS).bfloat16()
planner = AttentionPlanner(Problem("bfloat16", HEADS, KV_HEADS, DIMS, DIMS, format="swapped", score="tilted"), "cpu",
                           len(lens), sum(new))
plan = planner.plan(starts, torch.tensor(lens, dtype=torch.int32), max(new), sum(new))
out = paged_attention(query, cache, table, torch.tensor(lens, dtype=torch.int32), starts, max_query_len=max(new),
                      scale=DIMS**-0.5, plan=plan)
for request, (count, length) in enumerate(zip(new, lens)):
    rows = cache[table[request].long()].transpose(0, 1).flatten(1, 2)[:, :length].double()
    value, key = (part.repeat_interleave(HEADS // KV_HEADS, 0) for part in rows.split(DIMS, -1))
    first = torch.arange(HEADS) < HEADS // KV_HEADS  # heads of the first KV head
    key = key * torch.where(first, 0.5, 1.0)[:, None, None]
    value = value * torch.where(first, 1.0, 2.0)[:, None, None]
    at = slice(starts[request], starts[request + 1])
    position = torch.arange(length - count, length)[:, None] - torch.arange(length)[None]
    slope = 0.25 * (1 + torch.arange(HEADS))[:, None, None]
    score = (torch.einsum("nhd,hld->hnl", query[at].double(), key) - slope * position) * DIMS**-0.5
    right = torch.einsum("hnl,hld->nhd", score.masked_fill(position < 0, -torch.inf).softmax(-1), value)
    error = (out[at].double() - right).norm() / right.norm()
    assert error < 5e-3, (request, error)
launches = rocmforge_plugin.launches()
for kernel in ("prefill_bf16_d64_swapped_tilted", "combine_bf16_d64"):
    assert launches[f"attention_{kernel}"] >= 1, launches
assert any(name.startswith("attention_decode") and name.endswith("_swapped_tilted") for name in launches), launches
"""


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text().replace("\n}  // namespace rocmforge", text + "\n}  // namespace rocmforge"))


def test_a_problem_is_a_struct_and_a_row(tmp_path: Path) -> None:
    for folder in ("kernels", "rocmforge_build", "rocmforge_plugin", "csrc"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("_kernels", "__pycache__"))
    shutil.copy(_C.__file__, tmp_path / "rocmforge_plugin")
    problem = tmp_path / "kernels" / "attention" / "problem"
    append(problem / "key_format.h", FORMAT)
    append(problem / "score.h", SCORE)
    served = tmp_path / "rocmforge_plugin" / "served.py"
    before = served.read_text()
    served.write_text(before.replace("PROBLEMS = (\n", "PROBLEMS = (\n" + ROW))
    assert served.read_text() != before
    with (tmp_path / "kernels" / "variants.py").open("a") as table:
        table.write(UNITS)
    for command in (["-m", "rocmforge_build", "--targets", "cpu", "--kernels-only"], ["-c", RUN]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HANG,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "ROCMFORGE_CACHE": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
