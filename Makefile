# `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Machines on which it is set would compile every module of ours anew in each process: a second of each run of Dagster's.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install engines demo up test test-fast lint audit picture clean server server-folder server-down server-logs server-restart server-llmops server-backup server-restore server-test server-images server-rehearse bundle sbom

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,dev]'
	touch $@

demo: install
	$(BIN)/llmops demo

engines: install
	$(BIN)/llmops engines install $(ENGINE)

up: install
	$(BIN)/llmops up

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest --fast --numprocesses 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyrefly check --output-format min-text

# A server for a team (docs/operate.md). COMPOSE is `docker compose` or `podman-compose`; DATA holds all of its state.
COMPOSE ?= docker compose
DATA ?= $(CURDIR)/.server
COMPOSE_SERVER = $(COMPOSE) --env-file $(DATA)/env --file deploy/compose.yaml $(COMPOSE_FILES) $(PROFILES:%=--profile %)
# Whoever starts the engine without root is not who they are within its containers, unless podman keeps the number.
ifneq ($(and $(findstring podman,$(COMPOSE)),$(filter-out 0,$(shell id -u))),)
export PODMAN_USERNS ?= keep-id
endif

server-folder:
	$(PYTHON) deploy/server.py $(DATA) $(SET)

server: server-images
	$(COMPOSE_SERVER) up --detach postgres redis
	$(COMPOSE_SERVER) --profile setup run --rm setup
	$(COMPOSE_SERVER) up --detach

# One after another: side by side, engines would install what images have in common once for each of them. The console's
# is made of the control plane's.
server-images: export COMPOSE_PARALLEL_LIMIT = 1
# Else podman leaves out how an image says whether it is well.
server-images: export BUILDAH_FORMAT = docker
server-images: server-folder
	$(COMPOSE_SERVER) --profile setup build setup
	$(COMPOSE_SERVER) --profile images build

# What an upgrade to the images that were built would change, on copies of the databases (docs/operate.md).
server-rehearse: server-folder
	$(COMPOSE_SERVER) --profile setup run --rm setup llmops upgrade --rehearse

server-down: server-folder
	$(COMPOSE_SERVER) down

server-logs: server-folder
	$(COMPOSE_SERVER) logs --tail 1000 $(SERVICE)

# Services anew, with the files that they mount as they are now; all without SERVICE.
server-restart: server-folder
	$(COMPOSE_SERVER) restart $(SERVICE)

# A command of the platform within the server: make server-llmops DO="key list".
server-llmops: server-folder
	$(COMPOSE_SERVER) exec $(if $(TTY),,-T) code llmops $(DO)

# Into TO, keys into KEYS, while the server runs; DO="backup … --keep 14" says more. Both belong to whom the server runs as.
IN_SETUP = $(COMPOSE_SERVER) --profile setup run --rm -T --volume $(abspath $(TO)):/backups --volume $(abspath $(KEYS)):/keys setup
server-backup: server-folder
	@test -n "$(TO)" && test -n "$(KEYS)" || { echo "say where: make server-backup TO=/mnt/backups KEYS=/mnt/keys"; exit 2; }
	user=$$(sed -n 's/^LLMOPS_USER=//p' $(DATA)/env) && install -d -m 700 -o $${user%:*} -g $${user#*:} $(TO) $(KEYS)
	$(IN_SETUP) llmops backup /backups --keys /keys $(if $(KEEP),--keep $(KEEP))

# Into a new DATA, which has the secrets of the old one; `make server` then starts it.
server-restore: server-folder
	@test -n "$(TO)" && test -n "$(KEYS)" || { echo "say from where: make server-restore TO=/mnt/backups KEYS=/mnt/keys"; exit 2; }
	$(COMPOSE_SERVER) up --detach postgres
	@for try in $$(seq 120); do $(COMPOSE_SERVER) exec -T postgres sh /usr/local/bin/run-service health && exit 0; sleep 1; done; \
	  echo "PostgreSQL does not start: make server-logs SERVICE=postgres" >&2; exit 1
	$(IN_SETUP) llmops restore /backups --keys /keys

# All that a machine without the internet needs, in one folder: wheels with hashes, sources, images that IMAGES names and
# environments that ENGINES names.
BUNDLE ?= dist/bundle
bundle: install
	$(BIN)/python -m deploy.bundle.pack $(BUNDLE) $(IMAGES:%=--image %) $(ENGINES:%=--environment %) --engine $(if $(findstring podman,$(COMPOSE)),podman,docker)

# What is installed, as CycloneDX: name, version, hash and licence of each package of constraints.txt.
sbom: install
	$(BIN)/python -m deploy.bundle.sbom dist/sbom.json

# On the server that runs from DATA: datasets, a training, a deployment, a chat, and every container killed once.
server-test: install
	$(BIN)/python -m deploy.check $(DATA) --engine $(if $(findstring podman,$(COMPOSE)),podman,docker)

# It has pins of its own.
build/auditing: constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet pip-audit==2.10.1
	touch $@

# --strict: a package that could not be looked up is no package without vulnerabilities.
audit: build/auditing
	build/auditing/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

picture: install
	$(BIN)/python docs/house.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .grimp_cache
