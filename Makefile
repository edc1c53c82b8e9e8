# ocf-clusterip: `make` lists what can be made.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.NOTPARALLEL:

GO      ?= go
DESTDIR ?=
BIN     ?= bin
# What each fuzz target gets: a number of inputs, here a few seconds' worth, or a time such as 1m. (In the last moment of a
# time, the Go tool may take its own deadline for a failure.)
FUZZTIME ?= 10000x
# How many events `make explore` tries in every order: each further one takes six times as long.
DEPTH    ?= 5
# The parameter early_drop of the kernel tests, where they do not set it: xdp, tc or auto; empty: its default.
EARLY_DROP ?=
# Which of the kernel tests do not run: a regular expression, as for `go test -skip`.
SKIP ?=
# Which kernel test-vm boots: that of Debian bullseye (Linux 5.10), bookworm (6.1), trixie (6.12) or sid (7.2 and later); empty: of
# the machine's own release. And in which guest: data-path, match, target or interfaces; empty: in all.
KERNEL ?=
GUEST  ?=

sbindir  := /usr/sbin
agentdir := /usr/lib/ocf/resource.d/custom
mandir   := /usr/share/man
bashdir  := /usr/share/bash-completion/completions
zshdir   := /usr/share/zsh/vendor-completions
fishdir  := /usr/share/fish/vendor_completions.d

# Where the packages go, for which architectures (GOARCH), and who maintains them: whoever publishes packages puts their name here.
DIST          ?= dist
ARCHITECTURES ?= amd64 arm64 s390x
MAINTAINER    ?= ocf-clusterip maintainers <maintainers@ocf-clusterip.example>
export MAINTAINER # as it is: a name may have an apostrophe

version := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo unknown)

# Static and reproducible. Pacemaker starts the program for each action, so it must be small: without symbol and debug tables (-s -w; a
# panic still prints its stack), and without text/template in the cli library, which keeps the linker from dropping unused methods.
# The version is git's, without Go's own stamp (-buildvcs): that one fails in a clone which belongs to another user.
flags   := -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(version)'
compile := CGO_ENABLED=0 $(GO) build $(flags) -tags urfave_cli_no_template

# A build of the program with the tag manual writes its manual. That build is for this machine, whichever machine the program is for.
# The date of the pages is that of the commit, so that the same source always makes the same pages (reproducible-builds.org).
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date --reference=CHANGELOG.md +%s)
write-manual := GOOS= GOARCH= CGO_ENABLED=0 SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' $(GO) run $(flags) -tags manual ./cmd/ocf-clusterip manual

golangci := $(GO) tool -modfile=tools/go.mod golangci-lint
# Reads `go test -json`, and fails for a skipped test as for a failed one.
report   := $(GO) run -C tools ./testreport

# RELEASE=bullseye|bookworm|trixie|sid: the hosts of the clusters run in the root of that Debian release; by default, in the machine's own.
RELEASE ?=
# Which of the cluster tests run, or of the packages' tests: a regular expression, as for `go test -run`.
RUN     ?= .
release-root := if [ -n '$(RELEASE)' ]; then ./tests/install-packages release; LAB_ROOT=$$(./tests/make-root '$(RELEASE)'); export LAB_ROOT; fi
# How long `make soak` lets things happen, what decides which (empty: a new number, which it prints), and the resource's mac_mode.
MINUTES ?= 3
SEED    ?=
MAC     ?= multicast
# Which rows of docs/compatibility.md `make matrix` writes: releases, pairs of them, kernels; by default, all.
ROWS    ?=
# Static, because the hosts run the tests' program too, in roots with other C libraries.
lab-test     := CGO_ENABLED=0 $(GO) test -tags system -count=1 -timeout 60m

##@ To build and install
.PHONY: build build-all manual install uninstall clean

build: ## bin/ocf-clusterip, a static binary
	$(compile) -o '$(BIN)/ocf-clusterip' ./cmd/ocf-clusterip

build-all: ## bin/<arch>/ocf-clusterip for amd64, arm64 and s390x
	for arch in $(ARCHITECTURES); do
		GOOS=linux GOARCH=$$arch $(compile) -o "$(BIN)/$$arch/ocf-clusterip" ./cmd/ocf-clusterip
	done

