"""What schemas.config.settings and infra.config.load promise."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from handlers.lifecycle.next_action import SilenceLimits
from infra.config.load import data_dir, load_settings
from schemas.config.reference import FILES, page, template
from schemas.config.settings import VARIABLES, Settings
from schemas.errors import Misuse
from streams.roles.services import silence


def test_without_any_variable_the_defaults_hold() -> None:
    """Breaks: `lucid demo` on a fresh machine asks for configuration."""
    settings = load_settings({})
    session = settings.session()
    assert (session.chunk_bytes, session.codec, session.level, session.suite) == (10 << 20, 1, 3, 1)
    assert (session.chunk_max_seconds, session.threshold, settings.nats_url) == (60, 1024, "")
    assert settings.stages["RECORDER"].workers == 2
    assert all(limits.workers >= 1 for limits in settings.stages.values())


def test_every_variable_has_one_field_and_no_name_stands_twice() -> None:
    """Breaks: a variable is accepted and does nothing."""
    settings, tables = Settings(), ("stages", "services", "integrations")
    known = {item.name for item in dataclasses.fields(Settings)} - {"origins", *tables}
    rows = {
        f"{table}.{row}.{item.name}"
        for table in tables
        for row, one in getattr(settings, table).items()
        for item in dataclasses.fields(one)
    }
    assert {variable.field for variable in VARIABLES} == known | rows
    names = [name for variable in VARIABLES for name in variable.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "given", "field", "value"),
    [
        ("CHUNK_SIZE_MB", "0.25", "chunk_bytes", 1 << 18),
        ("LUCID_CHUNK_SIZE_MB", "16", "chunk_bytes", 16 << 20),
        ("CHUNK_MAX_SECONDS", "5m", "chunk_max_seconds", 300),
        ("HOST_RETURN_MAX", "7d", "host_return_max_s", 604_800),
        ("HOST_RETURN_MAX", "90", "host_return_max_s", 90),
        ("COMPRESSION_ALGORITHM", "GZIP", "codec", "gzip"),
        ("LUCID_DEFAULT_COMPRESSION_LEVEL", "19", "level", 19),
        ("NATS_URL", "nats://a:4222,tls://b:4222", "nats_url", "nats://a:4222,tls://b:4222"),
        ("LUCID_CHUNK_OUTPUT_PATH", "/x", "chunks_path", Path("/x")),
        ("LUCID_MAX_CHUNK_SIZE", "1048576", "max_chunk_bytes", 1 << 20),
        ("LUCID_MAX_CHUNK_SIZE", "8MiB", "max_chunk_bytes", 8 << 20),
        ("LUCID_MAX_CHUNK_SIZE", "10 MB", "max_chunk_bytes", 10_000_000),
        ("DEBUG", "yes", "debug", True),
        ("DEBUG", "", "debug", False),
    ],
)
def test_a_variable_under_any_of_its_names_sets_its_field(
    name: str, given: str, field: str, value: object
) -> None:
    """Breaks: a documented spelling of a setting is ignored."""
    assert getattr(load_settings({name: given}), field) == value


def test_how_long_a_host_may_be_silent_is_a_setting() -> None:
    """Breaks: on a slow line every session ends in ERROR, and nothing that is set helps."""
    assert silence(load_settings({})) == SilenceLimits()
    given = {"HOST_SILENT_MAX": "5m", "HOST_RETURN_MAX": "2d"}
    assert silence(load_settings(given)) == SilenceLimits(host_silent_s=300, host_return_s=2 * 86_400)


def test_the_limits_of_one_stage_are_its_own() -> None:
    """Breaks: more workers for one stage change another."""
    settings = load_settings({"MERKLE_WORKERS": "7", "MERKLE_MAX_MEMORY_MB": "32", "CHUNK_TIMEOUT": "2m"})
    assert (settings.stages["MERKLE"].workers, settings.stages["MERKLE"].slots) == (7, 32)
    assert settings.stages["MERKLE"].memory_bytes == 32 << 20
    assert settings.stages["CHUNK"].timeout_s == 120
    assert settings.stages["STORAGE"].timeout_s == 30


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({"CHUNK_SIZE_MB": "17"}, "config.chunk_bytes", ("CHUNK_SIZE_MB", "'17'", "0.25 to 16 MiB")),
        ({"CHUNK_SIZE_MB": "nan"}, "config.chunk_bytes", ("CHUNK_SIZE_MB",)),
        ({"LUCID_CHUNK_SIZE_MB": "ten"}, "config.chunk_bytes", ("LUCID_CHUNK_SIZE_MB", "'ten'")),
        ({"CHUNK_MAX_SECONDS": "1.5"}, "config.chunk_max_seconds", ("CHUNK_MAX_SECONDS", "whole")),
        ({"HOST_RETURN_MAX": "5 parsecs"}, "config.host_return_max_s", ("HOST_RETURN_MAX", "7d")),
        ({"LUCID_MAX_CHUNK_SIZE": "17MiB"}, "config.max_chunk_bytes", ("'17MiB'", "1024 to 16777216")),
        ({"LUCID_MAX_CHUNK_SIZE": "8 parsecs"}, "config.max_chunk_bytes", ("LUCID_MAX_CHUNK_SIZE",)),
        ({"PROCESSOR_QUEUE": "0"}, "config.processor_queue", ("PROCESSOR_QUEUE", "1 to 100000")),
        ({"COMPRESSION_ALGORITHM": "rar"}, "config.codec", ("rar", "none, zstd, lz4, brotli, gzip")),
        ({"COMPRESSION_ALGORITHM": "gzip", "COMPRESSION_LEVEL": "12"}, "config.level", ("12", "1 to 9")),
        ({"NATS_URL": "http://x"}, "config.nats_url", ("NATS_URL", "nats://")),
        ({"STORAGE_WORKERS": "-1"}, "config.stages.STORAGE.workers", ("STORAGE_WORKERS", "0 to 256")),
        ({"LUCID_ENV": "production"}, "config.nats_url", ("NATS_URL", "not set")),
        (
            {"LUCID_ENV": "production", "NATS_URL": "nats://a:1,nats://localhost:1"},
            "config.nats_url",
            ("on this machine",),
        ),
        (
            {"CHUNK_SIZE_MB": "8", "LUCID_CHUNK_SIZE_MB": "9"},
            "config.chunk_bytes",
            ("CHUNK_SIZE_MB and LUCID_CHUNK_SIZE_MB", "differ"),
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(
    environ: dict[str, str], code: str, words: tuple[str, ...]
) -> None:
    """Breaks: a mistyped setting is found out hours later, or by reading the source."""
    with pytest.raises(Misuse) as error:
        load_settings(environ)
    assert error.value.code == code
    assert all(word in error.value.message for word in words), error.value.message


def test_the_environment_is_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    """Breaks: an operator's override on one machine has no effect."""
    path = tmp_path / "lucid.json"
    path.write_text(json.dumps({"CHUNK_SIZE_MB": 4, "LUCID_COMPRESSION_LEVEL": 9, "DEBUG": True}))
    settings = load_settings({"LUCID_CONFIG": str(path), "LUCID_CHUNK_SIZE_MB": "2"})
    assert (settings.chunk_bytes, settings.level, settings.log_level) == (2 << 20, 9, "DEBUG")
    assert settings.origins["chunk_bytes"] == "LUCID_CHUNK_SIZE_MB in the environment"
    assert settings.origins["level"] == f"LUCID_COMPRESSION_LEVEL in {path}"


