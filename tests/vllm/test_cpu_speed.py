# SPDX-License-Identifier: Apache-2.0
"""The CPU target is there to test with, which takes some speed; on two cores it is 5 to 10 times what is asked here."""
import time

from tests.vllm.engines import ROOT, prompt, run_ours

MODEL = str(ROOT / "evals" / "checkpoints" / "glm4-tiny")
LONG, SHORT, ANSWER = 1000, 64, 65
LEAST_TOKENS_S, MOST_SECONDS = 20.0, 10.0


def test_one_client_does_not_wait():
    """20 tokens a second for one client, its prompt's time included; the first behind 1000 tokens within 10 seconds."""
    from vllm import SamplingParams

    def seconds(llm, length, count, start):
        begin = time.perf_counter()
        parameters = SamplingParams(max_tokens=count, ignore_eos=True, temperature=0.0)
        [done] = llm.generate([prompt(length, start)], parameters, use_tqdm=False)
        assert len(done.outputs[0].token_ids) == count
        return time.perf_counter() - begin

    def workload(llm):
        """The best of a few: what else the machine does only adds."""
        first = min(seconds(llm, LONG, 1, i) for i in range(3))
        return first, ANSWER / min(seconds(llm, SHORT, ANSWER, i) for i in range(3))

    first, rate = run_ours(MODEL, workload, "bfloat16", max_model_len=1280, max_num_batched_tokens=2048).result
    assert first <= MOST_SECONDS and rate >= LEAST_TOKENS_S