manual: ## bin/manual: the manual pages, and what bash, zsh and fish complete commands with
	$(write-manual) '$(BIN)/manual'

install: build manual ## the program to $(DESTDIR)/usr/sbin, its link among the resource agents, its manual
	install -D -m 0755 '$(BIN)/ocf-clusterip' '$(DESTDIR)$(sbindir)/ocf-clusterip'
	install -d -m 0755 '$(DESTDIR)$(agentdir)'
	# Relative, so that it is right below DESTDIR too.
	ln -sfnr '$(DESTDIR)$(sbindir)/ocf-clusterip' '$(DESTDIR)$(agentdir)/clusterip'
	install -D -m 0644 '$(BIN)/manual/ocf-clusterip.8' '$(DESTDIR)$(mandir)/man8/ocf-clusterip.8'
	install -D -m 0644 '$(BIN)/manual/ocf_custom_clusterip.7' '$(DESTDIR)$(mandir)/man7/ocf_custom_clusterip.7'
	install -D -m 0644 '$(BIN)/manual/ocf-clusterip.bash' '$(DESTDIR)$(bashdir)/ocf-clusterip'
	install -D -m 0644 '$(BIN)/manual/ocf-clusterip.zsh' '$(DESTDIR)$(zshdir)/_ocf-clusterip'
	install -D -m 0644 '$(BIN)/manual/ocf-clusterip.fish' '$(DESTDIR)$(fishdir)/ocf-clusterip.fish'

uninstall: ## removes what install has installed
	rm -f '$(DESTDIR)$(agentdir)/clusterip' '$(DESTDIR)$(sbindir)/ocf-clusterip'
	rm -f '$(DESTDIR)$(mandir)/man8/ocf-clusterip.8' '$(DESTDIR)$(mandir)/man7/ocf_custom_clusterip.7'
	rm -f '$(DESTDIR)$(bashdir)/ocf-clusterip' '$(DESTDIR)$(zshdir)/_ocf-clusterip' '$(DESTDIR)$(fishdir)/ocf-clusterip.fish'
	if [ -d '$(DESTDIR)$(agentdir)' ]; then rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(agentdir)'; fi

clean: ## removes what was built
	rm -rf '$(BIN)' '$(DIST)'

##@ To release
.PHONY: packages test-packages release

packages: ## dist: deb and rpm for amd64, arm64 and s390x, what is in them (SBOM), and checksums
	@echo '== packages (the first run on a machine builds the tools: two minutes)'
	export SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' GIT_VERSION='$(version)'
	./packaging/build '$(DIST)' $(ARCHITECTURES)

test-packages: packages ## builds them again elsewhere: the same bytes; installs, upgrades, removes them on three Debian releases; types the README's first lines (root)
	@echo '== tests of the packages'
	./tests/install-packages demo
	./tests/install-packages packages
	$(lab-test) -json -run '$(RUN)' ./tests/packages -dist '$(abspath $(DIST))' | $(report)

release: ## the packages of what is committed, tested, in dist; it sets no tag and publishes nothing (root)
	@case '$(version)' in
		*-dirty | unknown) echo "make release: '$(version)' is no commit: commit first, in a git repository" >&2; exit 1 ;;
	esac
	case '$(version)' in *-*) ;; v*)
		grep -qE '^## \[$(subst .,\.,$(version:v%=%))\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md ||
			{ echo "make release: CHANGELOG.md lacks the line '## [$(version:v%=%)] - YEAR-MONTH-DAY'" >&2; exit 1; } ;;
	esac
	$(MAKE) --no-print-directory test-packages RUN=.
	cat '$(DIST)/SHA256SUMS'

##@ To see it work
.PHONY: demo lab bench bench-packets bench-failover bench-flood

demo: ## a Pacemaker cluster, clients that ask all the time, failures: told step by step, with a picture (root; a minute)
	./tests/install-packages demo
	$(MAKE) --no-print-directory build
	$(GO) run ./tests/demo

lab: ## bin/lab, a Pacemaker cluster on this machine to play with: `bin/lab up 3` (root)
	./tests/install-packages demo
	$(MAKE) --no-print-directory build
	CGO_ENABLED=0 $(GO) build -o '$(BIN)/lab' ./tests/lab/command

