# A thin menu over cargo. Tests and demo run on a control plane of their own, built once with Go into a cache outside the
# tree; K8S=1.34, 1.36 (when nothing is said) or 1.37 chooses its version.

SHELL := bash
CARGO ?= cargo
PREFIX ?= $(HOME)/.local
CACHE := $(or $(MANAGED_SECRETS_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/managed-secrets,$(HOME)/.cache/managed-secrets))

# Runs a build while the programs that it will need are built beside it; $(1) names the programs, $(2) is the build. Nothing
# is built where a cluster or a folder of programs is given. A session and a pipe of its own: Ctrl-C, or a build that fails,
# ends it too.
WITH_TOOLS = if [ -n "$$KUBEBUILDER_ASSETS$$USE_EXISTING_CLUSTER" ]; then $(2); else \
	coproc TOOLS { exec setsid --wait hack/tools.sh --while-stdin $(1) >&2; }; tools=$$TOOLS_PID; \
	$(2) && wait $$tools; fi

# Most tests wait more than they compute, so one more than there are processors runs at a time. The Go programs of a control
# plane collect garbage less often than by default, up to this size of the heap.
TEST = RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(getconf _NPROCESSORS_ONLN) + 1))} \
	GOGC=$${GOGC:-400} GOMEMLIMIT=$${GOMEMLIMIT:-1500MiB} $(CARGO) test --locked

.PHONY: bench bench-small soak help build install image image-twice e2e demo test test-versions fuzz simulate leader-changes faults softhsm session startup generate lint fmt deny clean-cache

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## both programs, for use: the operator, and kubectl's plugin
	$(CARGO) build --locked --release --package managed-secrets --bin managed-secrets
	$(CARGO) build --locked --release --package kubectl-msec

install: build ## both programs into PREFIX/bin (~/.local), with the plugin's completion
	install -d "$(PREFIX)/bin"
	install target/release/managed-secrets target/release/kubectl-msec "$(PREFIX)/bin"
	ln -sf kubectl-msec "$(PREFIX)/bin/kubectl_complete-msec"

image: ## the operator's image, as an archive in target/image; needs no container builder
	hack/image.sh

image-twice: ## the image from two folders; fails if the digests differ
	hack/image/twice.sh

e2e: ## what is shipped, on a cluster of two real nodes; ROUNDS of restarts and drains (1); needs root and packages, which it names
	hack/e2e.sh

demo: ## the story of one secret on a control plane of its own; KEEP=1 leaves it running
	@$(call WITH_TOOLS,control-plane,$(CARGO) build --locked --workspace --bins --example controlplane)
	$(CARGO) run --locked --quiet --example controlplane -- \
		run --create crds --namespace shop --operator $(if $(filter 1,$(KEEP)),--keep) -- hack/demo.sh

test: ## every test
	@$(call WITH_TOOLS,all,$(CARGO) test --locked --workspace --no-run)
	$(TEST) --workspace

test-versions: ## the integration tests on the oldest, the usual and the newest supported Kubernetes
	set -e; for version in 1.34 1.36 1.37; do \
		echo "── Kubernetes $$version"; export K8S=$$version; $(TEST) --test integration; done

fuzz: ## libFuzzer on the webhooks and the parsers of sealed text and templates, FUZZ_SECONDS long (300)
	hack/fuzz.sh

simulate: ## the controller against a model of the API server, with fresh seeds for SECONDS (60); SEED=… runs one again
	$(if $(SEED),SIMULATE_SEED=$(SEED),SIMULATE_SECONDS=$(or $(SECONDS),60)) $(CARGO) test --locked --package managed-secrets --lib -- \
		--nocapture controller::model::any_sequence controller::model::one_attentive

leader-changes: ## forces CHANGES (200) changes of leader, and looks for a second writer in the audit log
	LEADER_CHANGES=$(or $(CHANGES),200) $(CARGO) test --locked --package managed-secrets --test integration -- \
		--nocapture leaders::never_two_replicas

faults: ## faults of a cluster, as long as they last in reality, and 20,000 objects at once: prints a table (an hour)
	$(CARGO) build --locked --release --bin managed-secrets
	FAULTS=long FAULTS_PROGRAM="$(CURDIR)/target/release/managed-secrets" $(CARGO) test --locked --package managed-secrets \
		--test integration -- --nocapture --test-threads=1 outages::

softhsm: ## a third-party KMS plugin, over SoftHSM: the conformance test, and an operator that uses it; needs softhsm2 and opensc
	hack/softhsm.sh

session: ## records docs/session.md from a terminal; needs tmux
	$(CARGO) build --locked --workspace --bins --example controlplane
	$(CARGO) run --locked --quiet --example controlplane -- \
		run --create crds --namespace shop --operator -- hack/session.sh

startup: ## how long the plugin takes to start, as it is released
	hack/startup.sh

bench: ## what it costs, against the limit of this machine: prints a table; ROWS=burst,latency,drift,fairness,admission,reads,crypto,many,rewrap
	@$(call WITH_TOOLS,control-plane,$(CARGO) build --locked --release --bin managed-secrets --example bench)
	target/release/examples/bench $(if $(ROWS),--rows $(ROWS)) $(if $(OBJECTS),--objects $(OBJECTS)) \
		$(if $(MANY),--many $(MANY)) $(if $(REPETITIONS),--repetitions $(REPETITIONS)) $(if $(SAMPLES),--samples $(SAMPLES))

soak: ## mixed work for MINUTES (20) while replicas end, with a checker outside; SEED=… does the same again
	@$(call WITH_TOOLS,control-plane,$(CARGO) build --locked --release --bin managed-secrets --example bench)
	target/release/examples/bench soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

bench-small: ## that the benchmark runs, and that each operation costs the requests that the design says
	$(CARGO) build --locked --bin managed-secrets --example bench
	target/debug/examples/bench --small

generate: ## crds/, deploy/ and the reference in docs/, from the code
	UPDATE=1 $(CARGO) test --locked --quiet --test generated

lint: ## format and clippy, warnings denied; and the lock file of fuzz/, which nothing else builds
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

fmt: ## formats the code
	$(CARGO) fmt
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

deny: ## licences, sources and duplicates of the dependencies; advisories where their database can be had
	hack/deny.sh

clean-cache: ## removes what tests and demo have built outside the tree
	rm -rf "$(CACHE)"
