"""Every variable of the configuration, one by one: it is there, it is checked, and it sets its field."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load_settings, near_misses
from schemas.config.reference import FILES
from schemas.config.settings import VARIABLES, Settings
from schemas.config.variable import MASK, Variable
from schemas.errors import Misuse, Misuses
from tests.support.program.wrong_values import is_place, wrong_texts

ROLES = ("RECORDER", "PIPELINE", "PROCESSOR", "STORAGE", "API")
STAGES = ("RECORDER", "CHUNK", "COMPRESSOR", "ENCRYPTOR", "MERKLE", "STORAGE")
BY_NAME = {name: variable for variable in VARIABLES for name in variable.names}

ASKED_FOR = f"""
    LUCID_ENV LOG_LEVEL DEBUG SERVICE_NAME PORT LUCID_CONFIG NATS_URL MONGODB_URL REDIS_URL ELASTICSEARCH_URL
    {" ".join(f"SESSION_{role}_{what}" for role in ROLES for what in ("PORT", "HOST", "URL"))}
    {" ".join(f"{role}_CONFIG_PATH" for role in ROLES)}
    {
    " ".join(
        f"{stage}_{limit}"
        for stage in STAGES
        for limit in ("WORKERS", "BUFFER_SIZE", "TIMEOUT", "RETRY_COUNT", "MAX_MEMORY_MB")
    )
}
    CHUNK_SIZE_MB LUCID_CHUNK_SIZE_MB CHUNK_MAX_SECONDS LUCID_COMPRESSION_THRESHOLD
    COMPRESSION_LEVEL LUCID_COMPRESSION_LEVEL LUCID_DEFAULT_COMPRESSION_LEVEL
    CHUNK_STORAGE_PATH LUCID_CHUNK_STORE_PATH LUCID_CHUNK_OUTPUT_PATH LUCID_MANIFEST_PATH
    SESSION_STORAGE_PATH LUCID_STORAGE_PATH LUCID_RECORDING_PATH TEMP_STORAGE_PATH LUCID_COMPRESSION_PATH
    LUCID_MANIFEST_SIGNATURE_ALGORITHM LUCID_MANIFEST_HASH_ALGORITHM MAX_CONCURRENT_SESSIONS
    ENCRYPTION_KEY ENCRYPTION_KDF SECRET_KEY METRICS_ENABLED METRICS_PORT HEALTH_CHECK_INTERVAL
    BLOCKCHAIN_ENGINE_URL NODE_MANAGEMENT_URL API_GATEWAY_URL AUTH_SERVICE_URL
    BLOCKCHAIN_ENGINE_API_KEY NODE_MANAGEMENT_API_KEY API_GATEWAY_API_KEY AUTH_SERVICE_API_KEY
    SERVICE_TIMEOUT_SECONDS SERVICE_RETRY_COUNT SERVICE_RETRY_DELAY_SECONDS
    TLS_CERT_FILE TLS_KEY_FILE BIND_ADDRESS JWT_SECRET_KEY CORS_ORIGINS LUCID_MAX_CHUNK_SIZE
