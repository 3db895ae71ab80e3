# The work is done by small scripts under tools/; each can be run by itself too.
.DEFAULT_GOAL := help
.PHONY: help venv demo test unit integration sanity lint bench build lock clean distclean
SIZE ?=

help: ## this list
	@sed -n 's/^\([a-z ]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## the main job on a sample instance, start to end; SIZE=2G for larger weights
	@tools/venv demo
	@.venv/bin/python tools/demo.py $(if $(SIZE),--size $(SIZE))

test: ## all tests; what a single tier is called: see tools/test --help
	@tools/test

unit integration sanity lint: ## one tier of the tests
	@tools/test $(if $(filter lint,$@),ruff mypy ansible-lint,$@)

bench: ## measure against the usual recipe, rclone alone and restic; writes tests/bench/RESULTS.md
	@tools/venv test
	@.venv/bin/python tests/bench/bench.py $(if $(SIZE),--size $(SIZE))

build: ## the collection's tar.gz
	@tools/venv demo
	@.venv/bin/ansible-galaxy collection build --force

venv: ## the virtual environment with all development tools
	@tools/venv test

lock: ## choose new versions for requirements/*.txt
	@tools/venv test
	@.venv/bin/python tools/lock.py

clean: ## remove what tests and the demo made
	rm -rf .ansible .cache .demo .hypothesis tests/output guardops-qwen3guard-*.tar.gz

distclean: clean ## the virtual environment too
	rm -rf .venv