bench: ## the cost of each action, and of a packet, beside ocf:heartbeat:IPaddr2 (root)
	./tests/install-packages bench
	$(MAKE) --no-print-directory build
	$(GO) run ./tests/bench

bench-packets: ## the cost of a packet alone (root; Linux 5.18; two minutes)
	./tests/install-packages bench
	$(MAKE) --no-print-directory build
	$(GO) run ./tests/bench -only packets

bench-failover: ## the time from a node's death to the last start elsewhere, beside ocf:pacemaker:Dummy (root; ten minutes)
	./tests/install-packages bench
	$(MAKE) --no-print-directory build
	$(GO) run ./tests/failover

bench-flood: ## two minutes of 200,000 SYNs a second from false sources: what they cost, and that clients of a dead node are told (root)
	./tests/install-packages test
	$(GO) test -tags system -count=1 -v -timeout 10m ./tests/kernel -run '^TestTheMemoryWithstandsAFlood$$' -flood-seconds 60 -flood-rate 200000

##@ To test (as root on Debian 12; installs what it needs)
.PHONY: test prerequisites lint vet unit explore kernel test-vm cluster soak fuzz

test: prerequisites vet build-all unit test-vm kernel cluster fuzz ## all that follow but lint, explore and soak, in this order: 25 minutes on two processors

prerequisites: ## installs the Debian packages of tests/packages.txt that are missing
	@echo '== Debian packages'
	./tests/install-packages test

lint: ## golangci-lint with .golangci.yml: formatting, the package map, faults
	@echo '== lint (the first run on a machine builds golangci-lint: two minutes, or eight on a slow one)'
	$(golangci) config verify
	$(golangci) run ./...
	$(GO) vet -C tools ./...

vet: ## go vet
	@echo '== vet'
	$(GO) vet -tags system ./...
	$(GO) vet -tags system,guest ./tests/kernel
	$(GO) vet -tags manual ./cmd/ocf-clusterip

unit: ## the packages' own tests, with the race detector; `go test ./...` without it needs neither root nor packages
	@echo '== unit tests, with the race detector'
	{
		$(GO) test -json -race -p 2 ./...
		$(GO) test -C tools -json ./...
	} | $(report)

explore: ## the hand-over of connections: every order of up to DEPTH events in a model of a cluster (4: four minutes; 5: a quarter of an hour)
	@echo '== every order of up to $(DEPTH) events'
	$(GO) test ./internal/agent -run TestEveryOrderOfEvents -count=1 -timeout 24h -v -depth '$(DEPTH)'

kernel: ## the OCF contract and the data path, on this kernel, in network namespaces; EARLY_DROP=off, tc or xdp: only the kernel tests, with that
	@echo '== $(if $(EARLY_DROP),kernel tests with early_drop=$(EARLY_DROP),contract and kernel tests), in network namespaces'
	packages=$$($(GO) list -tags system ./tests/... | grep -v -e /tests/lab -e /tests/vm -e /tests/packages)
	packages="$$packages ./contrib ./internal/kernel/nftables ./internal/kernel/link ./internal/kernel/earlydrop"
	if [ -n '$(EARLY_DROP)' ]; then packages=./tests/kernel; fi
	skip=$(if $(SKIP),-skip='$(SKIP)')
	CLUSTERIP_EARLY_DROP='$(EARLY_DROP)' $(GO) test -tags system -json -count=1 -p 2 -timeout 60m $$skip $$packages | $(report)

test-vm: ## the same on a Debian kernel, emulated: KERNEL=bullseye|bookworm|trixie|sid, GUEST=data-path for the short list
	@echo '== tests on the kernel of a Debian release, emulated (the first run downloads 50 MB): five minutes, or twice that on a slow machine'
	$(GO) test -tags system -json -count=1 -timeout 60m ./tests/vm -kernel '$(KERNEL)' -guest '$(GUEST)' | $(report)

cluster: ## real Pacemaker clusters in namespaces: planned changes, failures, the examples; RELEASE=trixie runs them on that Debian's
	@echo '== cluster tests: Corosync and Pacemaker of $(if $(RELEASE),Debian $(RELEASE),this machine), in namespaces'
	$(release-root)
	$(lab-test) -json -p 1 -run '$(RUN)' ./tests/lab/... ./pacemaker/examples | $(report)

