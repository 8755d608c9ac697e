# `make train` and `make test` set everything up on their first call; `make help` lists the rest.

PYTHON ?= python3
CONFIG ?= n16
# Further options of the command, e.g. make train ARGS="--epochs 2 --lr 0.05"
ARGS ?=

BIN := .venv/bin
# How much `make train` trains on: a few minutes on two cores. The whole set: make train LIMIT=60000 LR=0.1
LIMIT ?= 12800
# A part of an epoch needs a higher learning rate than the default to get beyond 90 %.
LR ?= 0.5
# Random programs on RTL and emulator: make fuzz CONFIG=n16 SEED=7 COUNT=500
SEED ?= 1
COUNT ?= 1000

.PHONY: help train eval test lint verilog synth bitstream docs fuzz arith formal mutate coverage cocotb clean distclean

help:
	@echo 'make train     train and evaluate the MNIST network on the simulated RTL (LIMIT=12800 images)'
	@echo 'make test      run the tests'
	@echo 'make lint      ruff and mypy'
	@echo 'make verilog   write build/verilog/macaw_n16.v and its JSON (CONFIG=n16)'
	@echo 'make synth     area and speed on an ECP5 with open tools (CONFIG=n16 ARGS="--seeds 3"; minutes to hours)'
	@echo 'make bitstream write build/synth/macaw_ulx3s-85f.bit with open tools, in some minutes'
	@echo 'make docs      write the generated pages of docs/ again'
	@echo 'make fuzz      random programs on RTL and emulator (CONFIG=n4 SEED=1 COUNT=1000)'
	@echo 'make arith     arithmetic units in Verilator against NumPy (ARGS="--unit add --vectors 1000000")'
	@echo 'make formal    prove properties of the units, with Yosys (ARGS="--only NAME" for some)'
	@echo 'make mutate    mutations of the RTL, and which checks notice them (CONFIG=n4 SEED=1 COUNT=400)'
	@echo 'make coverage  lines and branches of the Verilog that random programs reach (CONFIG=n4 COUNT=400)'
	@echo 'make cocotb    the MNIST network over bus models of cocotbext-axi, in Verilator and Icarus Verilog'
	@echo 'make clean     empty build/; make distclean removes the virtual environment as well'
	@echo 'ARGS="..." adds options to the command that a target runs.'

train: .venv/.runtime
	$(BIN)/macaw train --limit $(LIMIT) --lr $(LR) --config $(CONFIG) $(ARGS)

test: .venv/.test
	$(BIN)/python -m pytest -q -n auto $(ARGS)

lint: .venv/.lint
	$(BIN)/ruff check $(ARGS)
	$(BIN)/mypy

verilog: .venv/.runtime
	$(BIN)/macaw verilog --config $(CONFIG) $(ARGS)

synth: .venv/.fpga
	$(BIN)/macaw synth --config $(CONFIG) $(ARGS)

bitstream: .venv/.fpga
	$(BIN)/macaw bitstream $(ARGS)

docs: .venv/.runtime
	$(BIN)/python -m macaw_hw.reference docs

fuzz: CONFIG = n4
fuzz: .venv/.test
	$(BIN)/python -m macaw_sim.fuzz --config $(CONFIG) --seed $(SEED) --count $(COUNT) $(ARGS)

arith: .venv/.runtime
	$(BIN)/python -m macaw_sim.arith --config $(CONFIG) --seed $(SEED) $(ARGS)

formal: .venv/.test
	$(BIN)/python -m macaw_sim.formal $(ARGS)

mutate coverage: CONFIG = n4
mutate coverage: COUNT = 400
mutate: .venv/.test
	$(BIN)/python -m macaw_sim.mutate --config $(CONFIG) --seed $(SEED) --count $(COUNT) $(ARGS)

coverage: .venv/.test
	$(BIN)/python -m macaw_sim.rtl_coverage --config $(CONFIG) --seed $(SEED) --count $(COUNT) $(ARGS)

cocotb: .venv/.test
	MACAW_LONG=1 $(BIN)/python -m pytest -q -n auto tests/test_accelerator.py $(ARGS)

clean:
	find build -mindepth 1 -maxdepth 1 ! -name .gitignore -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis

distclean: clean
	rm -rf .venv

# Each line stops the set-up with one sentence that names what to install.
define missing
{ echo "macaw: error: $(1)" >&2; exit 1; }
endef

.venv/bin/pip:
	@command -v $(PYTHON) >/dev/null || \
	  $(call missing,$(PYTHON) is missing; install Python 3.11 or newer (Debian: apt install python3 python3-venv))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  $(call missing,$(PYTHON) is older than 3.11; install a newer one and run: make PYTHON=python3.11 ...)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(call missing,$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv))
	@command -v perl >/dev/null || \
	  $(call missing,perl is missing and Verilator needs it (Debian: apt install perl))
	@{ command -v "$${CXX:-c++}" || command -v g++ || command -v clang++; } >/dev/null || \
	  $(call missing,a C++ compiler is missing and Verilator needs it (Debian: apt install g++))
	$(PYTHON) -m venv .venv

.venv/.runtime .venv/.test .venv/.lint .venv/.fpga: pyproject.toml | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary --editable \
	  '.$(if $(filter-out .runtime,$(@F)),[$(patsubst .%,%,$(@F))])'
	@touch $@
