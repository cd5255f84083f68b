"""The BPU: a stand-in for its library under load, live changes, faults and AddressSanitizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import standins
from bpu_bench import (
    NETWORKS,
    Bench,
    Held,
    Images,
    Stream,
    bench,
    catalog,
    held,
    misuse,
    number_of,
    shortened,
)
from live import settled
from rows import Check, Length, Row
from talker import SOON

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.engine import CameraFrame, Engine
from efv2_ros.classify.options import ONLY_CAMERA, ModelRequest, ViewOptions
from efv2_ros.client.status import Counts
from efv2_ros.messages.images import image_frame
from efv2_ros.runtimes.libdnn import abi

_IN_FLIGHT = 256
"""Images on their way at once, far fewer than any queue holds."""

_LONGEST_S = 600.0
"""How long `inferences` goes through DDS."""

_WARM = 0.1
"""Share of a run after which nothing may grow any more."""

_SETTLED_S = 1.0
"""Time in which the middleware has started its threads, however short the run."""

_DROPS = frozenset({"infer", "timeout", "device", "closed", "inactive"})
"""Causes of drops that a BPU's faults may have."""


def inferences(length: Length) -> Row:
    """Classify a million images on the stand-in BPU, through the node over DDS.

    The images are published as fast as the node answers, 256 at once, for ten minutes at most;
    what is left of the million then goes through `Engine` in this process. The figures tell the
    shares. A failure is an image without a result, a result that is not the network's answer to
    its image or that comes out of turn, more threads, open files or BPU memories at the end than
    after a tenth of the run and a second, more than 8 MiB of further memory, and any misuse of BPU
    memory.
    """
    row = Row("inferences on the stand-in BPU", "inferences")
    count = length.count(1_000_000, 3000)
    with bench({"slots": 2}) as own:
        _through_node(own, row, count, length.seconds(_LONGEST_S, 10.0))
    if row.count < count:
        _in_process(row, count - row.count)
    return row


def _through_node(own: Bench, row: Row, count: int, limit_s: float) -> None:
    numbers, sent, warm = own.results.numbers, 0, None
    start = heard = time.monotonic()
    while len(numbers) < count and time.monotonic() - heard < SOON:
        is_late = time.monotonic() - start > limit_s
        if is_late and len(numbers) == sent:
            break
        share = max(len(numbers) / count, (heard - start) / limit_s)
        if warm is None and share > _WARM and heard - start > _SETTLED_S:
            warm = own.held()
        while not is_late and sent < count and sent - len(numbers) < _IN_FLIGHT:
            own.publish(sent)
            sent += 1
        while own.take():
            heard = time.monotonic()
        time.sleep(0.0005)
    row.count = len(numbers)
    row.figures["through the node"] = _share(row.count, heard - start)
    if row.count < sent:
        row.failures.append(f"{sent - row.count} of {sent} images got no result")
    row.failures += own.failures() + _grown(row, own, warm or own.held())


def _in_process(row: Row, count: int) -> None:
    """Classify `count` images with an engine here."""
    abi.LIBRARIES = (str(standins.library()),)
    controls, images, wrong = standins.Controls(), Images(), []
    expected = [each.classes for each in images.answers["one"]]
    done, warm, start = 0, None, time.monotonic()

    def compare(item: CameraFrame, outcome: Classified | Exception, waited: float) -> None:
        nonlocal done
        number = number_of(*item.frame.header[:2])
        answer = outcome if isinstance(outcome, Exception) else outcome.prediction.class_ids
        if number != done or answer != expected[number % len(expected)]:
            wrong.append(f"image {number} was answered with {answer} as number {done}")
        done += 1

    with tempfile.TemporaryDirectory() as folder:
        request = ModelRequest(
            "one", catalog_file=str(catalog(Path(folder))), runtime="libdnn", slots=2
        )
        views = {ONLY_CAMERA: ViewOptions(fit="stretch", top_k=3)}
        engine = Engine(request, views, compare, policy="all")
        for number in range(count):
            if warm is None and number >= count * _WARM:
                warm = held(os.getpid(), controls)
            engine.submit(image_frame(images.message(number)))
        if not engine.drain(SOON):
            row.failures.append(f"{count - done} of {count} images got no result")
        last = held(os.getpid(), controls)
        engine.close()
    row.count += done
    row.figures["in process"] = _share(done, time.monotonic() - start)
    row.failures += shortened(wrong) + misuse(controls)
    row.failures += [] if warm is None else warm.growth(last)


