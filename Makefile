# The only door: people and CI come in here. `make` alone lists what there is.

CARGO ?= cargo
# What the demo listens on, and where it lives: make demo PORT=7000 DATA=/tmp/demo
PORT ?= 6432
ADMIN_PORT ?= 9432
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo build test test-random test-clients fmt fmt-check lint doc bench bench-neighbours clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing (Debian and Ubuntu), or name it
	@scripts/setup build postgres

demo: setup ## two databases, three organizations, one proxy; Ctrl-C removes it all
	$(CARGO) build --release
	@exec target/release/partywall demo --port $(PORT) --admin-port $(ADMIN_PORT) $(if $(DATA),--data $(DATA))

build: setup ## the program, optimized, at target/release/partywall
	$(CARGO) build --release

test: setup fmt-check lint doc ## everything that has to hold before a change is merged
	@scripts/setup postgres18
	$(CARGO) test
	tests/clients/light

# The suites of tests/it that throw dice (`seed()` of tests/it/support).
RANDOM_SUITES = conversation copy_in::neighbours crown:: fuzz:: isolation::turns model::

test-random: setup ## the random tests with a seed that nobody has tried, and again: rounds=10; seed=N for that one
	@for round in $$(seq $(or $(rounds),1)); do \
	    seed=$(or $(seed),$$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')); \
	    echo "PARTYWALL_TEST_SEED=$$seed"; \
	    PARTYWALL_TEST_SEED=$$seed $(CARGO) test --test it -- $(RANDOM_SUITES) \
	        || { echo "again with: make test-random seed=$$seed"; exit 1; }; \
	done

test-clients: setup ## real clients (psql, Python, Node, Java, Go, Ruby …) against the demo: one=psql for one, bytewise=1
	$(CARGO) build
	tests/clients/setup
	tests/clients/run $(if $(bytewise),--bytewise) $(one)

fmt: ## format the sources
	$(CARGO) fmt

fmt-check:
	$(CARGO) fmt --check

lint: ## clippy, without a warning
	$(CARGO) clippy --all-targets -- -D warnings

doc: ## the documentation of the code, at target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench: ## compare with PgBouncer, HAProxy and Postgres alone
	benches/run

bench-neighbours: ## what one organization feels of another's greedy loads
	$(CARGO) build --release
	benches/neighbours

clean: ## remove what was built
	$(CARGO) clean
