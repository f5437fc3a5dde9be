# SPDX-License-Identifier: Apache-2.0
# Each target does all of its own set-up. Variables:
#   MODEL=  checkpoint folder or hub name to serve     ONCE=1  stop after the report    PORT=  default 8000
#   ARGS=   further arguments of vllm serve, or of pytest for `make test`
#   VLLM_PYTHON=/path/to/python   use the vLLM of that interpreter; nothing is installed over it (own: make .venv)
#   PYTHON= the interpreter that makes the environment, 3.10 or newer; 3.11 or newer for .venv, as vLLM asks

PYTHON ?= python3
PORT ?=
MODEL ?=
ARGS ?=
ONCE ?=

# Without it, as under `env -i`, Python does not find itself.
PATH ?= /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# One shell, so that what fails in the middle of a recipe ends it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: help serve test emulated eval lint format env build costs doctor selftest clean

help:
	@echo "make serve     environment, build, vllm serve, one completion and one chat request, kernel launch counts"
	echo "make test      environment, build, the whole suite"
	echo "make emulated  the machine code for AMD GPUs, executed on the CPU, with more shapes and settings than make test"
	echo "make lint      style, types and form of all sources; make format mends the form"
	echo "make eval      accuracy parity with vLLM's own attention; ARGS='--help' lists what can be chosen"
	echo "make doctor    what is installed, which kernels are built, what vLLM would say"
	echo "make selftest  every kernel against its reference on this machine's device"
	echo "make costs     what the build costs, by target and by kind of kernel; fails if it has grown too expensive"
	echo "make clean     remove what the build made here; the environment and the shared cache of compiled objects stay"

lint:
	@exec $(PYTHON) -m tools.lint

format:
	@exec $(PYTHON) -m tools.lint --format

env:
	@$(PYTHON) tools/environment.py > /dev/null

# The environment's interpreter, with rocmforge built and installed in it.
SET_UP = python="$$($(PYTHON) tools/environment.py)"; "$$python" tools/install.py

build:
	@$(SET_UP)

costs:
	@$(SET_UP)
	exec "$$python" -m rocmforge_build --costs

serve:
	@$(SET_UP)
	exec "$$python" tools/serve.py --model '$(MODEL)' $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once) -- $(ARGS)

test:
	@$(SET_UP)
	exec "$$python" -m pytest $(ARGS)

emulated:
	@$(SET_UP)
	export ROCMFORGE_EMULATED=all
	for arithmetic in nearest,ascending below,descending above,pairwise; do
	  ROCMFORGE_EMULATED_ARITHMETIC=$$arithmetic "$$python" -m pytest tests/amdgpu $(ARGS)
	done

eval:
	@$(SET_UP)
	exec "$$python" -m rocmforge_plugin.cli eval $(if $(MODEL),--model '$(MODEL)') $(ARGS)

doctor selftest:
	@$(SET_UP)
	exec "$$python" -m rocmforge_plugin.cli $@

clean:
	rm -rf build/cache build/checkpoints build/tests rocmforge_plugin/_kernels rocmforge_plugin/_C*.so