def model_swaps(length: Length) -> Row:
    """Swap the model a thousand times while images arrive at 100 Hz.

    Two models with other answers, labels and numbers of classes take turns by the parameter
    `model_size`; each is in use for some images before the next swap. A failure is a refused swap,
    an image without a result, a result that is neither model's answer to its image, a return to a
    model before its turn, models or labels announced otherwise than they answered, and growth as
    in `inferences`.
    """
    row = Row("live swaps of the model under a 100 Hz stream", "model swaps")
    count, warm, names = length.count(1000, 4), None, ["one"]
    with bench({"slots": 2}) as own, Stream(own) as stream:
        while row.count < count:
            if warm is None and names[-1] == "one" and row.count >= count * _WARM:
                warm = own.held()
            name = "two" if names[-1] == "one" else "one"
            (answer,) = own.talker.set(model_size=name)
            names.append(name)
            if not answer.successful or not own.wait(lambda name=name: _answers(own, name)):
                row.failures.append(f"swap {row.count + 1} did not happen: {answer.reason}")
                break
            row.count += 1
        stream.stop()
        _expect_all(row, own, stream)
        turns = _turns(own.results.networks)
        if turns != names:
            row.failures.append(f"{len(names)} models took turns in {len(turns)} runs of results")
        announced = [each.method for each in own.talker.vision_info]
        labels = [each.class_map[0].class_name.split()[0] for each in own.talker.label_info]
        for what, said in (("models", announced), ("labels", labels)):
            if said != names:
                row.failures.append(f"{len(names)} models, but {len(said)} {what} were announced")
        row.failures += own.failures(NETWORKS) + _grown(row, own, warm or own.held())
    return row


def _answers(own: Bench, name: str, least: int = 3) -> bool:
    """Whether the last results came from this network."""
    return own.results.networks[-least:] == [name] * least


def _turns(names: list[str]) -> list[str]:
    """The names without repetitions of the one before."""
    return [name for n, name in enumerate(names) if n == 0 or names[n - 1] != name]


def lifecycle_rounds(length: Length) -> Row:
    """Deactivate and activate the node a thousand times while images arrive at 100 Hz.

    Every tenth round also cleans up and configures, which frees and loads the model. A failure is
    a transition that is refused, an image without a result between the first and the last of a
    round, a drop in the node's own counts, a wrong result, and growth as in `inferences`. Images
    that are published from the request to deactivate to the first result thereafter may be lost,
    and of those before it the last two, which may still be on their way.
    """
    row = Row("lifecycle rounds under a 100 Hz stream", "rounds")
    count, warm = length.count(1000, 10), None
    firsts: dict[int, int] = {}  # the first image with a result in a round: those sent before
    with bench({"slots": 2}) as own, Stream(own) as stream:
        results = own.results
        while row.count < count and not row.failures:
            if warm is None and row.count >= count * _WARM:
                warm = own.held()
            own.wait(lambda: stream.sent - results.last <= 2)
            sent, had = stream.sent, len(results.numbers)
            reload = ("cleanup", "configure") if row.count % 10 == 9 else ()
            for name in ("deactivate", *reload, "activate"):
                if not own.talker.transition(name):
                    row.failures.append(f"round {row.count + 1}: {name} was refused")
            fresh = stream.sent
            if not own.wait(lambda fresh=fresh: results.last >= fresh + 5):
                row.failures.append(f"round {row.count + 1}: no results after it")
            firsts[_first_after_gap(results.numbers, had)] = sent
            row.count += 1
        stream.stop()
        own.wait(lambda: results.last == stream.sent - 1)
        report = _settle(row, own, stream)
        row.failures += _gaps(results.numbers, stream.sent, firsts)
        row.failures += [f"{n} images were dropped: {why}" for why, n in report.drops.items()]
        row.figures["lost in transitions"] = f"{stream.sent - len(results.numbers)} images"
        row.failures += own.failures() + _grown(row, own, warm or own.held())
    return row


