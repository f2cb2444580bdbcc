"""What brings about each exit status in docs/verify.md: command lines over the shelf of test_exit_status.py.

The keys are verb and last column of the tables' rows. `{new}` stands for a name that nothing has yet.
"""

from dataclasses import dataclass, field


@dataclass
class Call:
    """One command line, and what is special about the process that runs it."""

    arguments: tuple[str, ...]
    unprivileged: bool = False
    file_bytes: int = 0
    """Longest file that it may write; 0: any."""
    interrupted_at: str = ""
    """A signal comes when a file of this name is opened."""
    signal: str = "SIGINT"
    environment: dict[str, str] = field(default_factory=dict)


def verify(target: str, *more: str, trust: str = "trust.json", **how: object) -> Call:
    return Call(("verify", target, "--trust", trust, *more), **how)  # type: ignore[arg-type]


def export(target: str, *more: str, **how: object) -> Call:
    return Call(("export", target, *more), **how)  # type: ignore[arg-type]


def made(target: str, *more: str, **how: object) -> Call:
    """An export of the original bytes into a new file."""
    return export(target, "--out", "{new}", "--keys", "keys.json", *more, **how)


SITUATIONS: dict[tuple[str, str], list[Call]] = {
    ("verify", "nothing changed since it was sealed, and who signed it is listed"): [
        verify("copy"),
        verify("copy", "--keys", "keys.json"),
    ],
    ("verify", "the same, with NOTE lines: declared losses, files that nobody sealed"): [
        verify("lossy"),
        verify("strays"),
    ],
    ("verify", "a tombstone that a listed signer signed"): [verify("./tombstone.json")],
    ("verify", "the command line is wrong"): [
        verify("copy", "--nope"),
        verify("copy", "--open"),
        Call(("verify",)),
        Call(("verify", "copy", "--root", "00" * 32)),
    ],
    ("verify", "what is named is no evidence: a folder without a manifest, a file of another kind"): [
        *(verify(f"./{name}") for name in ("empty", "no-manifest", "film.mp4", "keys.json", "trust.json")),
    ],
    ("verify", "no trust file is named, or it is not there, or cannot be read"): [
        Call(("verify", "./copy")),
        verify("copy", trust="nowhere"),
        verify("copy", trust="empty"),
        verify("copy", trust="secret.json", unprivileged=True),
    ],
    ("verify", "the trust file is none"): [verify("copy", trust="keys.json")],
    ("verify", "the trust file is not of the root that is named, or that is no fingerprint"): [
        verify("copy", "--root", "00" * 32),
        verify("copy", "--root", "zz"),
    ],
    ("verify", "its root did not sign the trust file"): [verify("copy", trust="forged.json")],
    ("verify", "the trust file has expired"): [verify("copy", trust="expired.json")],
    ("verify", "a finding: something is not what was sealed, or not there"): [
        verify("false"),
        verify("incomplete"),
        verify("no-history"),
    ],
    ("verify", "a NOTE line, with `--strict`"): [verify("lossy", "--strict"), verify("strays", "--strict")],
    ("verify", "a tombstone that was changed"): [verify("./false-tombstone.json")],
    ("verify", "there is nothing of that name"): [verify("./nowhere")],
    ("verify", "a file or folder of the copy cannot be read: no permission, a link, no plain file"): [
        verify("secret", unprivileged=True),
        verify("secret-chunk", unprivileged=True),
        verify("linked"),
        verify("linked-chunks"),
        verify("folder-for-chunk"),
    ],
    ("verify", "the keys file that is named is not there"): [verify("copy", "--keys", "nowhere")],
    ("verify", "the keys file cannot be read"): [
        verify("copy", "--keys", "empty"),
        verify("copy", "--keys", "secret.json", unprivileged=True),
    ],
    ("verify", "the installation has no session of that name"): [Call(("verify", "nothing-01"))],
    ("verify", "the session is not sealed yet"): [Call(("verify", "open-01"))],
    ("verify", "the session was destroyed"): [Call(("verify", "gone-01"))],
    ("verify", "the keys file is malformed"): [
        verify("copy", "--keys", "trust.json"),
        verify("copy", "--keys", "line-end.json"),
    ],
    ("verify", "the keys file is of another session"): [verify("copy", "--keys", "other-keys.json")],
    ("verify", "a session is named, and nothing runs here"): [Call(("verify", "demo-01"))],
    ("verify", "the trust file does not list who signed, for that time, or revokes the key"): [
        verify("copy", trust="unlisted.json"),
        verify("copy", trust="revoked.json"),
        verify("./tombstone.json", trust="unlisted.json"),
    ],
    ("verify", "the trust file does not list the host under its name, for that time, or revokes the key"): [
        verify("copy", trust="no-host.json"),
        verify("copy", trust="renamed-host.json"),
    ],
    ("verify", "Ctrl-C, or the process is to end (SIGTERM, SIGHUP)"): [
        verify("copy", interrupted_at="0000000001", signal=name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
    ],
    ("export", "`--out FILE` or `--evidence DIR`: it is there, whole"): [
        made("copy"),
        export("copy", "--evidence", "{new}"),
    ],
    ("export", "`--out -`: stdout has taken every byte"): [
        export("copy", "--out", "-", "--keys", "keys.json")
    ],
    ("export", "the command line is wrong"): [
        Call(("export",)),
        Call(("export", "copy")),
        made("copy", "--track", "9"),
    ],
    ("export", "the target is there already"): [
        export("copy", "--out", "taken", "--keys", "keys.json"),
        export("copy", "--evidence", "copy"),
    ],
    ("export", "`--trust-file` names what is no older trust file of this installation"): [
        Call(("export", "--trust-file", "empty")),
    ],
    ("export", "what is named is no evidence: a folder without a manifest, a file of another kind"): [
        *(made(f"./{name}") for name in ("empty", "no-manifest", "film.mp4")),
    ],
    ("export", "the copy carries no key, and none is named"): [export("./copy", "--out", "{new}")],
    ("export", "the manifest is not what was signed"): [made("false-manifest")],
    ("export", "a chunk is not what was sealed"): [made("false")],
    ("export", "a chunk is not there"): [made("incomplete")],
    ("export", "there is nothing of that name"): [made("./nowhere")],
    ("export", "the recording has no such part"): [made("copy", "--part", "9")],
    ("export", "a file or folder of the copy cannot be read: no permission, a link, no plain file"): [
        made("linked"),
        made("folder-for-chunk"),
        export("secret", "--out", "{new}", unprivileged=True),
    ],
    ("export", "the keys file that is named is not there"): [
        export("copy", "--out", "{new}", "--keys", "nowhere")
    ],
    ("export", "the keys file cannot be read"): [export("copy", "--out", "{new}", "--keys", "empty")],
    ("export", "the installation has no session of that name"): [export("nothing-01", "--out", "{new}")],
    ("export", "the session is not sealed yet"): [export("open-01", "--out", "{new}")],
    ("export", "the session was destroyed"): [export("gone-01", "--evidence", "{new}")],
    ("export", "the keys file is malformed"): [
        export("copy", "--out", "{new}", "--keys", "line-end.json"),
    ],
    ("export", "the keys file is of another session"): [
        export("copy", "--out", "{new}", "--keys", "other-keys.json")
    ],
    ("export", "a session is named, and nothing runs here"): [
        export("demo-01", "--out", "{new}"),
        Call(("export", "--trust-file", "{new}")),
    ],
    ("export", "the target cannot be written"): [
        export("copy", "--out", "taken/below", "--keys", "keys.json"),
        export("copy", "--evidence", "locked/copy", unprivileged=True),
    ],
    ("export", "the target does not fit on its disk"): [
        made("copy", file_bytes=5000),
        export("copy", "--evidence", "{new}", file_bytes=5000),
    ],
    ("export", "Ctrl-C, or the process is to end (SIGTERM, SIGHUP): nothing is left behind"): [
        made("copy", interrupted_at="0000000001", signal=name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
    ],
}