""".split()
"""Every name that the requirements have, and those of certificates and of the address to listen on."""

DEFAULTS = {
    "SESSION_RECORDER_PORT": "8090",
    "SESSION_PIPELINE_PORT": "8083",
    "SESSION_PROCESSOR_PORT": "8091",
    "SESSION_STORAGE_PORT": "8092",
    "SESSION_API_PORT": "8113",
    "METRICS_PORT": "9093",
    "METRICS_ENABLED": "true",
    "HEALTH_CHECK_INTERVAL": "30s",
    "SERVICE_TIMEOUT_SECONDS": "30s",
    "SERVICE_RETRY_COUNT": "3",
    "SERVICE_RETRY_DELAY_SECONDS": "1s",
    "CHUNK_SIZE_MB": "10",
    "LUCID_COMPRESSION_THRESHOLD": "1024",
    "LUCID_MANIFEST_SIGNATURE_ALGORITHM": "ed25519",
    "LUCID_MANIFEST_HASH_ALGORITHM": "blake3",
    "RECORDER_WORKERS": "2",
    "ENCRYPTOR_WORKERS": "4",
    "LUCID_ENV": "development",
    "MAX_CONCURRENT_SESSIONS": "1000",
}

RIGHT: dict[str, tuple[str, Any]] = {
    "LUCID_ENV": ("Development", "development"),
    "LOG_LEVEL": ("warning", "WARNING"),
    "DEBUG": ("on", True),
    "SERVICE_NAME": ("lucid-eu-1", "lucid-eu-1"),
    "PORT": ("8080", 8080),
    "BIND_ADDRESS": ("::", "::"),
    "TLS_CERT_FILE": ("/etc/lucid/tls.crt", Path("/etc/lucid/tls.crt")),
    "TLS_KEY_FILE": ("/etc/lucid/tls.key", Path("/etc/lucid/tls.key")),
    "MONGODB_URL": ("mongodb://u:p%40q@db-1:27017,db-2/lucid?replicaSet=r", None),
    "NATS_URL": ("tls://token@nats-1,nats://nats-2:4223", None),
    "REDIS_URL": ("redis://:secret@cache:6379/0", None),
    "ELASTICSEARCH_URL": ("https://search:9200", None),
    "SECRET_KEY": ("0123456789abcdef0123456789abcdef", None),
    "ENCRYPTION_KEY": ("correct horse battery", None),
    "ENCRYPTION_KDF": ("PBKDF2", "pbkdf2"),
    "JWT_SECRET_KEY": ("Zt4-mV9pQx2_Lr7kWc1sBn8yHd5jUe3aGf6o", None),
    "CORS_ORIGINS": ("https://a.example, http://b:8080", ("https://a.example", "http://b:8080")),
    "METRICS_ENABLED": ("no", False),
    "METRICS_PORT": ("0", 0),
    "HEALTH_CHECK_INTERVAL": ("5m", 300),
    "SESSION_API_PORT": ("0", 0),
    "SESSION_API_HOST": ("api.lucid.example", "api.lucid.example"),
    "SESSION_API_URL": ("https://lucid.example/sessions/", "https://lucid.example/sessions"),
    "SESSION_STORAGE_HOST": ("fd00::8", "fd00::8"),
    "BLOCKCHAIN_ENGINE_URL": ("http://engine:8000", "http://engine:8000"),
    "BLOCKCHAIN_ENGINE_API_KEY": ("k-123", "k-123"),
    "SERVICE_TIMEOUT_SECONDS": ("0.5", 0.5),
    "SERVICE_RETRY_COUNT": ("0", 0),
    "SERVICE_RETRY_DELAY_SECONDS": ("250", 250),
    "LUCID_MANIFEST_SIGNATURE_ALGORITHM": ("Ed25519", "ed25519"),
    "LUCID_MANIFEST_HASH_ALGORITHM": ("BLAKE3", "blake3"),
    "LUCID_ENCRYPTION_SUITE": ("aes-256-gcm", "aes-256-gcm"),
    "COMPRESSION_ALGORITHM": ("lz4", "lz4"),
    "COMPRESSION_LEVEL": ("9", 9),
    "CHUNK_SIZE_MB": ("0.25", 1 << 18),
    "CHUNK_MAX_SECONDS": ("5m", 300),
    "MAX_CONCURRENT_SESSIONS": ("7", 7),
    "SHARDS": ("16", 16),
    "NATS_MAX_STORAGE_MB": ("64", 64 << 20),
    "WAIT_START": ("5s", 5),
    "MERKLE_TIMEOUT": ("90s", 90),
    "MERKLE_MAX_MEMORY_MB": ("16", 16 << 20),
}
"""By name: a text that is right, and the value that it gives; None: as its kind parses it."""
USUALLY_RIGHT = ("4", "/somewhere", "https://lucid.example", "db.lucid.example", "127.0.0.1", "k" * 64)
"""Of these each other variable without a default takes one."""


def row(variable: Variable) -> str:
    return variable.name


def right(variable: Variable) -> tuple[str, Any]:
    """A text that is right, and its value; None: as the kind of the variable parses it."""
    if variable.name in RIGHT:
        return RIGHT[variable.name]
    default = variable.shown(Settings().value(variable))
    candidates = (default, *USUALLY_RIGHT) if default != "0" else USUALLY_RIGHT
    return next(text for text in candidates if text and takes(variable, text)), None


def takes(variable: Variable, text: str) -> bool:
    try:
        variable.kind.parse(text)
    except ValueError:
        return False
    return True


def test_no_name_of_the_requirements_is_missing() -> None:
    """Breaks: an operator sets a documented variable, and it does nothing."""
    assert [name for name in ASKED_FOR if name not in BY_NAME and name not in FILES] == []


@pytest.mark.parametrize(("name", "text"), DEFAULTS.items())
def test_a_variable_has_its_documented_default(name: str, text: str) -> None:
    """Breaks: a service listens on another port than the one that others were told."""
    variable = BY_NAME[name]
    assert variable.shown(Settings().value(variable)) == text


@pytest.mark.parametrize("variable", VARIABLES, ids=row)
def test_a_wrong_value_of_any_variable_is_refused_with_all_that_one_needs_to_know(variable: Variable) -> None:
    """Breaks: a mistyped setting is found out hours later; or its secret stands in the log of the service."""
    for name in variable.names:
        for given in wrong_texts(variable):
            with pytest.raises(Misuse) as error:
                load_settings({name: given})
            message = error.value.message
            assert (error.value.code, isinstance(error.value, Misuses)) == (f"config.{variable.field}", False)
            assert message.startswith(f"{name} in the environment is "), message
            assert message.endswith(f"allowed: {variable.kind.allowed}"), message
            shown = repr(given) in message
            assert shown or (f" is {MASK}" in message and given not in message), message
            assert not (shown and variable.secret)
            assert shown or variable.secret or variable.name.endswith("_URL"), message


@pytest.mark.parametrize("variable", VARIABLES, ids=row)
def test_each_name_of_a_variable_sets_it_from_each_place(variable: Variable, tmp_path: Path) -> None:
    """Breaks: a synonym, or the settings file, is ignored."""
    given, value = right(variable)
    pair = {"TLS_CERT_FILE": {"TLS_KEY_FILE": "/k"}, "TLS_KEY_FILE": {"TLS_CERT_FILE": "/c"}}
    others = pair.get(variable.name, {})
    for name in variable.names:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({name: given}))
        for environ in ({name: given, **others}, {"LUCID_CONFIG": str(path), **others}):
            settings = load_settings(environ)
            found = settings.value(variable)
            assert found == (variable.kind.parse(given) if value is None else value)
            assert settings.origins[variable.field].startswith(f"{name} in ")


@pytest.mark.parametrize("variable", [one for one in VARIABLES if one.synonyms], ids=row)
def test_two_names_with_two_values_are_refused_and_with_one_value_are_not(variable: Variable) -> None:
    """Breaks: of two spellings in one file, nobody knows which one counts."""
    low, high = right(variable)[0], "/other" if is_place(variable) else "1"
    for name in variable.synonyms:
        load_settings({variable.name: low, name: low})
        with pytest.raises(Misuse) as error:
            load_settings({variable.name: low, name: high})
        assert error.value.code == f"config.{variable.field}"
        assert f"{variable.name} and {name} mean the same and differ" in error.value.message


def test_every_wrong_setting_is_told_at_once() -> None:
    """Breaks: an operator restarts the service ten times to find ten typing errors."""
    with pytest.raises(Misuses) as error:
        load_settings({"SHARDS": "3", "SESSION_API_PORT": "x", "SECRET_KEY": "short"})
    assert {one.code for one in error.value.each} == {
        *("config.shards", "config.services.API.port", "config.secret_key")
    }
    assert "short" not in error.value.message


def test_port_is_that_of_the_one_role_that_runs_alone() -> None:
    """Breaks: a platform that gives each container its PORT cannot run a role."""
    settings = load_settings({"PORT": "8080"}, "storage")
    assert (settings.services["STORAGE"].port, settings.services["API"].port) == (8080, 8113)
    assert settings.origins["services.STORAGE.port"] == "PORT in the environment"
    assert load_settings({"PORT": "8080"}).services["STORAGE"].port == 8092
    assert load_settings({"PORT": "81", "SESSION_API_PORT": "82"}, "storage").services["API"].port == 82
    with pytest.raises(Misuse) as error:
        load_settings({"PORT": "81", "SESSION_STORAGE_PORT": "82"}, "storage")
    assert error.value.code == "config.port"
    assert "PORT in the environment is 81 and SESSION_STORAGE_PORT in the environment is 82" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8092"),
        ({"SESSION_STORAGE_HOST": "store", "SESSION_STORAGE_PORT": "80"}, "http://store:80"),
        ({"SESSION_STORAGE_HOST": "fd00::8"}, "http://[fd00::8]:8092"),
        ({"SESSION_STORAGE_URL": "https://store.example/x/"}, "https://store.example/x"),
        ({"TLS_CERT_FILE": "/c", "TLS_KEY_FILE": "/k"}, "https://127.0.0.1:8092"),
    ],
)
def test_others_reach_a_role_where_its_variables_say(environ: dict[str, str], url: str) -> None:
    """Breaks: one role sends its requests to the bind address of another one's container."""
    assert load_settings(environ).url_of("STORAGE") == url