def _first_after_gap(numbers: Sequence[int], start: int) -> int:
    """The first number from an index on that does not follow the one before it."""
    for n in range(max(1, start), len(numbers)):
        if numbers[n] != numbers[n - 1] + 1:
            return numbers[n]
    return -1


def _gaps(numbers: Sequence[int], sent: int, firsts: dict[int, int]) -> list[str]:
    """Sentences about images without a result that are not those of a transition."""
    found = []
    for before, after in zip([-1, *numbers], [*numbers, sent], strict=True):
        if after != before + 1 and before < firsts.get(after, sent) - 3:
            found.append(f"images {before + 1} to {after - 1} got no result")
    return shortened(found)


def faults(length: Length) -> Row:
    """Let every function of the BPU's library fail at random for ten minutes, under 100 Hz.

    Of 1000 calls, 50 of a function that loads or frees and 10 of one that runs inferences return
    an error, take 20 ms longer, or hang: a task for ever, another call for 0.5 s. Every two
    seconds a changed parameter loads the model again, and every twenty the BPU dies until the node
    is unconfigured. Each time that it is, it is configured and activated again. A failure is a
    process that ends, a node that does not come back, a traceback in its log, an image that its
    counts do not have as classified or dropped for a named cause, a wrong result, and any misuse
    of BPU memory. At the end, without faults, everything must be classified, and after `cleanup`
    no memory, model or task of the BPU may be left.
    """
    row = Row("faults in every call of the BPU's library", "faults")
    random = length.random("faults")
    settings = {"seed": random.randrange(2**31), "slow_us": 20_000, "hang_us": 500_000}
    parameters = {"slots": 2, "infer_timeout": 0.2}
    losses = 0
    with bench(parameters, **settings) as own, Stream(own) as stream:
        talker, numbers = own.talker, own.numbers
        numbers.set(**{name: 10 if name in _PER_FRAME else 50 for name in standins.FUNCTIONS})
        change = time.monotonic()
        death, end = change + 2.0, change + length.seconds(600.0, 5.0)
        while time.monotonic() < end and not row.failures:
            talker.spin_for(0.1)
            now = time.monotonic()
            if now > death:
                numbers.set(dead_at=1)
                if not own.wait(lambda: talker.state() == "unconfigured"):
                    row.failures.append("the node does not notice that the BPU is dead")
                numbers.set(dead_at=0)
                death = now + 20.0
            elif now > change:
                talker.set(bpu_priority=random.randrange(256))
                change = now + 2.0
            if talker.state() != "active":
                losses += 1
                row.failures += _recover(own)
        row.failures += [] if talker.process.running else ["the process ended"]
        injected = {name: numbers.faults(name) for name in standins.FUNCTIONS}
        numbers.set(**dict.fromkeys(standins.FUNCTIONS, 0))
        if talker.process.running:
            row.failures += _recover(own) + _healthy(own, stream)
            stream.stop()
            report = _settle(row, own, stream)
            unnamed = report.drops.keys() - _DROPS
            row.failures += [f"images were dropped because of {why}" for why in unnamed]
            row.figures["classified"] = str(report.classified)
            row.figures["dropped"] = ", ".join(f"{n} {why}" for why, n in report.drops.items())
            talker.transition("deactivate")
            talker.transition("cleanup")
            left = {name: numbers[name] for name in ("memories", "models", "open_tasks")}
            if any(left.values()):
                row.failures.append(f"after cleanup, the BPU still has {left}")
        row.count = sum(injected.values())
        row.figures["functions"] = f"{sum(map(bool, injected.values()))} of {len(injected)}"
        row.figures["became unconfigured"] = str(losses)
        row.failures += own.failures()
        log = talker.process.stop()
        if "Traceback" in log:
            row.failures.append(log[log.index("Traceback") :][:2000])
    return row


