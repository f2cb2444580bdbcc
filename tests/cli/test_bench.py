"""`lucid bench` as people run it, at sizes that say nothing about speed."""

import asyncio
import json
import os
import shlex
from pathlib import Path
from typing import Any

import psutil
import pytest
from blake3 import blake3

from infra.blobs.disk import DiskBlobs
from schemas.config.settings import Settings
from schemas.errors import EvidenceFalse, LucidError, Misuse
from schemas.events.session import SessionSettings
from streams.bench import (
    api,
    api_report,
    api_requests,
    contender,
    data,
    growth,
    max_sessions,
    peers,
    report,
    rounds,
    sessions,
)
from streams.bench.case import Case
from streams.bench.chunk_waits import STEPS, Times, quantile
from streams.bench.contender import Measure, Task
from streams.bench.data import Source, make_source, parse_rate, parse_size
from streams.bench.line import Line, pools
from streams.bench.load import Load
from streams.bench.meter import Used
from streams.cli.verbs import bench
from tests.support.machine.waiting import until

Lucid = Any
"""The `Program` of conftest.py."""

OURS = ("disk", "floor", "bare", "pipeline")
FIGURES = {
    *(
        "seconds",
        "mb_per_s",
        "cpu_s_per_gb",
        "peak_bytes",
        "chunks",
        "stored_bytes",
        "checked",
        "more",
        "others_share",
    ),
    *("processes", "ratio_to_bare", "pipeline_ratio"),
}
PROCESSES = {
    "disk": {"disk"},
    "floor": {"floor"},
    "bare": {"server", "reader", "publisher"},
    "pipeline": {"server", "worker", "conductor", "supervisor", "publisher"},
}


SCREEN_BYTES = 2_000_000


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A screen recording that is repeated once."""
    return make_source("screen", SCREEN_BYTES, tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def compared(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One comparison of 8 MB in chunks of 1 MiB, all contenders that are here."""
    folder = tmp_path_factory.mktemp("bench")
    said = lucid("bench", "--size", "8MB", "--json", data=folder / "its data", CHUNK_SIZE_MB="1")
    assert said.returncode == 0, said.stderr
    assert list((folder / "its data" / "temp").iterdir()) == []
    result: dict[str, Any] = json.loads(said.stdout)
    return result


def test_json_holds_machine_versions_data_and_every_figure(compared: dict[str, Any]) -> None:
    """Breaks: a figure is quoted, and nobody can tell of which machine, data or version."""
    assert compared["bench"] == "comparison"
    assert compared["machine"]["cores"] >= 1
    assert {"python", "nats-server", "nats-py", "cryptography", "blake3"} <= compared["versions"].keys()
    assert compared["data"]["kind"] == "incompressible"
    assert compared["data"]["bytes"] == 8_000_000
    assert compared["settings"]["chunk_bytes"] == 1 << 20
    assert set(compared["results"]) == {*OURS, *peers.installed(), "faststream"}
    for name in OURS:
        said = compared["results"][name]
        assert said.keys() == FIGURES
        assert said["processes"].keys() == PROCESSES[name]
        assert said["chunks"] == (0 if name == "disk" else 8)
        assert said["mb_per_s"] > 0
        assert all(used["peak_bytes"] > 10_000_000 for used in said["processes"].values())
        assert said["cpu_s_per_gb"] > 0 or name == "disk"
    assert compared["results"]["bare"]["ratio_to_bare"] == 1
    assert compared["runs"][0].keys() == compared["results"].keys()


def test_what_every_contender_stored_was_opened_and_compared(compared: dict[str, Any]) -> None:
    """Breaks: the fastest contender is the one that loses bytes."""
    for said in compared["results"].values():
        assert said["checked"] is True
        assert said["stored_bytes"] >= 8_000_000  # random bytes do not shrink
    pipeline = compared["results"]["pipeline"]["more"]
    assert pipeline["dead"] == 0
    assert pipeline["sealed"] >= compared["results"]["pipeline"]["seconds"] >= 0