@pytest.mark.parametrize("name", ["TLS_CERT_FILE", "TLS_KEY_FILE"])
def test_a_certificate_without_its_key_is_refused(name: str) -> None:
    """Breaks: a service that was given half of what TLS needs speaks plain HTTP."""
    with pytest.raises(Misuse) as error:
        load_settings({name: "/file"})
    assert f"{name} is set and TLS_" in error.value.message


def test_the_file_of_a_role_is_over_the_file_of_all_and_for_that_role_alone(tmp_path: Path) -> None:
    """Breaks: one file for all roles cannot be shared, or one role's file changes another role."""
    for name, text in (
        ("all", "SHARDS: 2\nDEBUG: yes\nCHUNK_SIZE_MB: 1"),
        ("api", "SHARDS: 4\nCHUNK_SIZE_MB: 2"),
    ):
        (tmp_path / name).write_text(text)
    environ = {
        "LUCID_CONFIG": str(tmp_path / "all"),
        "API_CONFIG_PATH": str(tmp_path / "api"),
        "CHUNK_SIZE_MB": "3",
    }
    api, storage = load_settings(environ, "api"), load_settings(environ, "storage")
    assert (api.shards, api.debug, api.chunk_bytes) == (4, True, 3 << 20)
    assert (storage.shards, storage.debug, storage.chunk_bytes) == (2, True, 3 << 20)
    assert api.origins["shards"] == f"SHARDS in {tmp_path / 'api'}"
    (tmp_path / "api").write_text("SHARDS: 3")
    with pytest.raises(Misuse, match=f"SHARDS in {tmp_path / 'api'} is '3'"):
        load_settings(environ, "api")
    (tmp_path / "api").unlink()
    with pytest.raises(Misuse, match=r"API_CONFIG_PATH: .* cannot be read"):
        load_settings(environ, "api")
    load_settings(environ, "storage")


