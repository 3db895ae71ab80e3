# The work is done by small scripts under tools/; each can be run by itself too.
.DEFAULT_GOAL := help
.PHONY: help venv demo playground reference test test-engines unit integration molecule sanity lint bench bench-trace bench-export bench-gateway bench-patrol bench-recovery build execution-environment lock clean distclean
SIZE ?=

help: ## this list
	@sed -n 's/^\([a-z -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## the main job on a sample instance, start to end; SIZE=2G for larger weights
	@tools/venv demo
	@.venv/bin/python tools/demo.py $(if $(SIZE),--size $(SIZE))

playground: ## a small guard with an object store, to go through docs/tutorial.md; until Ctrl-C
	@tools/venv demo
	@.venv/bin/python tools/playground.py

reference: ## all modules, roles and lookups with their options, as HTML in .cache/reference
	@tools/venv test
	@.venv/bin/python tools/reference.py

test: ## all tests; what a single tier is called: see tools/test --help
	@tools/test

unit integration molecule sanity lint: ## one tier of the tests
	@tools/test $(if $(filter lint,$@),ruff mypy ansible-lint docs importer,$@)

test-engines: ## the gateway's contract tests against vLLM on a CPU: 3.5 GB more in .cache
	@tools/test engines

bench: ## measure against the usual recipe, rclone alone and restic; writes tests/bench/RESULTS.md
	@tools/venv test
	@.venv/bin/python tests/bench/bench.py $(if $(SIZE),--size $(SIZE))

bench-export: ## measure audit_export, 72 hours at 100 records a second; HOURS="1 8" for less
	@tools/venv test
	@.venv/bin/python tests/bench/bench_export.py $(if $(HOURS),--hours $(HOURS))

bench-trace: ## how long it takes to find one record among 0.3, 3 and 30 million
	@tools/venv test
	@.venv/bin/python tests/bench/bench_trace.py

bench-patrol: ## how long a patrol of 1,000 instances takes, in a directory and in a local S3
	@tools/venv test
	@.venv/bin/python tests/bench/bench_patrol.py

bench-gateway: ## what a durable audit record costs: the gateway with its log and without
	@tools/venv test
	@.venv/bin/python tests/bench/bench_gateway.py

bench-recovery: ## a recovery's bytes against its 300 s, with 16 GB of weights; SIZE=4G for less
	@tools/venv test
	@.venv/bin/python tests/bench/bench_recovery.py $(if $(SIZE),--size $(SIZE))

build: ## the collection's tar.gz
	@tools/venv demo
	@.venv/bin/ansible-galaxy collection build --force

execution-environment: ## AWX's image, built, and tried by playbooks in it (root, Podman); BASE=IMAGE
	@tools/venv test
	@tools/testbed exec .venv/bin/python tools/execution_environment.py $(if $(BASE),--base $(BASE))

venv: ## the virtual environment with all development tools
	@tools/venv test

lock: ## choose new versions for requirements/*.txt
	@tools/venv test
	@.venv/bin/python tools/lock.py

clean: ## remove what tests and the demo made
	rm -rf .ansible .cache .demo .hypothesis .playground tests/output guardops-qwen3guard-*.tar.gz

distclean: clean ## the virtual environment too
	rm -rf .venv
