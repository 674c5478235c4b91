# make demo    eight ranks of a mixture-of-experts model, one of them slow, some experts hot: records it and merges
# make test    the whole test suite, on every training stack that can be installed here
# make quick   the tests that start no launcher, and need no stack and no compiler: two minutes
# make check   style and types, on the package as it installs
# make soak    all of these, or some (ARGS="--only cases skew"):
#              damage: 100,000 mutated shards, 1,000 full disks, 50 killed ranks, 10,000 damaged messages to a daemon
#              (ARGS="--mutations 20000 --kills 5 --seed 7");
#              the scripts of tests/cases, compared with and without recording (ARGS="--cases 'cond*'");
#              pairs of runs that distprof diff compares (ARGS="--diff 5");
#              jobs of experts: tokens, a device or both (ARGS="--experts 1");
#              jobs that hang, or seem to (ARGS="--hangs 'other*' --quiet-minutes 10");
#              and jobs with planted faults, whose verdicts are checked (ARGS="--skew '*-w8-*' --sample 60")
# make bench   measures what distprof costs and writes docs/BENCHMARKS.md (ARGS="--ranks 8 512 4096" merges more ranks)
# make gpu     checks on a GPU what only a GPU can show, and writes docs/GPU.md; installs nothing, and needs only torch, numpy,
#              msgpack, click and pytest in PYTHON (ARGS="--only MFU")
# make docs    writes docs/FLOPS.md from the registry of formulas, docs/REPORT.md from the report's dataclasses, the table
#              of docs/METRICS.md from the metrics, the page's glossary from docs/GLOSSARY.md, docs/MODELS.md by counting
#              models, and the table of docs/STACKS.md by running its tests; needs all stacks, optional ones too
# make pictures  renews what README.md and docs/ show of `make demo`: pictures of its page in Chromium, two of its plots, and
#              the first page of its report
# make site    builds the pages of docs/ as a web site, in build/site; a broken link fails it
# make clean   removes everything that these have made, except for the runs

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
# The names of the training stacks that could not be installed: an empty file where all were.
STACKS := $(VENV)/stacks-missing
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := build/check
FOR_GPU := build/gpu
# Several files at a time, in the order of tests/conftest.py: the longest first.
FILES := --dist loadfile --no-loadscope-reorder
MYPY = $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache --explicit-package-bases

# With it, Python keeps nothing of what it compiles: each worker would compile all tests in each run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick check soak bench gpu docs pictures site clean
.DELETE_ON_ERROR:

# Made again when dependencies or C sources change; Python sources are used in place (editable install).
$(READY): pyproject.toml constraints.txt $(wildcard distprof/native/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[torch,test,check]"
	touch $@

# One stack at a time: one that cannot be installed does not stop the others.  DeepSpeed is built with the installed
# torch, hence no build isolation; it compiles its CUDA ops, which nothing here calls, at their first call.  The op that
# each of its jobs loads is compiled here: a test that is ended while it compiles would leave a lock that blocks later ones.
$(STACKS): $(READY)
	-$(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel ninja
	for stack in deepspeed transformers accelerate lightning megatron-core peft; do \
		DS_BUILD_OPS=0 $(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation $$stack >&2 \
			|| echo $$stack; \
	done >$@
	-grep --quiet deepspeed $@ || (cd $(VENV) && PATH="$(BIN):$$PATH" DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR="$$PWD/torch_extensions" \
		bin/python -c "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as Op; Op().load()")

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/distprof run --nproc 8 --name demo examples/train_moe.py --steps 20 --skew --slow-rank 5 --slow-ms 80
	$(BIN)/distprof merge runs/demo

# Tests of a stack that is not installed are skipped, with a message; with DISTPROF_STACKS=required they fail, unless the
# stack is optional.  Three files run at a time, on two cores: tests of jobs also wait, for ranks to connect and to sleep.
# To try to install missing stacks again: rm .venv/stacks-missing
test: $(READY) $(STACKS)
	@for stack in $$(cat $(STACKS)); do echo "not installed, so not tested: $$stack"; done
	$(BIN)/pytest -n 4 $(FILES) -m "not alone"
	$(BIN)/pytest -m alone $$(grep -rl --include='test_*.py' 'mark[.]alone' tests)

# Folders whose tests call functions in the same process; markers in them exclude tests that compile or start processes.
QUICK := tests/test_house.py tests/test_format_page.py tests/test_report_page.py tests/merge \
	$(addprefix tests/distprof/,config flops frameworks model rank records shard topology) $(wildcard tests/distprof/test_*.py)

quick: $(READY)
	$(BIN)/pytest -n 2 $(FILES) -m "not slow and not stack and not alone" $(QUICK)

# Checks an installed copy: an editable install hides files that a wheel would lack, and type checkers do not follow it.
# build/ is removed first, because deleted modules would stay in it.  Tests may return Any from torch.  The planted error
# proves that mypy checks our code.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --target $(INSTALLED) .
	cp -r examples tests tools $(INSTALLED)
	cd $(INSTALLED) && MYPYPATH=examples:tools $(MYPY) distprof examples tools
	cd $(INSTALLED) && MYPYPATH=tests:examples $(MYPY) --no-warn-return-any tests
	cd $(INSTALLED) && printf 'from distprof.run_folder import safe_name\n\nname: int = safe_name("x")\n' > planted.py
	cd $(INSTALLED) && ! $(MYPY) planted.py > planted.log
	grep --quiet '^planted.py:3: error: Incompatible types in assignment' $(INSTALLED)/planted.log

soak: $(READY) $(STACKS)
	cd tools && $(BIN)/python -m soak $(ARGS)

# Runs in tools/, where Python finds bench and nothing shadows an installed package.
bench: $(READY)
	cd tools && $(BIN)/python -m bench --out ../docs/BENCHMARKS.md $(ARGS)

# Clusters with GPUs often reach no registry, so this uses PYTHON's own packages, and a copy of distprof that lies as
# installed: with its compiled part where pip, setuptools and a compiler are there, else without.
gpu:
	rm -rf $(FOR_GPU)
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --no-index --target $(FOR_GPU) . \
		|| (mkdir -p $(FOR_GPU) && cp -r distprof $(FOR_GPU) && cp -r launcher merge $(FOR_GPU)/distprof)
	cd tools && PYTHONPATH=$(CURDIR)/$(FOR_GPU):$(CURDIR)/tools $(PYTHON) -m gpu --out ../docs/GPU.md $(ARGS)

docs: $(READY) $(STACKS)
	$(BIN)/python tools/flops_page.py
	$(BIN)/python tools/report_page.py
	$(BIN)/python tools/metrics_page.py
	$(BIN)/python tools/glossary_terms.py
	cd tools && PYTHONPATH=../examples $(BIN)/python -m models
	$(BIN)/pytest tests/stacks --write-page

site: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt "mkdocs-material>=9.5"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site

# Needs the packages chromium and chromium-driver.
pictures: demo
	$(BIN)/python tools/pictures.py runs/demo/report

clean:
	rm -rf build $(VENV) distprof/native/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