def test_a_file_may_be_yaml_and_its_values_stay_the_text_that_was_written(tmp_path: Path) -> None:
    """Breaks: a file as people write it is refused, or YAML makes another value of 010, 5m and no."""
    path = tmp_path / "lucid.conf"
    path.write_text(
        "# ours\nCHUNK_SIZE_MB: 0.5\nCHUNK_MAX_SECONDS: 5m\nMERKLE_WORKERS: 010\n"
        'DEBUG: no\nNATS_URL:\nENCRYPTION_KEY: "correct horse # battery"\n'
    )
    settings = load_settings({"LUCID_CONFIG": str(path)})
    assert (settings.chunk_bytes, settings.chunk_max_seconds, settings.debug) == (1 << 19, 300, False)
    assert settings.stages["MERKLE"].workers == 10
    assert settings.encryption_key == "correct horse # battery"
    assert "nats_url" not in settings.origins


@pytest.mark.parametrize("text", ["CHUNK_SIZE_MB: 17", '{"CHUNK_SIZE_MB": 17}'])
def test_a_wrong_value_in_the_file_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    """Breaks: of three files on the machine nobody knows which one is wrong."""
    path = tmp_path / "lucid.yaml"
    path.write_text(text)
    with pytest.raises(Misuse) as error:
        load_settings({"LUCID_CONFIG": str(path)})
    assert error.value.message == f"CHUNK_SIZE_MB in {path} is '17'; allowed: 0.25 to 16 MiB"


