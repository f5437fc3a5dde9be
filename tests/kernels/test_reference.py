# SPDX-License-Identifier: Apache-2.0
"""The oracles against formulations that share nothing with them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rocmforge_plugin import reference

from .kernel_support import generator


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def table(positions: int, rotary_dim: int) -> torch.Tensor:
    angles = torch.arange(positions)[:, None] * 10000.0 ** (-torch.arange(0, rotary_dim, 2).double() / rotary_dim)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_is_complex_multiplication(interleaved):
    x, cos_sin, positions = randn(6, 3, 40), table(64, 32), torch.tensor([0, 5, 63, 1, 5, 9])
    turn = torch.complex(*cos_sin[positions].chunk(2, dim=-1))[:, None]
    pairs = x[..., :32].unflatten(-1, (16, 2)) if interleaved else x[..., :32].unflatten(-1, (2, 16)).transpose(-1, -2)
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
    turned = turned.flatten(-2) if interleaved else turned.transpose(-1, -2).flatten(-2)
    wanted = torch.cat((turned, x[..., 32:]), dim=-1)
    got = reference.rotary(positions, x, cos_sin, head_size=40, interleaved=interleaved)
    torch.testing.assert_close(got, wanted)
    flat = reference.rotary(positions, x.flatten(1), cos_sin, head_size=40, interleaved=interleaved)
    torch.testing.assert_close(flat, wanted.flatten(1))


def test_sections_are_pieces_of_the_axes():
    cos_sin, positions, section = table(64, 64), torch.randint(0, 64, (3, 5), generator=generator(1)), [8, 12, 12]
    cos, sin = cos_sin[positions].chunk(2, dim=-1)
    wanted = [
        torch.cat([piece[axis] for axis, piece in enumerate(part.split(section, dim=-1))], dim=-1)
        for part in (cos, sin)
    ]
    for got, want in zip(reference.select_cos_sin(positions, cos_sin, section), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_interleaved_sections_take_turns():
    positions = torch.tensor([[1], [2], [3]])
    cos_sin = torch.arange(5).double()[:, None].expand(5, 24)  # a row's values are its position
    cos, _ = reference.select_cos_sin(positions, cos_sin, [6, 4, 2], True)
    assert cos[0].tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 1, 1, 2, 1]


def test_rms_norm():
    x, weight = randn(4, 3, 16), randn(16, seed=1)
    torch.testing.assert_close(reference.rms_norm(x, weight, 1e-3), F.rms_norm(x, (16,), weight, 1e-3))


def test_causal_mask():
    assert reference.causal_mask(torch.zeros(2, 4), 1).isinf().tolist() == [
        [False, False, True, True],
        [False, False, False, True],
    ]


def test_kv_write():
    cache = randn(3, 2, 16, 8)
    key, value = randn(3, 2, 4, seed=1), randn(3, 2, 4, seed=2)
    out = reference.kv_write(key, value, cache, torch.tensor([17, -1, 40]))
    wanted = cache.clone()
    wanted[1, :, 1, :4], wanted[1, :, 1, 4:] = key[0], value[0]
    wanted[2, :, 8, :4], wanted[2, :, 8, 4:] = key[2], value[2]
    assert torch.equal(out, wanted)


def test_latent_kv_write():
    cache = randn(3, 16, 8)
    latent, rope = randn(3, 5, seed=1), randn(3, 1, 3, seed=2)
    out = reference.latent_kv_write(latent, rope, cache, torch.tensor([17, -1, 40]))
    wanted = cache.clone()
    wanted[1, 1, :5], wanted[1, 1, 5:] = latent[0], rope[0, 0]
    wanted[2, 8, :5], wanted[2, 8, 5:] = latent[2], rope[2, 0]
    assert torch.equal(out, wanted)
    assert torch.equal(
        reference.latent_kv_write(latent, None, cache[..., :5], torch.tensor([17, -1, 40])), out[..., :5]
    )


class Paged:
    """Requests of 5 new tokens behind 30 and of one behind 20, in scattered pages of 16; the rest is NaN."""

    lengths, new = (35, 21), (5, 1)

    def __init__(self) -> None:
        self.query = randn(6, 4, 8)
        self.keys = [randn(length, 2, 8, seed=1 + i) for i, length in enumerate(self.lengths)]
        self.values = [randn(length, 2, 8, seed=5 + i) for i, length in enumerate(self.lengths)]
        self.cache = torch.full((9, 2, 16, 16), math.nan, dtype=torch.float64)
        self.table = torch.tensor([[7, 2, 4], [0, 5, -1]], dtype=torch.int32)
        for i, length in enumerate(self.lengths):
            for position in range(length):
                self.cache[self.table[i, position // 16], :, position % 16] = torch.cat(
                    (self.keys[i][position], self.values[i][position]), dim=-1
                )

    def run(self, **options) -> torch.Tensor:
        return reference.paged_attention_reference(
            self.query,
            self.cache,
            self.table,
            torch.tensor(self.lengths, dtype=torch.int32),
            torch.tensor([0, 5, 6], dtype=torch.int32),
            0.3,
            **options,
        )

    def expected(self, bias) -> torch.Tensor:
        """torch's attention with `bias(query position, key position)` added to the scores."""
        outs, start = [], 0
        for i, (length, new) in enumerate(zip(self.lengths, self.new, strict=True)):
            query = self.query[start : start + new].transpose(0, 1)
            start += new
            key, value = (part[i].transpose(0, 1).repeat_interleave(2, 0) for part in (self.keys, self.values))
            places = torch.arange(length)
            mask = bias(places[length - new :, None].double(), places[None].double())
            outs.append(
                F.scaled_dot_product_attention(query[None], key[None], value[None], mask, scale=0.3)[0].transpose(0, 1)
            )
        return torch.cat(outs)


