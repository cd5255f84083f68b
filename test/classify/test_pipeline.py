import gc
import threading
import time
import weakref
from random import Random

import pytest

from efv2_ros.classify.pipeline import Pipeline

SOON = 5.0  # seconds: only reached when something is broken


class Stages:
    """Only the work; preparing and finishing do nothing, unless a test says so."""

    def __init__(self, work, prepare=lambda item: item, finish=lambda worked: worked):
        self.work, self.prepare, self.finish = work, prepare, finish
        self.discarded = []

    def discard(self, prepared):
        self.discarded.append(prepared)


def pipeline_of(work, deliver, **options):
    return Pipeline(Stages(work), deliver, **options)


class Sink:
    """Collects what a pipeline delivers."""

    def __init__(self):
        self.items, self.outcomes, self.waits = [], [], []

    def __call__(self, item, outcome, waited):
        self.items.append(item)
        self.outcomes.append(outcome)
        self.waits.append(waited)


class Gate:
    """Work that stands still until it is let through."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, item):
        self.entered.release()
        assert self.open.wait(SOON)
        return item


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_all_delivers_everything_in_order(slots):
    random = Random(slots)
    sink = Sink()

    def work(item):
        time.sleep(random.random() * 0.002)  # later items often finish first
        return -item

    pipeline = pipeline_of(work, sink, slots=slots, policy="all")
    for item in range(300):
        pipeline.submit(item)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == list(range(300))
    assert sink.outcomes == [-item for item in range(300)]


def test_deliveries_never_overlap():
    busy, overlaps = threading.Lock(), []

    def deliver(item, outcome, waited):
        if not busy.acquire(blocking=False):
            overlaps.append(item)
            return
        time.sleep(0.001)
        busy.release()

    pipeline = pipeline_of(lambda item: item, deliver, slots=4, policy="all")
    for item in range(100):
        pipeline.submit(item)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert not overlaps


def test_a_worker_is_back_at_work_while_its_result_is_delivered():
    """What keeps an accelerator busy with a single slot."""
    working, delivering, overlapped = threading.Event(), threading.Event(), []

    def work(item):
        if item == 1:
            working.set()
            overlapped.append(delivering.wait(SOON))
        return item

    def deliver(item, outcome, waited):
        if item == 0:
            delivering.set()
            assert working.wait(SOON)

    pipeline = pipeline_of(work, deliver, policy="all")
    pipeline.submit(0)
    pipeline.submit(1)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert overlapped == [True]


@pytest.mark.parametrize("slots", [1, 3])
def test_results_do_not_pile_up_behind_a_slow_delivery(slots):
    gate, started = Gate(), []
    pipeline = pipeline_of(started.append, lambda *_: gate(None), slots=slots, policy="all")
    submitting = threading.Thread(target=lambda: [pipeline.submit(n) for n in range(50)])
    submitting.start()
    time.sleep(0.2)
    assert len(started) <= 1 + slots + 1 + slots  # delivered, finished, and those in work
    gate.open.set()
    submitting.join()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert len(started) == 50


def test_the_wait_for_a_worker_is_measured():
    gate, sink = Gate(), Sink()
    pipeline = pipeline_of(gate, sink, policy="all")
    pipeline.submit(0)
    assert gate.entered.acquire(timeout=SOON)
    pipeline.submit(1)
    time.sleep(0.02)
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.waits[1] >= 0.02


def test_slots_work_side_by_side():
    gate = Gate()
    pipeline = pipeline_of(gate, Sink(), slots=3, policy="all")
    for item in range(3):
        pipeline.submit(item)
    for _ in range(3):
        assert gate.entered.acquire(timeout=SOON)  # all three inside before any is let out
    gate.open.set()
    pipeline.close()


def test_latest_keeps_the_newest_and_counts_the_rest():
    gate, sink, dropped = Gate(), Sink(), []
    pipeline = pipeline_of(
        gate, sink, policy="latest", on_dropped=lambda item, cause: dropped.append((item, cause))
    )
    pipeline.submit(0)
    assert gate.entered.acquire(timeout=SOON)
    for item in range(1, 10):
        pipeline.submit(item)
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == [0, 9]
    assert dropped == [(item, "superseded") for item in range(1, 9)]


def test_latest_keeps_one_item_however_many_slots():
    gate, dropped = Gate(), []
    pipeline = pipeline_of(
        gate, Sink(), slots=2, on_dropped=lambda item, cause: dropped.append(item)
    )
    for item in range(2):
        pipeline.submit(item)
        assert gate.entered.acquire(timeout=SOON)
    for item in range(2, 5):
        pipeline.submit(item)
    assert dropped == [2, 3]
    gate.open.set()
    pipeline.close()


def test_all_makes_the_producer_wait():
    gate, sink = Gate(), Sink()
    pipeline = pipeline_of(gate, sink, slots=2, policy="all")
    submitted = []

    def produce():
        for item in range(8):
            pipeline.submit(item)
            submitted.append(item)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(2):
        assert gate.entered.acquire(timeout=SOON)
    producer.join(0.2)
    assert producer.is_alive()
    assert submitted == [0, 1, 2, 3]  # two in work, two waiting
    gate.open.set()
    producer.join(SOON)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == list(range(8))


class Odd(Exception):
    """An exception that nothing knows of."""


def test_a_failure_is_delivered_in_its_place():
    sink = Sink()

    def work(item):
        if item % 3 == 0:
            raise Odd(item)
        return item

    pipeline = pipeline_of(work, sink, slots=2, policy="all")
    for item in range(9):
        pipeline.submit(item)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == list(range(9))
    assert [type(outcome) is Odd for outcome in sink.outcomes] == [True, False, False] * 3


def test_replace_loses_nothing_and_never_goes_back():
    sink = Sink()

    def worker(name):
        def work(item):
            time.sleep(0.001)
            return name

        return work

    pipeline = pipeline_of(worker("old"), sink, slots=3, policy="all")
    stop = threading.Event()
    sent = []

    def produce():
        while not stop.is_set():
            pipeline.submit(len(sent))
            sent.append(len(sent))

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.05)
    pipeline.replace(Stages(worker("new")))
    old_results = sink.outcomes.count("old")
    time.sleep(0.05)
    stop.set()
    producer.join(SOON)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == sent
    assert old_results > 0
    assert sink.outcomes == ["old"] * old_results + ["new"] * (len(sent) - old_results)
    assert len(sent) > old_results


def test_replace_waits_for_what_the_old_work_still_has():
    gate, sink = Gate(), Sink()
    pipeline = pipeline_of(gate, sink)
    pipeline.submit("held")
    assert gate.entered.acquire(timeout=SOON)
    replacing = threading.Thread(target=pipeline.replace, args=(Stages(str.upper),))
    replacing.start()
    replacing.join(0.1)
    assert replacing.is_alive()
    gate.open.set()
    replacing.join(SOON)
    assert not replacing.is_alive()
    assert sink.outcomes == ["held"]
    pipeline.submit("next")
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.outcomes == ["held", "NEXT"]


def test_replace_waits_for_the_delivery_too():
    inside, go_on = threading.Event(), threading.Event()

    def deliver(item, outcome, waited):
        inside.set()
        assert go_on.wait(SOON)

    pipeline = pipeline_of(str.lower, deliver)
    pipeline.submit("A")
    assert inside.wait(SOON)
    replacing = threading.Thread(target=pipeline.replace, args=(Stages(str.upper),))
    replacing.start()
    replacing.join(0.1)
    waits = replacing.is_alive()
    go_on.set()
    replacing.join(SOON)
    pipeline.close()
    assert waits


def test_what_was_replaced_can_be_freed():
    class Work:
        def __call__(self, item):
            return item

    work = Work()
    reference = weakref.ref(work)
    pipeline = pipeline_of(work, Sink())
    pipeline.submit(1)
    assert pipeline.drain(SOON)
    pipeline.replace(Stages(str))
    del work
    pipeline.submit(2)
    assert pipeline.drain(SOON)
    gc.collect()
    assert reference() is None
    pipeline.close()


def test_close_finishes_what_runs_and_drops_what_waits():
    gate, sink, dropped = Gate(), Sink(), []
    pipeline = pipeline_of(
        gate, sink, on_dropped=lambda item, cause: dropped.append((item, cause))
    )
    pipeline.submit("runs")
    assert gate.entered.acquire(timeout=SOON)
    pipeline.submit("waits")
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    time.sleep(0.05)
    gate.open.set()
    closing.join(SOON)
    assert not closing.is_alive()
    assert sink.items == ["runs"]
    assert dropped == [("waits", "closed")]
    with pytest.raises(RuntimeError, match="closed"):
        pipeline.submit("late")


def test_close_frees_a_waiting_producer():
    gate = Gate()
    pipeline = pipeline_of(gate, Sink(), policy="all")
    pipeline.submit(0)
    assert gate.entered.acquire(timeout=SOON)
    pipeline.submit(1)
    refused = threading.Event()

    def produce():
        with pytest.raises(RuntimeError, match="closed"):
            pipeline.submit(2)
        refused.set()

    threading.Thread(target=produce).start()
    time.sleep(0.05)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    assert refused.wait(SOON)
    gate.open.set()
    closing.join(SOON)
    assert not closing.is_alive()


def test_drain_says_when_time_is_up():
    gate = Gate()
    pipeline = pipeline_of(gate, Sink())
    pipeline.submit(0)
    assert not pipeline.drain(0.05)
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()


# Preparing ahead


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_the_next_item_is_prepared_while_one_is_worked_on(policy):
    gate, sink, prepared = Gate(), Sink(), threading.Semaphore(0)

    def prepare(item):
        prepared.release()
        return item * 10

    pipeline = Pipeline(Stages(gate, prepare), sink, policy=policy)
    for item in (1, 2):
        pipeline.submit(item)
        assert prepared.acquire(timeout=SOON)
        assert item == 2 or gate.entered.acquire(timeout=SOON)
    assert not gate.entered.acquire(timeout=0.05)  # ready, and not worked on: one slot
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.outcomes == [10, 20]
    assert sink.waits[1] >= 0.05


def test_what_was_prepared_gives_way_to_what_is_newer():
    gate, sink, dropped = Gate(), Sink(), []
    stages = Stages(gate, prepare=lambda item: -item)
    pipeline = Pipeline(stages, sink, on_dropped=lambda item, cause: dropped.append((item, cause)))
    pipeline.submit(1)
    assert gate.entered.acquire(timeout=SOON)
    for item in (2, 3, 4):
        pipeline.submit(item)
        time.sleep(0.05)  # prepared by then, or replaced before; both are superseded
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == [1, 4]
    assert dropped == [(2, "superseded"), (3, "superseded")]
    assert set(stages.discarded) <= {-2, -3}


def test_the_accelerator_takes_what_is_ready_while_a_newer_item_is_prepared():
    gate, sink, slow, preparing = Gate(), Sink(), threading.Event(), threading.Semaphore(0)

    def prepare(item):
        preparing.release()
        if item == "slow":
            assert slow.wait(SOON)
        return item

    pipeline = Pipeline(Stages(gate, prepare), sink)
    for item in ("first", "ready", "slow"):
        pipeline.submit(item)
        assert preparing.acquire(timeout=SOON)
        assert item != "first" or gate.entered.acquire(timeout=SOON)
    gate.open.set()
    assert gate.entered.acquire(timeout=SOON)
    slow.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == ["first", "ready", "slow"]


def test_free_places_are_filled_before_anything_is_superseded():
    gate, dropped, preparing = Gate(), [], threading.Semaphore(0)

    def prepare(item):
        preparing.release()
        return item

    pipeline = Pipeline(
        Stages(gate, prepare), Sink(), slots=3, on_dropped=lambda item, cause: dropped.append(item)
    )
    for item in range(4):
        pipeline.submit(item)
        assert preparing.acquire(timeout=SOON)
    for _ in range(3):
        assert gate.entered.acquire(timeout=SOON)
    assert dropped == []
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert dropped == []


@pytest.mark.parametrize("failing", ["prepare", "work", "finish"])
def test_a_stage_that_fails_is_delivered_in_its_place(failing):
    def stage(name):
        def run(item):
            if name == failing and item % 3 == 0:
                raise Odd(name)
            return item

        return run

    sink = Sink()
    stages = Stages(stage("work"), stage("prepare"), stage("finish"))
    pipeline = Pipeline(stages, sink, slots=2, policy="all")
    for item in range(9):
        pipeline.submit(item)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == list(range(9))
    assert [type(outcome) is Odd for outcome in sink.outcomes] == [True, False, False] * 3
    assert stages.discarded == []


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_close_takes_back_what_was_prepared(policy):
    gate, sink, dropped = Gate(), Sink(), []
    slow, preparing = threading.Event(), threading.Semaphore(0)

    def prepare(item):
        preparing.release()
        if item == 2:
            assert slow.wait(SOON)
        return -item

    stages = Stages(gate, prepare)
    pipeline = Pipeline(
        stages, sink, slots=2, policy=policy, on_dropped=lambda *what: dropped.append(what)
    )
    for item in range(4):
        pipeline.submit(item)
        assert preparing.acquire(timeout=SOON)
        assert item > 1 or gate.entered.acquire(timeout=SOON)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    time.sleep(0.05)
    slow.set()
    gate.open.set()
    closing.join(SOON)
    assert not closing.is_alive()
    assert sink.items == [0, 1]
    assert sorted(dropped) == [(2, "closed"), (3, "closed")]
    assert sorted(stages.discarded) == [-3, -2]


@pytest.mark.parametrize("policy", ["latest", "all"])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_every_item_is_accounted_for_and_bounds_are_kept(slots, policy):
    random, sink, dropped = Random(slots), Sink(), []
    lock = threading.Lock()
    now = {"prepared": 0, "working": 0}
    most = dict(now)

    def count(what, change):
        with lock:
            now[what] += change
            most[what] = max(most[what], now[what])

    class Counting(Stages):
        def discard(self, prepared):
            count("prepared", -1)

    def prepare(item):
        count("prepared", 1)
        time.sleep(random.random() * 0.001)
        return item

    def work(item):
        count("working", 1)
        time.sleep(random.random() * 0.002)
        count("working", -1)
        count("prepared", -1)
        return item

    pipeline = Pipeline(
        Counting(work, prepare), sink, slots=slots, policy=policy,
        on_dropped=lambda *what: dropped.append(what),
    )  # fmt: skip
    for item in range(400):
        pipeline.submit(item)
        if policy == "latest":
            time.sleep(random.random() * 0.001)
        if item == 200:
            pipeline.replace(Counting(work, prepare))
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == sorted(sink.items)
    assert sorted([*sink.items, *(item for item, _ in dropped)]) == list(range(400))
    assert bool(dropped) == (policy == "latest")
    assert now == {"prepared": 0, "working": 0}
    assert most["working"] == slots
    assert most["prepared"] <= 2 * slots + 1


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_what_all_others_wait_for_does_not_wait_for_them(slots):
    sink, slow, worked = Sink(), threading.Event(), []

    def prepare(item):
        if item == 0:
            assert slow.wait(SOON)
        return item

    pipeline = Pipeline(Stages(worked.append, prepare), sink, slots=slots, policy="all")
    producer = threading.Thread(target=lambda: [pipeline.submit(n) for n in range(30)])
    producer.start()
    time.sleep(0.1)  # as many overtake it as may
    slow.set()
    producer.join(SOON)
    assert not producer.is_alive()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == list(range(30))


def test_what_all_others_wait_for_is_worked_on_after_a_slow_delivery():
    slow, worked, delivered, gate = threading.Event(), threading.Semaphore(0), [], Gate()

    def prepare(item):
        if item == 1:
            assert slow.wait(SOON)
        return item

    def deliver(item, outcome, waited):
        if item == 0:
            gate(item)
        delivered.append(item)

    stages = Stages(lambda item: worked.release(), prepare)
    pipeline = Pipeline(stages, deliver, slots=2, policy="all")
    pipeline.submit(0)
    assert gate.entered.acquire(timeout=SOON)
    for item in (1, 2, 3, 4):
        pipeline.submit(item)
    for _ in (0, 2, 3, 4):
        assert worked.acquire(timeout=SOON)
    slow.set()
    time.sleep(0.1)  # item 1 is ready, and has to wait: three results are piled up behind it
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert delivered == [0, 1, 2, 3, 4]


# Several sources


def of_camera(item):
    return item[0]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_sources_take_turns_however_fast_one_is(slots):
    """Each of four sources gets its share, one of them with twenty times as many items."""
    sink, done = Sink(), threading.Event()

    def work(item):
        time.sleep(0.002 * slots)
        return item

    pipeline = pipeline_of(work, sink, slots=slots, source_of=of_camera)

    def submit(camera, period):
        number = 0
        while not done.wait(period):
            pipeline.submit((camera, number))
            number += 1

    periods = {"fast": 0.0001, "a": 0.002, "b": 0.002, "c": 0.002}
    threads = [threading.Thread(target=submit, args=each) for each in periods.items()]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    done.set()
    for thread in threads:
        thread.join()
    assert pipeline.drain(SOON)
    pipeline.close()
    counts = {camera: sum(each[0] == camera for each in sink.items) for camera in periods}
    assert min(counts.values()) >= 0.7 * sum(counts.values()) / len(counts), counts
    for camera in periods:
        numbers = [number for name, number in sink.items if name == camera]
        assert numbers == sorted(numbers)


def test_each_source_keeps_its_newest_item():
    gate, sink, dropped = Gate(), Sink(), []
    pipeline = pipeline_of(
        gate, sink, source_of=of_camera, on_dropped=lambda *each: dropped.append(each)
    )
    pipeline.submit(("a", 0))
    assert gate.entered.acquire(timeout=SOON)
    for number in range(1, 5):
        for camera in "bca":
            pipeline.submit((camera, number))
            time.sleep(0.01)
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    # "b" was ready before another source's item came, and then stayed so.
    assert sink.items == [("a", 0), ("b", 1), ("c", 4), ("a", 4), ("b", 4)]
    assert {cause for _, cause in dropped} == {"superseded"}
    assert len(dropped) + len(sink.items) == 13


def test_what_waits_of_a_source_is_withdrawn_and_the_rest_goes_on():
    gate, sink, dropped = Gate(), Sink(), []
    pipeline = pipeline_of(
        gate, sink, source_of=of_camera, on_dropped=lambda *each: dropped.append(each)
    )
    pipeline.submit(("a", 0))
    assert gate.entered.acquire(timeout=SOON)
    pipeline.submit(("b", 0))
    time.sleep(0.05)  # ready
    pipeline.submit(("c", 0))
    pipeline.submit(("b", 1))
    pipeline.withdraw("b")
    gate.open.set()
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == [("a", 0), ("b", 0), ("c", 0)]
    assert dropped == [(("b", 1), "closed")]


def test_all_keeps_the_order_of_the_calls_whatever_the_source():
    sink, items = Sink(), [(camera, n) for n in range(20) for camera in "aab"]
    pipeline = pipeline_of(
        lambda item: item, sink, slots=2, policy="all", source_of=of_camera
    )  # fmt: skip
    for item in items:
        pipeline.submit(item)
    assert pipeline.drain(SOON)
    pipeline.close()
    assert sink.items == items
