# every recipe runs inside `uv run`

default: check

# lint, types, import contracts
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# all tests, checks included
test *ARGS: check
    pytest {{ARGS}}

# a real recording through the six stages, on this machine
demo *ARGS:
    lucid demo {{ARGS}}

# speed, compared in one run
bench *ARGS:
    lucid bench {{ARGS}}
