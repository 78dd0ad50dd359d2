# One environment of its own in $(VENV); nothing outside the checkout is touched.
#   make demo    pretrain a small hybrid backbone on real digits and report
#   make test    install what segmentation and detection need too, then run the tests
#   make campaign    try to lose a training: kills, damaged files, full disks; minutes
#   make env | lint | docs | clean
# Variables: PYTHON (3.10-3.12), VENV, JOBS (compilations and tests in parallel), ARGS (more arguments for pytest, the demo or the campaign).

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
ARGS ?=

DEMO := tools/demo.py

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q -c requirements/constraints.txt
MMCV := $(shell sed -n '/mmcv==/p' requirements/mminstall.txt)
NATIVE := $(wildcard mmmap/ops/csrc/*)

# A user's settings must not lead pip or python out of the environment.
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER := 0
# OpenMP threads that spin long for each other lose several times the speed when another program takes a core.
export GOMP_SPINCOUNT ?= 1000

.PHONY: demo test campaign env full lint docs clean
.DELETE_ON_ERROR:

demo: $(STAMPS)/package
	$(BIN)/python $(DEMO) $(ARGS)

test: $(STAMPS)/full
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile $(ARGS)

campaign: $(STAMPS)/full
	$(BIN)/python -W ignore tests/campaign --jobs $(JOBS) $(ARGS)

env: $(STAMPS)/package
full: $(STAMPS)/full

lint: $(STAMPS)/full
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_project/test_arrows.py

docs: $(STAMPS)/docs
	$(MAKE) -C docs/en html PYTHON=$(abspath $(BIN)/python)

clean:
	@if [ -e $(VENV) ] && [ ! -d $(STAMPS) ]; then echo 'error: $(VENV) was not made by make; not removed'; exit 1; fi
	rm -rf $(VENV) build mmmap.egg-info docs/en/_build docs/en/api/generated mmmap/ops/*.so

# The stamps folder comes first: it marks the environment as ours, so that one cut short is taken up again.
$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo 'error: $(PYTHON) is not Python 3.10-3.12 ('"$$($(PYTHON) --version 2>&1)"'); choose one: make PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'error: $(PYTHON) has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv)'; exit 1; }
	@if [ -e $(VENV) ] && [ ! -d $(STAMPS) ]; then \
	  echo 'error: $(VENV) exists and was not made by make; name another folder: make VENV=.venv-mmmap'; exit 1; fi
	mkdir -p $(STAMPS)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Build isolation hides torch from mmcv's build, which then leaves out its ops: seconds in place of minutes, and
# enough here. No cache: pip would keep that wheel and might give it to an environment that wants the ops.
$(STAMPS)/core: $(STAMPS)/venv requirements/constraints.txt requirements/build.txt requirements/mminstall.txt \
    requirements/runtime.txt requirements/demo.txt
	$(INSTALL) -r requirements/build.txt
	$(INSTALL) --no-cache-dir -r requirements/mminstall.txt
	$(INSTALL) -r requirements/runtime.txt -r requirements/demo.txt
	@$(cv2_without_libgl)
	@touch $@

$(STAMPS)/package: $(STAMPS)/core setup.py pyproject.toml mmmap/version.py $(NATIVE)
	$(PIP) install -q --no-build-isolation --no-deps -e .
	@touch $@

$(STAMPS)/full: $(STAMPS)/package requirements/optional.txt requirements/tests.txt
	$(INSTALL) -r requirements/optional.txt -r requirements/tests.txt
	@# Its interpreter tests the GPU kernels on a CPU; torch for CUDA brings its own.
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) install -q 'triton==3.6.0' || echo 'no triton: GPU kernels untested'
	@$(cv2_without_libgl)
	@$(BIN)/python -c 'import torch, mmcv._ext' 2>/dev/null || { $(mmcv_with_ops); }
	@$(BIN)/python -c 'import torch, mmcv._ext' || { echo 'error: $(MMCV) was built without its ops'; exit 1; }
	@touch $@

$(STAMPS)/docs: $(STAMPS)/package requirements/docs.txt
	$(INSTALL) -r requirements/docs.txt
	@touch $@

# opencv-python links against libGL, which a bare machine lacks. The headless build of the same version overlays it.
define cv2_without_libgl
$(BIN)/python -c 'import cv2' 2>/dev/null || { \
  echo 'opencv-python does not import here; laying opencv-python-headless over it'; \
  $(INSTALL) --no-deps --force-reinstall opencv-python-headless && $(BIN)/python -c 'import cv2'; }
endef

# Kept in a folder of ours, so that it is compiled once. CPU ops only: the tests run on the CPU and need no nvcc.
define mmcv_with_ops
echo '$(MMCV) with its ops: compiled here unless pip finds a wheel (about 20 minutes divided by $(JOBS) jobs)'; \
MAX_JOBS=$(JOBS) CFLAGS='-O1 -g0' CUDA_VISIBLE_DEVICES= $(PIP) wheel -q --no-deps --no-cache-dir \
  --no-build-isolation --find-links $(VENV)/wheels -w $(VENV)/wheels $(MMCV) && \
$(PIP) install -q --no-deps --no-index --force-reinstall --find-links $(VENV)/wheels $(MMCV)
endef
