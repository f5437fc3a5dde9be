# SPDX-License-Identifier: Apache-2.0
"""Builder, layer and prefill of latent attention driven by hand, against fp64; and what planted faults do to them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from vllm.v1.attention.backend import AttentionCGSupport

import rocmforge_plugin
from rocmforge_plugin.reference import attend
from rocmforge_plugin.vllm.mla import impl as mla_impl
from rocmforge_plugin.vllm.mla import prefill as mla_prefill
from rocmforge_plugin.vllm.mla.backend import RocmForgeMLABackend

from .latents import FLASH, MAX_LEN, SCALE, Dims, builder, cache, latent_reference, layer, queries_of, step

PAGES = 64
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
MODELS = [Dims(), Dims(heads=20), Dims(heads=8, qk_nope_head_dim=128, v_head_dim=128), Dims(4, 256, 64, 64, 128)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    rocmforge_plugin.reset_launches()


def launched(part: str = "") -> int:
    """Launches of the kernels with `part` in their names since the last time."""
    count = sum(times for name, times in rocmforge_plugin.launches().items() if part in name)
    rocmforge_plugin.reset_launches()
    return count


def assert_latent(made, impl, common, dims: Dims = FLASH, decodes: int | None = None) -> None:
    """What the layer makes of the step's first requests is right, with and without the log-sum-exp."""
    pages, q = cache(PAGES, dims), queries_of(common.num_actual_tokens, dims)
    metadata = made.build(0, common)
    decodes = metadata.num_decodes if decodes is None else decodes
    assert metadata.num_decodes == decodes
    tokens = metadata.num_decode_tokens
    q = (q[0][:tokens], q[1][:tokens])
    right, sums = latent_reference(q, pages, common, decodes)
    out, lse = impl.forward_mqa(q, pages, metadata, None)
    assert lse is None
    torch.testing.assert_close(out.double(), right, **TOLERANCE)
    impl.need_to_return_lse_for_decode = True
    out, lse = impl.forward_mqa(q, pages, metadata, None)
    torch.testing.assert_close(out.double(), right, **TOLERANCE)
    torch.testing.assert_close(lse.double(), sums, **TOLERANCE)


@pytest.mark.parametrize("dims", MODELS)
def test_decodes(dims):
    assert_latent(builder(dims), layer(dims), step([40, 9, 1], [1, 1, 1], PAGES), dims, 3)


@pytest.mark.parametrize("queries", [[3, 3, 3], [3, 1, 2], [1, 3]])
def test_verifications_of_any_lengths_are_decodes(queries):
    lengths = [40, 9, 3][: len(queries)]
    assert_latent(builder(drafted=2), layer(), step(lengths, queries, PAGES), decodes=len(queries))


def test_decodes_beside_prompts():
    made, impl = builder(drafted=2), layer()
    assert_latent(made, impl, step([40, 9, 33, 7], [3, 1, 20, 7], PAGES), decodes=2)


def test_without_drafts_a_query_of_two_tokens_is_a_prompt():
    metadata = builder().build(0, step([40, 9], [1, 2], PAGES))
    assert (metadata.num_decodes, metadata.num_prefills) == (1, 1)


def test_one_plan_launch_a_step_and_none_in_its_layers():
    made, pages = builder(), cache(PAGES)
    layers = [layer(), layer()]
    metadata = made.build(0, step([40, 9], [1, 1], PAGES))
    q = queries_of(2)
    for impl in layers:  # vLLM's own layers are announced; these are met late
        impl.forward_mqa(q, pages, metadata, None)
    assert launched("attention_plan") == 1
    metadata = made.build(0, step([41, 10], [1, 1], PAGES))
    assert launched() == 1
    for impl in layers:
        impl.forward_mqa(q, pages, metadata, None)
    assert launched("attention_plan") == 0


def test_planned_again_in_place():
    """As a drafter does within a graph: the same metadata, other lengths in its buffers."""
    made, impl, pages, common = builder(), layer(), cache(PAGES), step([40, 9], [1, 1], PAGES)
    q = queries_of(2)
    metadata = made.build(0, common)
    impl.forward_mqa(q, pages, metadata, None)
    common.seq_lens.copy_(torch.tensor([33, 23]))
    launched()
    made.update_draft_decode_metadata(metadata)
    assert launched() == 1
    right, _ = latent_reference(q, pages, common, 2)
    torch.testing.assert_close(impl.forward_mqa(q, pages, metadata, None)[0].double(), right, **TOLERANCE)


