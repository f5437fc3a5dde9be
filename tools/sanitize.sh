#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the kernels' tests on an NVIDIA GPU under compute-sanitizer: tools/sanitize.sh [tool ...]
# All tools run, whatever one finds; the exit status is 1 if any found something.
set -eu
cd "$(dirname "$0")/.."
export ROCMFORGE_TEST_DEVICE=cuda ROCMFORGE_EXAMPLES="${ROCMFORGE_EXAMPLES:-3}" PYTHONPATH="$PWD"
status=0
for tool in "${@:-memcheck racecheck initcheck synccheck}"; do
  for name in $tool; do
    echo "== $name"
    compute-sanitizer --tool "$name" --error-exitcode 1 python3 -m pytest -q \
      tests/kernels/test_attention.py tests/kernels/test_rotary_kv_write.py tests/kernels/test_kv_write.py \
      tests/kernels/test_causal_mask.py || status=1
  done
done
exit $status