_PER_FRAME = frozenset({"hbDNNInfer", "hbDNNWaitTaskDone", "hbDNNReleaseTask", "hbSysFlushMem"})


def _recover(own: Bench) -> list[str]:
    """Configure and activate, as often as it takes."""
    for _ in range(100):
        state = own.talker.state()
        if state == "active":
            return []
        own.talker.transition("activate" if state == "inactive" else "configure")
    return ["the node cannot be configured again"]


def _healthy(own: Bench, stream: Stream) -> list[str]:
    """Wait until results arrive, then check that they keep doing so."""
    for _ in range(2):
        first = stream.sent
        if not own.wait(lambda first=first: own.results.last >= first + 20):
            return ["there are no results once the faults have ended"]
    return []


def sanitized(length: Length) -> Row:
    """Run all that hands memory to the BPU's library under AddressSanitizer.

    The stand-in is compiled with it, and Python's memory comes from it: a structure that is
    shorter than the C code thinks, and memory that is used after it was freed, end the program.
    `bpu_sanitized.py` loads models of every layout in all three runtimes, runs them in all slots,
    swaps them under load, and converts images of every encoding into the slots' memory, whose ends
    are guarded. A failure is whatever the sanitizer reports, a changed guard, and a wrong result.
    """
    row = Row("calls of the BPU's library under AddressSanitizer", "calls")
    variables = standins.sanitizer()
    if variables is None:
        row.figures["skipped"] = "the compiler has no AddressSanitizer"
        return row
    program = Path(__file__).with_name("bpu_sanitized.py")
    done = subprocess.run(
        [sys.executable, program, str(length.count(40, 1)), str(length.seed)],
        env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        row.failures.append(f"exit status {done.returncode}: {done.stderr[-3000:]}")
        return row
    result = json.loads(done.stdout.splitlines()[-1])
    row.count, row.failures = result["calls"], result["failures"]
    row.figures = {name: str(value) for name, value in result["figures"].items()}
    return row


def _share(count: int, seconds: float) -> str:
    return f"{count} at {count / seconds:.0f}/s"


def _grown(row: Row, own: Bench, warm: Held) -> list[str]:
    """What grew since then; notes the memory."""
    now = own.held()
    row.figures["memory"] = f"{warm.mib:.1f} to {now.mib:.1f} MiB"
    return warm.growth(now)


def _expect_all(row: Row, own: Bench, stream: Stream) -> None:
    """Expect a result of each image that was published."""
    sent = stream.sent
    own.wait(lambda: own.results.last == sent - 1)
    if list(own.results.numbers) != list(range(sent)):
        row.failures.append(f"{len(own.results.numbers)} of {sent} images got a result")
    report = _settle(row, own, stream)
    if (report.received, report.classified) != (sent, sent):
        row.failures.append(f"the node counts {report} of {sent} images")
    row.figures["images"] = str(sent)


def _settle(row: Row, own: Bench, stream: Stream) -> Counts:
    """What the node counted of a stream, once it is done; each image must have an end."""
    report = settled(own.talker, 0).since(stream.before)
    if report.received != report.classified + report.dropped:
        row.failures.append(f"not every image has an end: {report}")
    if report.classified < len(own.results.numbers):
        row.failures.append(f"more results than the node counts: {report}")
    return report


CHECKS: tuple[Check, ...] = (inferences, model_swaps, lifecycle_rounds, faults, sanitized)