def test_capture_is_of_decodes_as_short_as_their_queries():
    made = builder(drafted=2)
    common = step([MAX_LEN, MAX_LEN], [3, 3], PAGES)
    metadata = made.build_for_cudagraph_capture(common)
    assert metadata.decode.seq_lens.tolist() == [3, 3] and metadata.prefill is None
    assert metadata.decode.seq_lens.data_ptr() == common.seq_lens.data_ptr()  # a graph reads these very lengths
    kind = type(made)
    assert kind.get_cudagraph_support(made.vllm_config, made.kv_cache_spec) is AttentionCGSupport.UNIFORM_BATCH
    assert kind.get_varlen_cudagraph_max_query_len(made.vllm_config, made.kv_cache_spec) == 3


@pytest.mark.parametrize("causal", [False, torch.tensor([True])])
def test_a_batch_that_is_not_causal_is_refused(causal):
    with pytest.raises(ValueError, match="latent attention causally only.*speculative_config.attention_backend"):
        builder().build(0, step([5], [1], PAGES).replace(causal=causal))


def test_a_query_in_one_part_is_refused():
    with pytest.raises(ValueError, match="two parts.*--kv-cache-dtype.*--decode-context-parallel-size 1"):
        layer().forward_mqa(torch.randn(1, 5, 576), cache(1), None, None)


