"""Texts that each variable refuses: the settings alone refuse some, what lies at a path others."""

from pathlib import Path

from schemas.config.values import FILE, FOLDER
from schemas.config.variable import Variable

WRONG = {
    "SHARDS": ("3", "two"),
    "NATS_URL": ("http://nats", "nats://u:p@", "localhost:4222", "nats://a,,nats://b"),
    "MONGODB_URL": ("localhost", "postgres://db", "mongodb://u:p/q@db", "mongodb+srv://a,b", "mongodb://db:0"),
    "REDIS_URL": ("cache:6379", "http://cache", "redis://"),
    "ELASTICSEARCH_URL": ("search:9200", "https://"),
    "ENCRYPTION_KEY": ("short",),
    "SECRET_KEY": ("0123456789abcdef0123456789abcde",),
    "JWT_SECRET_KEY": ("0123456789abcdef0123456789abcde",),
    "JWT_JWKS_URL": ("ftp://auth", "https://u:p@auth/keys", "keys.json"),
    "CORS_ORIGINS": ("*", "lucid.example", "https://a.example/path"),
    "SESSION_API_PORT": ("65536", "-1", "http", "80.5"),
    "SESSION_API_HOST": ("http://api", "api:8113", "a b", "-api"),
    "SESSION_API_URL": ("api:8113", "ftp://api", "http://", "http://u:p@api", "http://api/?q", "http://api:x"),
    "BIND_ADDRESS": ("localhost", "127.0.0.256", "eth0"),
    "LUCID_MANIFEST_SIGNATURE_ALGORITHM": ("rsa",),
    "LUCID_MANIFEST_HASH_ALGORITHM": ("sha256",),
    "HEALTH_CHECK_INTERVAL": ("0", "2h", "soon", "1e3", "nan"),
    "METRICS_ENABLED": ("maybe", "2"),
    "PORT": ("70000", "eighty"),
}  # fmt: skip
"""Texts that are refused, where more than the usual one is worth a look."""
USUALLY_WRONG = "\x01 no value of anything"
FOLDER_WORDS, FILE_WORDS = FOLDER.allowed, FILE.allowed


def is_place(variable: Variable) -> bool:
    """Whether every text is right, as a path: the start looks at what lies there."""
    return variable.kind.allowed in (FOLDER_WORDS, FILE_WORDS)


def wrong_texts(variable: Variable) -> tuple[str, ...]:
    """Texts that are refused before anything is looked at."""
    return () if is_place(variable) else WRONG.get(variable.name, (USUALLY_WRONG,))


def wrong_place(variable: Variable, folder: Path) -> Path:
    """A path that a start refuses for this variable: a file where a folder is wanted, nothing for a file."""
    path = folder / "file" if variable.kind.allowed == FOLDER_WORDS else folder / "absent"
    if variable.kind.allowed == FOLDER_WORDS:
        path.touch()
    return path
