# Skein's commands. Only Go is needed, except for `conformance`, `cluster-long` and `bench`, which install what they need.
SHELL   := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := go tool -modfile=tools/go.mod
FUZZTIME ?= 60s
# Go's race detector links with a C compiler; without one the tests run without it and say so.
RACE := $(if $(shell command -v $${CC:-cc}),-race,$(warning no C compiler: testing without the race detector))

export CGO_ENABLED ?= 0

.PHONY: build run test sim lint fuzz bench conformance targets

build: ## bin/skein, static
	go build -ldflags '$(LDFLAGS)' -o bin/skein ./cmd/skein

run: build ## one broker on embedded defaults, data in ./skein-data
	./bin/skein serve

dev: build ## three brokers to look at failover with, data in ./skein-dev
	./bin/skein dev

cluster-long: build ## clusters broken for 15 minutes each, under franz-go, Java and librdkafka
	cd test/conformance && go build -o ../../bin/conformance .
	bin/conformance --workers bin/workers.json
	SKEIN_CLUSTER_LONG=1 SKEIN_CLUSTER_CLIENTS=$(CURDIR)/bin/workers.json go test -count=1 -v -timeout 3h ./test/cluster

test: ## every Go test, with the race detector
	CGO_ENABLED=$(if $(RACE),1,0) go test $(RACE) -shuffle=on -timeout 45m ./...
	go test -tags skeinplant -run TestPlanted ./queuemapper ./commitlog ./controller/failover ./internal/witness ./broker # planted mistakes that the tests must catch

SEEDS ?= 20000
sim: ## SEEDS seeds of the simulated cluster; the mistakes that it must catch
	go test ./internal/sim -count=1 -run 'TestSeeds|TestReplay' -seeds $(SEEDS) -timeout 0 -v
	go test -tags skeinplant -count=1 ./internal/sim -run TestPlanted -v

lint: ## gofmt, vet, staticcheck, govulncheck (where its database can be reached)
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...
	@if ! out=$$($(TOOL) govulncheck ./... 2>&1); then \
	  if grep -q 'fetching vulnerabilities' <<<"$$out"; then echo "govulncheck: its database cannot be reached from here, not checked"; \
	  else echo "$$out"; exit 1; fi; fi

fuzz: ## FUZZTIME (default a minute) over every fuzz target
	go run ./test/fuzz -time $(FUZZTIME)

bench: build ## Apache Kafka and Skein one after the other, same disk, same load
	./bin/skein bench compare

bench-cluster: build ## three brokers of Apache Kafka and of Skein: failover, growth, throughput
	./bin/skein bench failover
	./bin/skein bench scale
	./bin/skein bench cluster

conformance: build ## foreign clients against bin/skein; installs what it needs (ARGS='--only java --kafka' and so on)
	cd test/conformance && go vet ./... && go test ./... && go build -o ../../bin/conformance .
	bin/conformance $(ARGS)
	$(if $(ARGS),,bin/conformance --brokers 3 --only cluster,java-4.3.0,kcat,franz-go --cases tool,admin,none,group,idempotent)
	$(if $(ARGS),,bin/conformance --workers bin/workers.json && \
	  SKEIN_BIN=$(CURDIR)/bin/skein SKEIN_CLUSTER_CLIENTS=$(CURDIR)/bin/workers.json go test -count=1 -timeout 30m -run '^TestForeign' ./test/cluster)

targets: ## builds for every supported platform
	GOOS=linux GOARCH=amd64 go build -o /dev/null ./cmd/skein
	GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/skein
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/skein