soak: ## random, overlapping events on a real cluster under connections that must survive: MINUTES=3 SEED=7 MAC=multicast|igmp|unicast RELEASE=trixie
	./tests/install-packages demo
	$(release-root)
	$(MAKE) --no-print-directory build
	export RELEASE='$(RELEASE)'
	CGO_ENABLED=0 $(GO) run ./tests/soak -minutes '$(MINUTES)' -seed '$(SEED)' -mac '$(MAC)'

fuzz: ## a few seconds of each fuzz target; FUZZTIME=1m for more
	@echo '== fuzzing, $(FUZZTIME) for each target'
	# go test -list prints the targets of a package, and then "ok PACKAGE".
	targets=$$($(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ {name[n++] = $$1} /^ok/ {while (n > 0) print $$2, name[--n]}')
	[ -n "$$targets" ] || { echo 'no fuzz target found' >&2; exit 1; }
	while read -r package target; do
		echo "-- $$target of $$package"
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null
	done <<<"$$targets"

##@ To develop
.PHONY: fmt generate check-generated bpf-objects update-golden update-picture update-top-picture update-dashboard-picture matrix record-answers help

fmt: ## formats all Go code
	$(golangci) fmt ./...

generate: ## compiles internal/kernel/earlydrop/bpf anew, for both byte orders, with Debian 12's clang
	./tests/install-packages generate
	$(MAKE) --no-print-directory bpf-objects OBJECTS=internal/kernel/earlydrop

check-generated: ## whether what generate makes is what is committed
	./tests/install-packages generate
	anew=$$(mktemp -d)
	trap 'rm -rf "$$anew"' EXIT
	$(MAKE) --no-print-directory bpf-objects OBJECTS="$$anew"
	for object in "$$anew"/*.o; do
		cmp "$$object" "internal/kernel/earlydrop/$${object##*/}" || { echo 'it differs: make generate, and commit' >&2; exit 1; }
	done

# Without debug information, so that kernels without BTF load it too; the instructions are those of version 3, which Linux 5.10 has.
# The headers of the kernel are those of this machine; of them only constants and structures are used that no version changes.
bpf-objects:
	for order in bpfel bpfeb; do
		clang-14 -target $$order -mcpu=v3 -O2 -Wall -Wextra -Werror -fno-ident -I "/usr/include/$$(uname -m)-linux-gnu" \
			-c internal/kernel/earlydrop/bpf/earlydrop.c -o "$(OBJECTS)/earlydrop_$$order.o"
	done

update-golden: ## writes docs/parameters.md and the golden texts anew: read the diff
	$(GO) test ./internal/metadata ./internal/manual ./internal/operator ./internal/operator/convert ./internal/operator/doctor ./internal/operator/network ./internal/operator/plan ./internal/operator/top -update

matrix: ## runs all of that on four releases of Debian and their kernels, for hours, and writes docs/compatibility.md; ROWS='sid linux-sid'
	./tests/install-packages test
	./tests/install-packages release
	$(GO) run ./tests/matrix $(ROWS)

record-answers: ## writes what Pacemaker's programs of RELEASE answer to internal/pacemaker/testdata: then add the version to its tests
	$(release-root)
	$(lab-test) -run '^TestAnswersAreUnderstood$$' ./tests/lab -record '$(CURDIR)/internal/pacemaker/testdata'

update-picture: demo ## writes docs/demo.svg, the README's picture, anew
	cp demo-out/answers.svg docs/demo.svg

update-top-picture: ## writes docs/top.txt and docs/top.png, what top shows in a cluster, anew (root)
	./tests/install-packages demo
	$(lab-test) -run '^TestTopInACluster$$' ./tests/lab -pictures '$(CURDIR)/docs'

update-dashboard-picture: ## draws docs/dashboard.svg, the picture in contrib/README.md, anew: look at it (root)
	./tests/install-packages test
	$(GO) test -tags system -count=1 ./contrib -run '^TestPictureShowsTheDashboard$$' -update

help:
	@awk 'BEGIN {FS = ":.*## "}
		/^##@/ {printf "\n%s\n", substr($$0, 5)}
		/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
