# make demo: a gallery from the model that ships.   make test: everything that must hold.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install install-test demo test test-browser check clean
help:            ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/'

# CPU torch first: a looser request would bring gigabytes of CUDA packages.
$(VENV)/.installed: requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

install: $(VENV)/.installed           ## the virtual environment
install-test: $(VENV)/.installed-test ## with what tests need

demo: install    ## out/demo: a gallery of every image type the shipped model knows
	@$(BIN)/medisyn generate --prompts recipes/gallery.csv -o out/demo --sheet gallery.png
	@echo
	@echo "The gallery is out/demo/gallery.png, its collection out/demo (images/ and metadata.jsonl)."
	@echo "Try next: $(BIN)/medisyn generate \"chest X-ray of a child with viral pneumonia\" -n 8 --seed 7 -o out/pneumonia"

test: install-test  ## the tests, three files at a time
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder
	@echo "All tests passed. Try next: make demo"

test-browser: install-test ## the pages in a real browser: needs node and chromium
	@cd tests/browser && npm install --silent --no-audit --no-fund --no-package-lock
	@$(BIN)/python -m pytest -q -rs tests/test_web_browser.py $(wildcard tests/test_web_room_browser.py)

check: install-test ## style and the house rules
	@$(BIN)/ruff check medisyn tests benchmarks
	@$(BIN)/python -m pytest -q tests/test_architecture.py

clean:           ## remove what was made here, keep data and runs
	rm -rf out/demo build dist *.egg-info .pytest_cache .ruff_cache
