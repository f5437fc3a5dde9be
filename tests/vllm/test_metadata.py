# SPDX-License-Identifier: Apache-2.0
"""The metadata builder and the layer, as vLLM made them for a real model, driven by hand."""

import dataclasses

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin.vllm.backend.plans import number_of
from tests.vllm.engines import checkpoint, engine


@pytest.fixture(scope="module")
def parts():
    """(builder, layer, kv_cache, device) of a running engine."""
    with engine(checkpoint("glm4"), "rocmforge", "float32") as llm:
        worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
        runner = worker.model_runner
        builder = runner.attn_groups[0][0].get_metadata_builder()
        layer = runner.compilation_config.static_forward_context[builder.layer_names[0]]
        cache = layer.kv_cache if isinstance(layer.kv_cache, torch.Tensor) else layer.kv_cache[0]
        yield builder, layer, cache, runner.device


def common(lengths, queries, **changes):
    """vLLM's metadata of a batch: keys and query tokens of each request, page r for request r."""
    from vllm.v1.attention.backend import CommonAttentionMetadata

    starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
    made = CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        num_reqs=len(lengths),
        num_actual_tokens=int(starts[-1]),
        max_query_len=max(queries),
        max_seq_len=max(lengths),
        block_table_tensor=torch.arange(len(lengths), dtype=torch.int32)[:, None],
        slot_mapping=torch.full((int(starts[-1]),), -1),
    )
    return dataclasses.replace(made, **changes)


def test_plans_stay_in_the_same_buffers(parts):
    builder = parts[0]
    first, second = builder.build(0, common([5], [1])), builder.build(0, common([9, 30], [4, 1]))
    assert first.plans.keys() == second.plans.keys() and len(first.plans) == 1
    (one,), (other,) = first.plans.values(), second.plans.values()
    assert one.planner is other.planner


def test_layers_are_announced_before_the_first_step(parts):
    """So that a graph may be captured without a run before it."""
    builder, layer, *_ = parts
    assert builder.build(0, common([5], [1])).plans.keys() == {number_of(layer.impl.problem(torch.float32))}


def test_one_plan_launch_per_build(parts):
    rocmforge_plugin.reset_launches()
    parts[0].build(0, common([9, 30, 1], [4, 1, 1]))
    assert sum(rocmforge_plugin.launches().values()) == 1


def test_planned_again_in_place(parts):
    builder = parts[0]
    metadata = builder.build(0, common([9, 30], [1, 1]))
    rocmforge_plugin.reset_launches()
    builder.update_draft_decode_metadata(metadata)
    assert sum(rocmforge_plugin.launches().values()) == 1


def test_capture_is_as_short_as_the_queries(parts):
    given = common([512, 512, 512], [1, 3, 2])
    metadata = parts[0].build_for_cudagraph_capture(given)
    assert metadata.seq_lens is given.seq_lens  # a graph reads these very lengths when it replays
    assert metadata.seq_lens.tolist() == [1, 3, 2]


def test_full_graphs_of_any_batch(parts):
    from vllm.v1.attention.backend import AttentionCGSupport

    builder = parts[0]
    assert type(builder).get_cudagraph_support(builder.vllm_config, builder.kv_cache_spec) is AttentionCGSupport.ALWAYS


def test_profiling_run_gives_zeros(parts):
    layer = parts[1]
    output = torch.full((4, layer.num_heads, layer.head_size), float("nan"))
    layer.impl.forward(layer, torch.randn_like(output), None, None, torch.empty(0), None, output)
    assert not output.any()


def test_layer_reads_the_cache_only_and_leaves_padding_alone(parts):
    """Keys and values may be None, and rows behind the batch's tokens are not touched."""
    builder, layer, cache, _ = parts
    from rocmforge_plugin.reference import paged_attention_reference

    cache.normal_(generator=torch.Generator().manual_seed(0))
    given = common([9, 30], [4, 1])
    metadata = builder.build(0, given)
    query = torch.randn(8, layer.num_heads, layer.head_size)
    output = torch.full_like(query, float("nan"))
    layer.impl.forward(layer, query, None, None, cache, metadata, output)
    expected = paged_attention_reference(
        query[:5], cache, given.block_table_tensor, given.seq_lens, given.query_start_loc, layer.impl.scale
    )
    torch.testing.assert_close(output[:5].double(), expected, atol=1e-5, rtol=1e-5)
    assert output[5:].isnan().all()


def test_output_quantization_is_refused(parts):
    layer = parts[1]
    with pytest.raises(ValueError, match="fuse_attn_quant"):
        layer.impl.forward(layer, None, None, None, None, None, None, output_scale=torch.ones(1))