def test_the_table_fits_a_terminal_and_names_every_contender(compared: dict[str, Any]) -> None:
    """Breaks: what people paste into an issue is unreadable."""
    lines = report.comparison(compared)
    assert all(len(line) <= 80 for line in lines), lines
    for name in ("disk", "floor", "faststream", "bare loop", "pipeline", "until sealed", "worker", "server"):
        assert any(line.strip().startswith(name) for line in lines)


async def _stored(tmp_path: Path, source: Source) -> tuple[Case, int]:
    """A source that was stored by the bare functions, in chunks of 256 KiB below tmp_path/chunks."""
    case = Case.new("case", SessionSettings(chunk_bytes=1 << 18))
    threads, disk = pools()
    async with Line(case, DiskBlobs(tmp_path / "chunks"), threads, disk) as line:
        await line.take(list(enumerate(case.fragments(source.path), 1)))
        ended = await line.finish()
    return case, ended.chunks


@pytest.mark.parametrize("kind", ["incompressible", "screen"])
async def test_chunks_that_are_the_source_pass_the_check(tmp_path: Path, screen: Source, kind: str) -> None:
    """Breaks: no measurement ever ends well."""
    source = screen if kind == "screen" else make_source(kind, 2_000_000, tmp_path)
    case, chunks = await _stored(tmp_path, source)
    on_disk = contender.check_chunks(tmp_path / "chunks" / case.uid.hex(), case.dek, chunks, source, "it")
    assert on_disk == sum(path.stat().st_size for path in (tmp_path / "chunks").rglob("*") if path.is_file())


@pytest.mark.parametrize("harm", ["one bit", "one chunk less", "another order"])
async def test_a_contender_that_stored_something_else_is_refused(tmp_path: Path, harm: str) -> None:
    """Breaks: a contender that drops or mixes up bytes is reported as fast."""
    source = make_source("incompressible", 1_000_000, tmp_path)
    case, chunks = await _stored(tmp_path, source)
    folder = tmp_path / "chunks" / case.uid.hex()
    first, second = folder / "0000000000", folder / "0000000001"
    match harm:
        case "one bit":
            changed = bytearray(first.read_bytes())
            changed[-1] ^= 1
            first.write_bytes(changed)
        case "one chunk less":
            chunks -= 1
        case _:
            held = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(held)
    with pytest.raises(EvidenceFalse):
        contender.check_chunks(folder, case.dek, chunks, source, "it")


def test_no_block_of_a_screen_recording_is_in_it_twice(screen: Source) -> None:
    """Breaks: a program that stores equal blocks once wins by bytes that nobody records."""
    block, held = 1 << 13, screen.path.read_bytes()
    assert len(held) == screen.size == SCREEN_BYTES
    assert screen.digest == blake3(held).digest()
    first = held[: SCREEN_BYTES // 3]
    assert all(first[at : at + block] not in held[at + 1 :] for at in range(0, len(first), block))
    # it does repeat: between two touched bytes there are long runs that were drawn once
    runs = [first[at : at + 256] for at in range(len(first) // 2, len(first) - 256, 4096)]
    assert sum(held.count(run) > 1 for run in runs) > len(runs) // 2


def test_a_screen_recording_is_cut_at_its_movie_fragments_over_every_repetition(screen: Source) -> None:
    """Breaks: screen is measured as opaque blocks, which no capture sends."""
    cut = list(data.units(screen.path, 1 << 20))
    assert b"".join(bytes(plain) for plain, _ in cut) == screen.path.read_bytes()
    assert sum(key_frame for _, key_frame in cut) >= 2
    assert all(bytes(plain[4:8]) == b"moof" for plain, _ in cut[1:])


def test_a_file_is_a_data_set_and_one_that_is_absent_is_not_found(tmp_path: Path) -> None:
    """Breaks: nobody can measure with recordings of their own."""
    (tmp_path / "own").write_bytes(b"x" * 1000)
    assert make_source(str(tmp_path / "own"), 5, tmp_path).size == 1000
    with pytest.raises(LucidError) as refused:
        make_source(str(tmp_path / "absent"), 5, tmp_path)
    assert refused.value.code == "bench.data"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("1GB", 10**9), ("64MiB", 64 << 20), ("500000", 500_000), ("1.5 kB", 1500), ("2g", 2 * 10**9)],
)
def test_sizes_mean_what_people_mean(text: str, wanted: int) -> None:
    """Breaks: 1GB measures something else than one gigabyte."""
    assert parse_size(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "GB", "-1MB", "1 i", "one"])
