# make demo    eight ranks of a mixture-of-experts model, one of them slow, some experts hot: records, merges, says where
# make test    the whole test suite, on every training stack that can be installed here
# make quick   the tests that start no launcher, and need no stack and no compiler: two minutes
# make check   style and types, on the package as it installs
# make soak    abuse: 100,000 mutated shards, 1,000 full disks, 50 killed ranks (ARGS="--mutations 20000 --kills 5 --seed 7");
#              the scripts of tests/cases, plainly and recorded, compared (ARGS="--cases 'cond*'", 0: none);
#              and jobs with planted faults, their verdicts judged (ARGS="--skew '*-w8-*' --sample 60", 0: none)
# make bench   what distprof costs: measures, and writes docs/BENCHMARKS.md (ARGS="--ranks 8 512 4096" merges more ranks)
# make docs    the page of formulas, docs/FLOPS.md, from their registry; by running, and with all stacks, optional ones too:
#              docs/MODELS.md, by counting, and the table of docs/STACKS.md, by the tests that show what it says
# make clean   removes what these made; the runs stay

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
# The names of the training stacks that could not be installed: an empty file where all were.
STACKS := $(VENV)/stacks-missing
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := build/check
MYPY = $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache --explicit-package-bases

.PHONY: demo test quick check soak bench docs clean
.DELETE_ON_ERROR:

# Made anew when what is installed or compiled changes; the sources themselves are looked up where they lie.
$(READY): pyproject.toml constraints.txt $(wildcard distprof/probes/timing/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[torch,test,check]"
	touch $@

# A stack at a time: one that cannot be had or built here costs itself only.  DeepSpeed is built with the torch that it
# finds, hence no build isolation, and builds its CUDA ops, which nothing here calls, when they are first called.
$(STACKS): $(READY)
	-$(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel ninja
	for stack in deepspeed transformers accelerate lightning megatron-core; do \
		DS_BUILD_OPS=0 $(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation $$stack >&2 \
			|| echo $$stack; \
	done >$@

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/distprof run --nproc 8 --name demo examples/train_moe.py --steps 20 --skew --slow-rank 5 --slow-ms 80
	$(BIN)/distprof merge runs/demo

# Tests that need a stack which is not there are skipped, and say so; with DISTPROF_STACKS=required they fail, unless the
# stack is an optional one.  Two files at a time: much of a test is waiting, for processes that start and ranks that meet.
# To try to install what is missing once more: rm .venv/stacks-missing
test: $(READY) $(STACKS)
	@for stack in $$(cat $(STACKS)); do echo "not installed, so not tested: $$stack"; done
	$(BIN)/pytest -n 2 --dist loadfile -m "not alone"
	$(BIN)/pytest -m alone

# Folders whose tests call functions in place; what compiles or starts many processes is marked in them.
QUICK := tests/test_house.py tests/test_format_page.py tests/merge \
	$(addprefix tests/distprof/,config flops frameworks model rank records shard topology) $(wildcard tests/distprof/test_*.py)

quick: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not stack and not alone" $(QUICK)

# The editable install hides what a wheel would lack, and type checkers do not follow it: an installed copy is checked.
# build/ goes first, or a deleted module would live on in it.  Tests may hand on what torch says is Any.  The planted error
# proves that mypy sees our code at all.
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

# In tools/, where Python finds bench and nothing that would shadow what is installed.
bench: $(READY)
	cd tools && $(BIN)/python -m bench --out ../docs/BENCHMARKS.md $(ARGS)

docs: $(READY) $(STACKS)
	$(BIN)/python tools/flops_page.py
	cd tools && PYTHONPATH=../examples $(BIN)/python -m models
	$(BIN)/pytest tests/stacks --write-page

clean:
	rm -rf build $(VENV) distprof/probes/timing/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
