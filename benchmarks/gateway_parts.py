"""The parts of the gateway's benchmark, each with its table."""

import argparse
import json
import os
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from benchmarks.gateway_site import Site, seconds_of
from benchmarks.http_load import CHUNKS, Load, send, send_evenly

_LOOP = 2_000_000


def about_the_machine() -> str:
    """What figures are to be read by: cores, what else runs, and what a fixed piece of work costs now."""
    begun, total = time.process_time(), 0
    for number in range(_LOOP):
        total += number
    spent = (time.process_time() - begun) / _LOOP * 1e9
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {spent:.0f} ns for a turn of Python's `for`\n"


def cost(site: Site, arguments: argparse.Namespace) -> None:
    """One worker: alone, at 32 at once, and streams; beside other proxies."""
    (model,) = site.models(1)
    site.endpoint([model])
    print(
        "| proxy | requests | at once | direct p50 | added p50 | added p99 | answered | CPU | could answer |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    url, process = site.gateway()
    ours = _measure("ours, everything on", site, model, url, [process], arguments.requests, arguments.rounds)
    site.want({})
    # Until the gateway has read it.
    time.sleep(2.0)
    _measure("ours, without guards", site, model, url, [process], arguments.requests, arguments.rounds)
    bare = f"{sys.executable} -m benchmarks.bare_proxy --port {{port}} --upstream {{upstream}}"
    others = [("a bare proxy", *site.router(bare, model), 1)]
    if arguments.vllm_router:
        command = f"{arguments.vllm_router.absolute() / 'bin' / 'vllm-router'} --host 127.0.0.1 --port {{port}} "
        others.append(("vllm-router", *site.router(f"{command} --worker-urls {{upstream}}", model), 1))
    if arguments.router:
        others.append((Path(arguments.router.split()[0]).name, *site.router(arguments.router, model), 1))
    if arguments.litellm:
        # It is slower by far: fewer requests say as much.
        others.append(("LiteLLM", *site.litellm(arguments.litellm, model), 25))
    for name, address, other, less in others:
        family = [other, *other.children(recursive=True)]
        rounds = arguments.rounds if name == "a bare proxy" else 1 + (less == 1)
        theirs = _measure(name, site, model, address, family, max(64, arguments.requests // less), rounds)
        print(f"\n{name} costs {theirs / ours:.2f} times as much at 32 at once\n")


def _measure(
    name: str, site: Site, direct: str, proxy: str, processes: list[psutil.Process], requests: int, rounds: int
) -> float:
    """Print a line for each kind of load; the processor time (µs) of a request at 32 at once."""
    at_32 = 0.0
    for is_streamed, at_once, share in ((False, 1, 0.5), (False, 32, 1.0), (True, 8, 0.05)):
        count = max(at_once, int(requests * share))
        send(site.load(proxy, is_streamed=is_streamed), min(100, count), at_once)
        best: tuple[float, float, Load, Load] | None = None
        for _ in range(rounds):
            plain = send(site.load(direct, is_streamed=is_streamed), count, at_once)
            before, begun = sum(map(seconds_of, processes)), time.perf_counter()
            through = send(site.load(proxy, is_streamed=is_streamed), count, at_once)
            wall = time.perf_counter() - begun
            spent = (sum(map(seconds_of, processes)) - before) / count * 1e6
            assert not through.failed, through.failed[:3]
            if best is None or spent < best[0]:
                best = (spent, wall, plain, through)
        assert best is not None
        spent, wall, plain, through = best
        added = {p: (np.percentile(through.seconds, p) - np.percentile(plain.seconds, p)) * 1e3 for p in (50, 99)}
        a_chunk = f" ({spent / CHUNKS:.0f} µs a chunk)" if is_streamed else ""
        kind = f"stream, {CHUNKS} chunks" if is_streamed else "whole"
        print(
            f"| {name} | {kind} | {at_once} | {np.median(plain.seconds) * 1e3:.2f} ms | {added[50]:.2f} ms | "
            f"{added[99]:.1f} ms | {count / wall:,.0f}/s | {spent:,.0f} µs{a_chunk} | {1e6 / spent:,.0f}/s |",
            flush=True,
        )
        at_32 = spent if at_once == 32 else at_32
    return at_32


def workers(site: Site, arguments: argparse.Namespace) -> None:
    """One worker and two, both with Redis: what each worker does in the same time, and what a request costs."""
    (model,) = site.models(1)
    site.endpoint([model])
    store = site.redis()
    print("\n| workers | answered | CPU a request | could answer, a core each | share of each |\n|---|---|---|---|---|")
    found = []
    for count in (1, 2):
        url, process = site.gateway(GATEWAY_WORKERS=str(count), GATEWAY_STORE_URL=store)
        serving = [process]
        if count > 1:
            # The other children are the one that ships the log, which was forked and has no command of its own.
            family = process.children()
            serving = [child for child in family if "--admin-socket" in child.cmdline()]
        send(site.load(url), 400, 64)
        best = (1e9, 0.0, [0.0])
        for _ in range(arguments.rounds):
            before, begun = [seconds_of(one) for one in serving], time.perf_counter()
            through = send(site.load(url), arguments.requests, 64)
            wall = time.perf_counter() - begun
            assert not through.failed, through.failed[:3]
            spent = [seconds_of(one) - b for one, b in zip(serving, before, strict=True)]
            best = min(best, (sum(spent) / arguments.requests * 1e6, arguments.requests / wall, spent))
        cost_of_one, answered, spent = best
        shares = ", ".join(f"{part / sum(spent):.0%}" for part in spent)
        found.append(count * 1e6 / cost_of_one)
        print(f"| {count} | {answered:,.0f}/s | {cost_of_one:,.0f} µs | {found[-1]:,.0f}/s | {shares} |", flush=True)
        site.processes[-1].terminate()
        site.processes.pop().wait(40)
    print(
        f"\ntwo workers could answer {found[1] / found[0]:.2f} times as much as one, with a core for each; load, model "
        f"server and Redis want some more, and this machine has {os.cpu_count()} in all"
    )


def switch(site: Site, arguments: argparse.Namespace) -> None:
    """An endpoint changes from one warm server to another and back under load: what is dropped, and how soon it is."""
    models = site.models(2)
    site.endpoint(models)
    site.route([100, 0])
    url, _ = site.gateway()
    time.sleep(1.0)
    whole, streams = site.load(url), site.load(url, is_streamed=True)
    seconds, times, switches = 12.0, [], 8

    def change() -> None:
        for number in range(switches):
            weights = [0, 100] if number % 2 == 0 else [100, 0]
            begun = time.monotonic()
            site.route(weights)
            wanted = f"desk-{number % 2 ^ 1}"
            while not _serves(site, wanted):
                time.sleep(0.005)
            times.append(time.monotonic() - begun)
            time.sleep(0.6)

    threads = [
        threading.Thread(target=send_evenly, args=(whole, 100.0, seconds)),
        threading.Thread(target=send_evenly, args=(streams, 5.0, seconds)),
    ]
    changing = threading.Thread(target=change)
    for thread in (*threads, changing):
        thread.start()
    for thread in (*threads, changing):
        thread.join()
    failed = whole.failed + streams.failed
    print(
        f"\nswitch: {switches} switches under load, {len(whole.seconds)} answers and {len(streams.seconds)} streams "
        f"whole, {len(failed)} dropped {Counter(failed).most_common(2) if failed else ''}; until the gateway sends to "
        f"the new one alone: {np.median(times):.2f} s (the longest {max(times):.2f} s)"
    )


def _serves(site: Site, backend: str) -> bool:
    request = urllib.request.Request(f"{site.admin}/admin/routes", headers={"Authorization": f"Bearer {site.secret}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        routes = json.load(answer)["endpoints"]["desk"]["routes"]
    return [route["backend"] for route in routes if route["weight"]] == [backend]


def exposures(site: Site, arguments: argparse.Namespace) -> None:
    """How many requests are on record once the gateway ended, in order and by kill -9, and what shipping them costs."""
    (model,) = site.models(1)
    site.endpoint([model])
    asked = 0
    for how in ("ended", "killed"):
        url, process = site.gateway()
        shipper = process.children()
        before = sum(map(seconds_of, shipper))
        through = send(site.load(url), arguments.requests, 16)
        asked += len(through.seconds)
        if how == "ended":
            _until_shipped(site, asked)
            spent = (sum(map(seconds_of, shipper)) - before) / arguments.requests * 1e6
            process.terminate()
        else:
            time.sleep(1.0)
            process.kill()
        site.processes.pop().wait(40)
        if how == "killed":
            site.gateway()
        written = _until_shipped(site, asked)
        print(
            f"{chr(10) if how == 'ended' else ''}exposures: {written:,} of {asked:,} requests are on record after the "
            f"gateway was {how}" + (f"; shipping one costs {spent:,.0f} µs in its process" if how == "ended" else "")
        )


def _until_shipped(site: Site, count: int, seconds: float = 60.0) -> int:
    deadline = time.monotonic() + seconds
    while (written := site.catalog.request_count(endpoint="desk")) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return written


def steady(site: Site, arguments: argparse.Namespace) -> None:
    """So many requests a second for long: errors, latency against the model server's own, memory, and the log."""
    (model,) = site.models(1)
    site.endpoint([model])
    url, process = site.gateway()
    seconds = arguments.minutes * 60
    (shipper,) = process.children()
    plain = send_evenly(site.load(model), arguments.rate, min(10.0, seconds))
    through = site.load(url)
    memory: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(min(5.0, seconds / 20)):
            memory.append(tuple(one.memory_info().rss / 2**20 for one in (process, shipper)))

    looking = threading.Thread(target=look)
    looking.start()
    before = [seconds_of(one) for one in (process, shipper)]
    send_evenly(through, arguments.rate, seconds)
    spent = [seconds_of(one) - b for one, b in zip((process, shipper), before, strict=True)]
    ended.set()
    looking.join()
    asked = len(through.seconds)
    cost = [each / asked * 1e6 for each in spent]
    added = {p: (np.percentile(through.seconds, p) - np.percentile(plain.seconds, p)) * 1e3 for p in (50, 95, 99)}
    # The log is shipped behind the requests: what is left is waited for, as long as it takes a tenth of the time.
    written = _until_shipped(site, asked, seconds=max(60.0, seconds / 10))
    print(
        f"\nsteady: {asked:,} requests at {arguments.rate:,.0f}/s for {arguments.minutes:g} min, "
        f"{len(through.failed)} failed {Counter(through.failed).most_common(2) if through.failed else ''} "
        f"({through.ended} connections ended while nothing was asked on them); added p50 "
        f"{added[50]:.2f}, p95 {added[95]:.2f}, p99 {added[99]:.2f} ms; {cost[0]:.0f} µs of CPU a request, and "
        f"{cost[1]:.0f} of the shipper's; log: {written:,} on record, dropped: "
        f"{sum(v for n, v in site.metrics().items() if 'exposures_dropped_total' in n):.0f}\n\n"
        "| memory, MiB | at the start | after a quarter | at the end | at most |\n|---|---|---|---|---|"
    )
    for name, sizes in zip(("gateway", "shipper"), zip(*memory, strict=True), strict=True):
        # The beginning fills caches and windows of limits.
        found = (sizes[0], sizes[len(sizes) // 4], sizes[-1], max(sizes))
        print(f"| {name} | " + " | ".join(f"{size:.0f}" for size in found) + " |")


def connections(site: Site, arguments: argparse.Namespace) -> None:
    """Connections that send a header a byte at a time, or nothing at all, while others are served."""
    (model,) = site.models(1)
    site.endpoint([model])
    url, process = site.gateway()
    host, port = url.removeprefix("http://").split(":")
    memory = process.memory_info().rss / 2**20
    quiet = send(site.load(url), 200, 1)
    held: list[socket.socket] = []
    begun = time.perf_counter()
    for number in range(arguments.connections):
        # Of one address only so many ports go to the same server.
        source = (f"127.0.0.{2 + number // 20_000}", 0)
        held.append(socket.create_connection((host, int(port)), 10, source_address=source))
    opened = time.perf_counter() - begun
    slow = held[::10]
    for one in slow:
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow")
    meanwhile = send(site.load(url), 200, 1)
    grown = process.memory_info().rss / 2**20 - memory
    waited = time.perf_counter()
    slow[0].settimeout(60)
    answer = slow[0].recv(100)
    print(
        f"\nconnections: {len(held):,} opened in {opened:.1f} s, {grown:.0f} MiB; {len(slow):,} of them send half a "
        f"header; others meanwhile: {len(meanwhile.failed)} failed, p50 {np.median(meanwhile.seconds) * 1e3:.2f} ms "
        f"({np.median(quiet.seconds) * 1e3:.2f} without them); the slow ones are ended "
        f"({answer[9:12].decode() or 'closed'}) {time.perf_counter() - waited:.0f} s later"
    )
    for one in held:
        one.close()