def test_what_is_no_size_is_misuse(text: str) -> None:
    """Breaks: a typing mistake measures nothing, and says so with a stack trace."""
    with pytest.raises(Misuse):
        parse_size(text)


def test_rates_are_of_bits() -> None:
    """Breaks: the load is eight times what was asked for."""
    assert parse_rate("1.2Mbit") == 150_000
    assert parse_rate("800 kbit/s") == 100_000
    with pytest.raises(Misuse):
        parse_rate("1.2MB")


def test_of_several_rounds_the_median_counts_and_the_most_memory() -> None:
    """Breaks: one disturbed round decides what is told."""
    source = Source(Path("x"), "x", 10**9, b"")

    def round_of(bare_s: float, pipeline_s: float, peak: int) -> rounds.Round:
        def measure(seconds: float) -> Measure:
            return Measure(seconds, 1, 1, {"worker": Used(2.0, peak)}, 0.0, {"sealed": seconds})

        return {"bare": measure(bare_s), "pipeline": measure(pipeline_s)}

    measured = [round_of(2, 4, 7), round_of(3, 4, 9), round_of(30, 40, 8)]
    said = [{name: rounds.figures(name, of, source) for name in of} for of in measured]
    joined = rounds.summary(said)["pipeline"]
    assert joined["ratio_to_bare"] == 0.75
    assert joined["seconds"] == 4
    assert joined["peak_bytes"] == joined["processes"]["worker"]["peak_bytes"] == 9
    assert joined["checked"] is True