def causal(query, key):
    return torch.zeros_like(key - query).masked_fill(key > query, -math.inf)


def test_paged_attention():
    torch.testing.assert_close(Paged().run(), Paged().expected(causal))


def test_paged_attention_with_a_window():
    wanted = Paged().expected(lambda query, key: causal(query, key).where(query - key < 7, -math.inf))
    torch.testing.assert_close(Paged().run(window=7), wanted)


def test_paged_attention_with_alibi():
    slopes = torch.tensor([0.5, 0.25, 0.125, 1.0], dtype=torch.float64)
    wanted = Paged().expected(lambda query, key: causal(query, key) + slopes[:, None, None] * (key - query))
    torch.testing.assert_close(Paged().run(alibi_slopes=slopes), wanted)


def test_paged_attention_with_sinks_is_scaled_by_the_rest_of_the_denominator():
    paged, sinks = Paged(), torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    # A sink is a key whose value is zero: append one with that logit.
    key = paged.keys[1].transpose(0, 1).repeat_interleave(2, 0)
    scores = torch.cat(((paged.query[5][:, None] * key).sum(-1) * 0.3, sinks[:, None]), dim=-1)
    wanted = (scores.softmax(-1)[:, :-1, None] * paged.values[1].transpose(0, 1).repeat_interleave(2, 0)).sum(1)
    torch.testing.assert_close(paged.run(sinks=sinks)[5], wanted)


def test_paged_attention_with_a_soft_cap():
    paged = Paged()
    key = paged.keys[1].transpose(0, 1).repeat_interleave(2, 0)
    scores = 2.0 * torch.tanh((paged.query[5][:, None] * key).sum(-1) * 0.3 / 2.0)
    wanted = (scores.softmax(-1)[..., None] * paged.values[1].transpose(0, 1).repeat_interleave(2, 0)).sum(1)
    torch.testing.assert_close(paged.run(soft_cap=2.0)[5], wanted)


@pytest.mark.parametrize("rope_dims", [4, 0])
def test_latent_attention_is_that_of_every_heads_own_keys_and_values(rope_dims):
    """As before absorption: latents projected up to keys, to which all heads add a rotated part, and to values."""
    length, new, heads, nope, latent_dims = 21, 5, 3, 8, 12
    latent, k_rope = randn(length, latent_dims), randn(length, rope_dims, seed=1)
    query_nope, query_rope = randn(new, heads, nope, seed=2), randn(new, heads, rope_dims, seed=3)
    to_key, to_value = randn(heads, nope, latent_dims, seed=4), randn(heads, 7, latent_dims, seed=5)
    cache = torch.full((3, 16, latent_dims + rope_dims), math.nan, dtype=torch.float64)
    cache[2], cache[0, :5] = torch.cat((latent, k_rope), dim=-1).tensor_split([16])
    lse = torch.zeros(heads, new, dtype=torch.float64)
    out = reference.latent_attention_reference(
        torch.einsum("tnd,ndl->tnl", query_nope, to_key),
        query_rope if rope_dims else None,
        cache,
        torch.tensor([[2, 0]], dtype=torch.int32),
        torch.tensor([length], dtype=torch.int32),
        torch.tensor([0, new], dtype=torch.int32),
        0.3,
        lse=lse,
    )
    query = torch.cat((query_nope, query_rope), dim=-1).transpose(0, 1)
    key = torch.einsum("ndl,kl->nkd", to_key, latent)
    key = torch.cat((key, k_rope.expand(heads, -1, -1)), dim=-1)
    value = torch.einsum("nvl,kl->nkv", to_value, latent)
    mask = causal(torch.arange(length - new, length)[:, None].double(), torch.arange(length).double())
    wanted = F.scaled_dot_product_attention(query[None], key[None], value[None], mask, scale=0.3)[0].transpose(0, 1)
    torch.testing.assert_close(torch.einsum("tnl,nvl->tnv", out, to_value), wanted)
    torch.testing.assert_close(lse, ((query @ key.transpose(1, 2)) * 0.3 + mask).logsumexp(-1))


def test_naive_is_the_same_in_the_inputs_dtype():
    paged = Paged()
    naive = reference.paged_attention_naive(
        paged.query.bfloat16(),
        paged.cache.bfloat16(),
        paged.table,
        torch.tensor(paged.lengths, dtype=torch.int32),
        torch.tensor([0, 5, 6], dtype=torch.int32),
        0.3,
    )
    assert naive.dtype == torch.bfloat16
    torch.testing.assert_close(naive.double(), paged.run(), atol=0.1, rtol=0.1)