@pytest.mark.parametrize("yaml", [True, False])
def test_a_template_lists_every_variable_and_its_lines_say_the_defaults(tmp_path: Path, yaml: bool) -> None:
    """Breaks: who takes the comment sign off a line changes a setting, or starts nothing at all."""
    text = template(yaml)
    lines = [line[1:] for line in text.splitlines() if line.startswith("#") and line[1:2].isupper()]
    files = [] if yaml else [*FILES]
    assert [re.split(r"[:=]", line)[0] for line in lines] == files + [one.name for one in VARIABLES]
    path = tmp_path / "lucid.yaml"
    for content in (text, "\n".join(lines)):
        path.write_text(content)
        environ = {"LUCID_CONFIG": str(path)} if yaml else dict(line.split("=", 1) for line in lines)
        assert dataclasses.replace(load_settings(environ), origins={}) == load_settings({})
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(("name", "text"), [("settings.md", page()), ("lucid.env.example", template(False))])
def test_the_pages_of_settings_are_up_to_date(name: str, text: str) -> None:
    """Breaks: people set what no longer is, or what is allowed no longer. Cure: just docs."""
    assert (Path(__file__).parents[2] / "docs" / name).read_text() == text, "write it anew: just docs"


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{", '{"CHUNK_SIZ_MB": 4}', '{"NATS_URL": {}}', '{"NATS_URL": null}', '{"DEBUG": [1]}'),
        *("- CHUNK_SIZE_MB", "CHUNK_SIZE_MB", "CHUNK_SIZ_MB: 4", "NATS_URL: {a: b}", "NATS_URL: [a]"),
        *(
            "CHUNK_SIZE_MB: 4\nCHUNK_SIZE_MB: 4",
            '{"DEBUG": true, "DEBUG": true}',
            "DEBUG: yes\n---\nDEBUG: no",
        ),
        *("CHUNK_SIZE_MB: 4\n  DEBUG: yes", "DEBUG: *yes", "[" * 100_000, "{" * 100_000, "DEBUG: \x01"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    """Breaks: a typing error in the file silently gives the default."""
    path = tmp_path / "lucid.json"
    path.write_text(text)
    with pytest.raises(Misuse) as error:
        load_settings({"LUCID_CONFIG": str(path)})
    assert error.value.code == "config.file"


@pytest.mark.parametrize("text", ["ENCRYPTION_KEY: *hunter2hunter2", '{"ENCRYPTION_KEY": hunter2hunter2}'])
def test_a_file_that_is_not_understood_is_not_repeated(tmp_path: Path, text: str) -> None:
    """Breaks: a master key that was not quoted stands in the log of the service."""
    path = tmp_path / "lucid.yaml"
    path.write_text(f"\n{text}\n")
    with pytest.raises(Misuse) as error:
        load_settings({"LUCID_CONFIG": str(path)})
    assert "hunter" not in str(error.value)
    assert "line 2" in error.value.message


def test_a_missing_file_is_refused() -> None:
    """Breaks: a wrong path to the configuration runs with defaults."""
    with pytest.raises(Misuse) as error:
        load_settings({"LUCID_CONFIG": "/nowhere/lucid.json"})
    assert error.value.code == "config.file"


def test_a_secret_is_never_shown() -> None:
    """Breaks: the master key stands in a log or a traceback."""
    settings = load_settings({"ENCRYPTION_KEY": "correct horse battery"})
    assert settings.encryption_key == "correct horse battery"
    assert "horse" not in repr(settings)


def test_paths_put_children_elsewhere(tmp_path: Path) -> None:
    """Breaks: chunks fill the wrong disk."""
    environ = {"LUCID_DATA": str(tmp_path / "data"), "CHUNK_STORAGE_PATH": str(tmp_path / "big")}
    data = data_dir(load_settings(environ))
    assert not (tmp_path / "data").exists()
    assert data.chunks == tmp_path / "big"
    assert data.keys == tmp_path / "data" / "keys"