@pytest.mark.parametrize("arguments", [("auto", torch.ones(1)), ("auto", torch.ones(1), False)])
def test_the_cache_is_written_as_either_vllm_asks(arguments):
    """By six arguments in 0.32 and seven in 0.33; rows behind the slots are padding, and so are slots of -1."""
    pages = cache(4)
    before = pages.clone()
    latent, rope = torch.randn(5, 640)[:, :512], torch.randn(5, 1, 96)[..., 32:]
    layer().do_kv_cache_update(latent, rope, pages, torch.tensor([65, -1, 3, 40]), *arguments)
    assert launched("latent_kv_write") == 1
    for token, slot in ((0, 65), (2, 3), (3, 40)):
        assert torch.equal(pages[slot // 32, slot % 32], torch.cat((latent[token], rope[token, 0])))
        before[slot // 32, slot % 32] = pages[slot // 32, slot % 32]
    assert torch.equal(pages, before)


def test_nothing_is_written_while_memory_is_profiled():
    layer().do_kv_cache_update(torch.randn(2, 512), torch.randn(2, 1, 64), torch.empty(0), torch.zeros(2), "auto", None)
    assert launched() == 0


def test_what_vllm_asks_the_classes():
    assert RocmForgeMLABackend.is_mla() and not RocmForgeMLABackend.is_sparse()
    assert not RocmForgeMLABackend.supports_dcp() and not RocmForgeMLABackend.supports_pcp()
    impl = layer()
    assert impl.can_return_lse_for_decode and impl.lse_base_on_e and not impl.supports_quant_query_input


def keys_and_values(tokens: int, dims: Dims = FLASH) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys, and values that are the second part of wider rows."""
    wide = torch.randn(tokens, dims.heads, dims.qk_nope_head_dim + dims.v_head_dim)
    return torch.randn(tokens, dims.heads, dims.qk_head_dim), wide[..., dims.qk_nope_head_dim :]


def assert_prefill(metadata, dims: Dims = FLASH) -> None:
    """New tokens and every chunk of the step's context are right."""
    step_, prefill = metadata.prefill, metadata.prefill.prefill_backend
    starts = step_.query_start_loc.tolist()
    q = torch.randn(starts[-1], dims.heads, dims.qk_head_dim)
    k, v = keys_and_values(starts[-1], dims)
    right, sums = zip(*(attend(q[a:b], k[a:b], v[a:b], SCALE) for a, b in pairwise(starts)), strict=True)
    out = prefill.run_prefill_new_tokens(q, k, v, return_softmax_lse=False)
    torch.testing.assert_close(out.double(), torch.cat(right), **TOLERANCE)
    given = torch.full_like(out, torch.nan)
    out, lse = prefill.run_prefill_new_tokens(q, k, v, return_softmax_lse=True, out=given)
    assert out.data_ptr() == given.data_ptr()
    torch.testing.assert_close(given.double(), torch.cat(right), **TOLERANCE)
    torch.testing.assert_close(lse.double(), torch.cat(sums, dim=1), **TOLERANCE)
    for chunk in step_.chunked_context.chunks if step_.chunked_context else ():
        ours, keys = chunk.query_start_loc.tolist(), chunk.cu_seq_lens.tolist()
        part = q[chunk.token_slice]
        k, v = keys_and_values(keys[-1], dims)
        spans = zip(pairwise(ours), pairwise(keys), strict=True)
        right, sums = zip(*(attend(part[a:b], k[c:d], v[c:d], SCALE, False) for (a, b), (c, d) in spans), strict=True)
        out, lse = prefill.run_prefill_context_chunk(chunk, part, k, v)
        torch.testing.assert_close(out.double(), torch.cat(right), **TOLERANCE)
        torch.testing.assert_close(lse.double(), torch.cat(sums, dim=1), **TOLERANCE)


@pytest.mark.parametrize("dims", MODELS)
def test_prompts_with_and_without_context(dims):
    made = builder(dims)
    for _ in range(2):
        metadata = made.build(0, step([9, 40, 60, 12], [1, 20, 31, 12], PAGES))
        assert metadata.num_prefills == 3 and len(metadata.prefill.chunked_context.chunks) == 1
        assert_prefill(metadata, dims)


def test_context_of_several_chunks_has_a_plan_for_each():
    """Of which none is made anew in a layer."""
    made = builder(max_num_seqs=2)
    common = step([900, 700], [9, 20], PAGES)
    launched()
    metadata = made.build(0, common)
    chunks = metadata.prefill.chunked_context.chunks
    assert len(chunks) >= 3 and any(chunk.is_continuation for chunk in chunks)
    assert launched("attention_plan") == 1 + len(chunks)
    for _ in range(2):  # layers
        assert_prefill(metadata)
    assert launched("attention_plan") == 0


def test_plans_of_a_prefill_share_the_memory_of_partial_results():
    prefill = builder(max_num_seqs=2)._prefill_backend
    made = [prefill.make_planner(torch.device("cpu")) for _ in range(2)]
    assert len({planner._workspace.data_ptr() for planner in made}) == 1
    assert len({planner._words.data_ptr() for planner in made}) == 2


def test_a_prefill_of_another_backends_builder_makes_its_planner_itself():
    prefill = builder()._prefill_backend.clone()
    with pytest.raises(RuntimeError, match="prepare_metadata first"):
        prefill.run_prefill_new_tokens(torch.randn(2, 5, 256), *keys_and_values(2), return_softmax_lse=False)
    metadata = builder().build(0, step([40], [20], PAGES))
    metadata.prefill.prefill_backend = prefill
    prefill.prepare_metadata(metadata.prefill)
    assert_prefill(metadata)


def test_a_quantized_output_is_refused():
    prefill = builder()._prefill_backend
    with pytest.raises(ValueError, match="fuse_attn_quant"):
        prefill.run_prefill_new_tokens(None, None, None, False, output_scale=torch.ones(1))


def changed(module, name, change, monkeypatch):
    """Plants a fault: the op called `name` in `module` gets other arguments."""
    op = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **named: change(op, given, named))


def rope_first(op, given, named):
    latent, rope, *rest = given
    query = torch.cat((rope, latent), dim=-1)
    return op(query[..., : latent.shape[-1]].contiguous(), query[..., latent.shape[-1] :].contiguous(), *rest, **named)


def values_off_by_one(op, given, named):
    return op(*given, **named).roll(1, dims=-1)


def rows_see_one_key_less(op, given, named):
    """Those of a request with several queries."""
    latent, rope, pages, table, seq_lens, starts = given
    shorter, plan = torch.where(starts.diff() > 1, seq_lens - 1, seq_lens), named["plan"]
    named["plan"] = plan.planner.plan(starts, shorter, plan.max_query_len, plan.num_tokens)
    return op(latent, rope, pages, table, shorter, starts, **named)


@pytest.mark.parametrize("fault", [rope_first, values_off_by_one, rows_see_one_key_less])
def test_faults_of_latent_attention_are_found(fault, monkeypatch):
    common = step([40, 9], [3, 2], PAGES)
    assert_latent(builder(drafted=2), layer(), common)
    changed(mla_impl, "latent_attention", fault, monkeypatch)
    with pytest.raises(AssertionError, match="close"):
        assert_latent(builder(drafted=2), layer(), common)


def sums_of_base_two(op, given, named):
    result = op(*given, **named)
    if not named["causal"]:
        named["lse"].div_(torch.tensor(2.0).log())
    return result


def chunks_are_causal(op, given, named):
    plan = named["plan"]
    if not named["causal"]:
        starts, _, seq_lens = given[3:]
        named |= {"causal": True, "plan": plan.planner.plan(starts, seq_lens, plan.max_query_len, plan.num_tokens)}
    return op(*given, **named)


@pytest.mark.parametrize("fault", [sums_of_base_two, chunks_are_causal])
def test_faults_of_context_are_found(fault, monkeypatch):
    common = step([60, 40], [20, 31], PAGES)
    assert_prefill(builder().build(0, common))
    changed(mla_prefill, "varlen_attention", fault, monkeypatch)
    with pytest.raises(AssertionError, match="close"):
        assert_prefill(builder().build(0, common))
