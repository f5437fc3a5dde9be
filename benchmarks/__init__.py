# SPDX-License-Identifier: Apache-2.0
"""What was measured and counted, and the programs that do it.

From the repository's root, with rocmforge installed:

    python -m benchmarks.run FOLDER                every benchmark of one GPU, and a report
    python -m benchmarks.kernels.attention         kernels beside their peers; also mla, problems, elementwise, counters
                                                   (the hardware's) and cpu (numbers of threads)
    python -m benchmarks.serving                   vLLM through rocmforge beside its own backends
    python -m benchmarks.amd.resources             what AMD code objects need and cost; also loops, scores, counters,
                                                   mla and triton_peer
    python -m benchmarks.report.table RESULT DOC   results into a document; also plot

`results/` has the files that the documents' tables and plots are made of. Every program explains itself in its first
lines.
"""