def test_a_name_in_a_file_that_is_nearly_right_is_refused_with_the_right_one(tmp_path: Path) -> None:
    """Breaks: who mistypes a name reads the list of all variables."""
    path = tmp_path / "lucid.yaml"
    path.write_text("CHUNK_SIZ_MB: 4")
    with pytest.raises(Misuse) as error:
        load_settings({"LUCID_CONFIG": str(path)})
    assert (error.value.code, error.value.hint) == ("config.file", "did you mean CHUNK_SIZE_MB?")


def test_a_name_in_the_environment_that_is_nearly_right_is_found_and_others_names_are_not() -> None:
    """Breaks: a mistyped variable silently has no effect; or every variable of others is doubted."""
    others = (
        "PATH",
        "HOME",
        "SESSION_MANAGER",
        "HOSTNAME",
        "PORTS",
        "DEBUGINFOD_URLS",
        "NATS_HOME",
    )
    ours = ("NATS_URL", "LUCID_CONFIG", "API_CONFIG_PATH")
    assert near_misses(dict.fromkeys((*others, *ours), "x")) == []
    wrong = {
        "CHUNK_SIZ_MB": "4",
        "LUCID_DATAA": "/x",
        "LUCID_XYZZYPLUGH": "",
        "ENCRYPTION_KEYS": "",
        "MONGODB_URI": "x",
    }
    assert near_misses(wrong) == [
        ("CHUNK_SIZ_MB", "CHUNK_SIZE_MB"),
        ("ENCRYPTION_KEYS", "ENCRYPTION_KEY"),
        ("LUCID_DATAA", "LUCID_DATA"),
        ("LUCID_XYZZYPLUGH", ""),
        ("MONGODB_URI", "MONGODB_URL"),
    ]


def test_a_variable_that_does_nothing_says_so() -> None:
    """Breaks: an operator believes that roots are anchored because BLOCKCHAIN_ENGINE_URL is set."""
    silent = {variable.name for variable in VARIABLES if variable.without_effect}
    assert {"REDIS_URL", "ELASTICSEARCH_URL", "BLOCKCHAIN_ENGINE_URL", "SERVICE_RETRY_COUNT"} <= silent
    assert all(variable.effect.count(":") for variable in VARIABLES if variable.without_effect)