def test_a_contender_that_is_not_here_is_misuse(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a mistyped name measures everything else for minutes."""
    said = lucid("bench", "--only", "bear", data=tmp_path)
    assert said.returncode == 2
    assert "[bench.contender]" in said.stderr


def test_a_peer_that_is_not_installed_names_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a newcomer looks for a typing mistake, and the program is only not installed."""
    monkeypatch.setitem(peers.PEERS, "absent", peers.Peer("", "", "", "", ("sh", "no-such-program")))
    with pytest.raises(Misuse, match=r"not installed: no-such-program "):
        rounds.contenders(["bare", "absent"])


def test_a_few_sessions_are_fed_stored_and_timed(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the promised wait between closed and stored cannot be measured."""
    said = lucid("bench", "--sessions", "2", "--seconds", "2", "--rate", "4Mbit", "--json", data=tmp_path)
    assert said.returncode == 0, said.stderr
    result = json.loads(said.stdout)
    assert result["bench"] == "sessions"
    found = result["results"]
    assert found["missing"] == found["dead"] == 0
    assert found["chunks"] >= 4
    assert 0 < found["wait_ms"]["p50"] <= found["wait_ms"]["p99"] <= found["wait_ms"]["max"]
    assert found["steps_ms"].keys() == set(STEPS[1:])
    assert found["unended"] == 0
    assert found["processes"].keys() == PROCESSES["pipeline"]
    assert isinstance(found["keeps_up"], bool)
    assert all(len(line) <= 80 for line in report.load(result))


def test_honest_hosts_are_timed_without_and_beside_a_hostile_one(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: nobody sees what one host can do to the others."""
    said = lucid("bench", "--hostile", "--sessions", "2", "--seconds", "3", "--json", data=tmp_path)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    result = told["results"]
    kinds = {"small", "slow", "garbage", "forged", "stray", "create"}
    assert set(result["hostile"]["sent"]) == kinds
    assert all(result["hostile"]["sent"].values())
    for run in (result["calm"], result["hostile"]):
        assert (run["missing"], run["not_ended"]) == (0, 0), "no honest chunk is lost"
        assert run["chunks"] >= 2 * 3
        assert 0 < run["wait_ms"]["p50"] <= run["wait_ms"]["p99"]
    assert result["ratio"]["p99"] == pytest.approx(
        result["hostile"]["wait_ms"]["p99"] / result["calm"]["wait_ms"]["p99"]
    )
    assert all(len(line) <= 80 for line in report.hostile(told))


def test_idle_sessions_are_counted_by_what_they_cost(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: nobody sees that a thousand silent sessions eat a core."""
    said = lucid("bench", "--idle", "3", "--seconds", "1", "--json", data=tmp_path)
    assert said.returncode == 0, said.stderr
    result = json.loads(said.stdout)
    assert result["bench"] == "idle"
    found = result["results"]
    assert found["processes"].keys() == found["silent"]["processes"].keys() == PROCESSES["pipeline"]
    assert found["processes"]["worker"]["cpu_share"] >= 0
    assert all(len(line) <= 80 for line in report.load(result))


@pytest.mark.parametrize(
    "trouble",
    [
        {"missing": 1},
        {"unended": 1},
        {"dead": 1},
        {"late_s": 9.0},
        {"whole_ms": {"p99": 1000.0}},
        {"drained_s": 99.0},
    ],
)
def test_whatever_piles_up_or_is_lost_shows(trouble: dict[str, Any]) -> None:
    """Breaks: a system that falls behind is told to keep up."""
    calm = {
        "missing": 0,
        "unended": 0,
        "dead": 0,
        "late_s": 0.1,
        "whole_ms": {"p99": 999.0},
        "drained_s": 0.5,
    }
    calm |= {"drain_most_s": 10.0}
    assert sessions.keeps_up(calm)
    assert not sessions.keeps_up(calm | trouble)
    why, share = sessions.worst(calm | trouble)
    (value,) = trouble.values()
    assert f"{value['p99'] if isinstance(value, dict) else value:,.0f}" in why
    assert share >= 1


async def test_a_program_that_hangs_ends_when_the_bench_is_stopped(
    tmp_path: Path, screen: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: Ctrl-C waits for ever for a backup program whose repository is gone already."""
    begun = tmp_path / "begun"
    hangs = ("sh", "-c", f"echo $$ > {begun}.part; mv {begun}.part {begun}; exec sleep 600")
    monkeypatch.setitem(peers.PEERS, "sh", peers.Peer("true", shlex.join(hangs), "true", "true"))
    (tmp_path / "task").mkdir()
    given = Task(screen, tmp_path / "task", Settings(), {"PATH": os.defpath})
    task = asyncio.ensure_future(peers.installed()["sh"](given))
    await until(begun.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(int(begun.read_text()))


def test_waits_are_of_first_events_and_not_of_chunks_that_the_end_closed() -> None:
    """Breaks: a doubled event, or the end of a session, is told as a wait."""
    times = Times()
    times.at["recorded"] = {(b"u", 0): 1.0, (b"u", 1): 2.0, (b"u", 2): 3.0}
    times.at["stored"] = {(b"u", 0): 1.5, (b"u", 1): 9.0}
    times.at_end = {(b"u", 1)}
    times.sealed_at = {(b"u", 0): 0.1, (b"u", 1): 0.75}
    assert times.waits_ms() == {"p50": 500, "p99": 500, "max": 500}
    assert times.whole_ms() == {"p50": 750, "p99": 750, "max": 750}, "from the fragment that closed it"
    assert times.so_far_ms(7.0)["max"] == 4000, "a chunk that nobody stores waits still"
    assert times.missing == 1


def test_a_chunk_that_closes_as_all_sessions_end_is_no_measure() -> None:
    """Breaks: in a short measurement the burst of the end decides whether the system keeps up."""
    times = Times(count_until_s=5.0)
    times.at["recorded"] = {(b"u", 0): 5.0, (b"u", 1): 5.1}
    times.at["stored"] = {(b"u", 0): 8.0, (b"u", 1): 9.0}
    times.sealed_at = {(b"u", 1): 5.0, (b"u", 2): 5.1}
    assert times.whole_ms()["max"] == 3000, "it closed before, and was stored behind the end"
    assert times.waits_ms()["max"] == 3000
    assert times.timed == 1


def test_quantiles_are_of_what_was_measured() -> None:
    """Breaks: p99 is told of a value that never was."""
    assert quantile([], 0.5) == 0
    assert quantile([1.0], 0.99) == 1
    assert quantile([float(n) for n in range(1, 101)], 0.5) == 50
    assert quantile([float(n) for n in range(1, 101)], 0.99) == 99
    assert quantile([float(n) for n in range(1, 101)], 1) == 100


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def search(most: int, guess: int) -> tuple[dict[str, Any], list[int]]:
    """A search on a system that takes `most` sessions, and the numbers that it tried."""
    tried = []

    async def probe(count: int) -> dict[str, Any]:
        tried.append(count)
        p99 = 10.0 if count <= most else 9_000.0
        calm = {"missing": 0, "unended": 0, "dead": 0, "late_s": 0.1, "drained_s": 0.5, "drain_most_s": 10.0}
        return {**calm, "sessions": count, "whole_ms": {"p99": p99}}

    return await max_sessions.search(probe, guess), tried


@pytest.mark.parametrize("most", [0, 1, 7, 90, 470, 3000])
@pytest.mark.parametrize("guess", [1, 200, 5000])
async def test_the_search_ends_at_the_border_after_few_probes(most: int, guess: int) -> None:
    """Breaks: the told maximum is no maximum, or it is found after an hour."""
    found, tried = await search(most, guess)
    assert found["maximum"] <= most < found["first_failed"]
    assert found["first_failed"] - found["maximum"] <= max(1, 0.1 * found["first_failed"])
    assert found["at_maximum"].get("sessions", 0) == found["maximum"]
    assert "p99 9,000 ms" in found["why"]
    assert len(tried) == len(set(tried)) == len(found["probes"]) <= 18


async def test_a_probe_near_its_border_is_measured_twice_and_both_decide() -> None:
    """Breaks: one disturbed second halves the maximum."""
    calm = {"missing": 0, "unended": 0, "dead": 0, "late_s": 0.1, "drained_s": 0.5, "drain_most_s": 10.0}
    waits = {100: [20.0], 200: [1_200.0, 300.0], 400: [900.0, 1_900.0], 300: [9_000.0]}

    async def probe(count: int) -> dict[str, Any]:
        return {**calm, "whole_ms": {"p99": waits.get(count, [9_000.0]).pop(0)}}

    found = await max_sessions.search(probe, 100)
    assert waits[100] == waits[200] == waits[400] == []
    assert 200 <= found["maximum"] < 300


def test_sessions_with_long_chunks_close_as_many_chunks_as_after_hours() -> None:
    """Breaks: large chunks are measured without one that closes, or only with small ones."""
    load = Load(sessions=600, seconds=20, rate=150_000, chunk_bytes=10 << 20)
    assert load.fill_s == 69
    first_close_s = [
        load.spread_s * number / load.sessions + load.fill_s - load.beats_before(number)
        for number in range(load.sessions)
    ]
    measured = [at_s for at_s in first_close_s if load.spread_s <= at_s < load.play_s]
    assert len(measured) == pytest.approx(
        load.sessions * (load.play_s - load.spread_s) / load.fill_s, rel=0.1
    )
    assert load.warm_s < 20
    small = Load(sessions=600, seconds=20, rate=150_000)
    assert (small.warm_s, small.spread_s) == (0, 6)


@pytest.mark.parametrize("longest_ms", [10**9, 0.001])
async def test_a_probe_is_a_fresh_system_that_leaves_nothing_and_ends_early_if_it_failed(
    tmp_path: Path, screen: Source, monkeypatch: pytest.MonkeyPatch, longest_ms: float
) -> None:
    """Breaks: `--sessions max` fills the disk, or waits for systems that have failed."""
    monkeypatch.setattr(sessions, "LONGEST_MS", longest_ms)
    task = Task(screen, tmp_path, Settings(), bench.own_environment())
    lines: list[str] = []
    figures = await max_sessions.probe(task, Load(2, 2, 500_000), lines.append)
    assert left_in(tmp_path) == []
    assert figures["ended_early"] is (longest_ms < 1)
    assert figures["cpu_ms_per_fragment"] > 0
    assert figures["shards"] >= 1
    (line,) = lines
    assert ("keeps up" in line) is sessions.keeps_up(figures)


def test_a_search_that_finds_no_room_on_the_disk_says_so(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: `--sessions max` fills the disk of the data directory."""
    options = ("--sessions", "max", "--rate", "8000Gbit", "--chunk-size", "1MiB", "--json")
    said = lucid("bench", *options, data=tmp_path)
    assert said.returncode == 0, said.stderr
    result = json.loads(said.stdout)
    assert result["bench"] == "max"
    (found,) = result["results"]["of_chunk_size"]
    assert (found["maximum"], found["first_failed"]) == (0, 1)
    assert "it would fill" in found["why"]
    assert all(len(line) <= 80 for line in report.most(result)), report.most(result)


async def test_the_growth_of_cost_is_a_table_with_a_ratio(tmp_path: Path, screen: Source) -> None:
    """Breaks: nobody sees that a chunk costs more in a long recording."""
    task = Task(screen, tmp_path, Settings(), bench.own_environment())
    lines: list[str] = []
    figures = await growth.measure(task, Load(0, 1, 1_500_000), lines.append, (2, 4), (1,))
    assert [row["chunks"] for row in figures["chunks"]] == [2, 4]
    rows = figures["chunks"]
    assert figures["ratio"]["cpu_ms_per_chunk"] == rows[1]["cpu_ms_per_chunk"] / rows[0]["cpu_ms_per_chunk"]
    assert figures["ratio"]["cpu_ms_per_fragment"] == 1
    assert len(lines) == 3
    assert left_in(tmp_path) == []
    head = {"machine": report.machine(tmp_path), "versions": report.versions()}
    table = report.growth({**head, "results": figures})
    assert all(len(line) <= 80 for line in table), table


def test_a_number_of_sessions_that_is_none_is_misuse(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a typing mistake measures something else for minutes."""
    for arguments in (
        ("--sessions", "many"),
        ("--sessions", "0"),
        ("--sessions", "3", "--growth"),
        ("--sessions", "max", "--hostile"),
        ("--hostile", "--chunk-size", "1MiB"),
    ):
        said = lucid("bench", *arguments, data=tmp_path)
        assert said.returncode == 2
        assert "[usage]" in said.stderr


def test_a_chunk_size_that_no_chunk_has_is_misuse_of_the_option(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the message names a variable that nobody has set."""
    said = lucid("bench", "--chunk-size", "3", data=tmp_path)
    assert said.returncode == 2
    assert "--chunk-size 3 " in said.stderr
    assert "0.25 to 16 MiB" in said.stderr


def test_the_api_is_measured_while_sessions_record_and_its_download_is_compared(
    lucid: Lucid, tmp_path: Path
) -> None:
    """Breaks: the figures of the API are of requests that failed, or of other bytes than were sent."""
    arguments = (
        "--only",
        "pages,requests,transfers",
        "--finished",
        "200",
        "--sessions",
        "2",
        "--seconds",
        "1",
    )
    said = lucid("bench", "--api", *arguments, "--size", "2MB", "--json", data=tmp_path / "data")
    assert said.returncode == 0, said.stderr
    result = json.loads(said.stdout)
    requests, transfers = result["results"]["requests"], result["results"]["transfers"]
    assert result["results"]["pages"]["kinds"]["list page"]["failed"] == 0
    assert requests["kinds"].keys() == api_requests.SHARES.keys()
    assert not any(kind["failed"] for kind in requests["kinds"].values())
    assert sum(kind["count"] for kind in requests["kinds"].values()) == 200
    assert transfers["bytes"] == 2_000_000
    assert transfers["download"]["ratio"] > 0
    lines = api_report.api(result)
    assert all(len(line) <= 80 for line in lines), lines


def test_an_unknown_part_of_the_api_is_refused() -> None:
    """Breaks: a part that is misspelt is measured as nothing, in silence."""
    assert api.parts("") == api.PARTS
    assert api.parts("transfers,pages") == ("pages", "transfers")
    with pytest.raises(Misuse) as refused:
        api.parts("transfer")
    assert refused.value.code == "bench.part"
