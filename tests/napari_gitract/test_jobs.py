"""The one way to run a long job."""

import gc
import sys
import threading
import time
import weakref
from contextlib import suppress
from types import ModuleType

import pytest

from gitract.errors import InputError, Stopped
from gitract.progress import Progress
from napari_gitract import jobs
from napari_gitract.jobs import Job, loading_libraries


@pytest.fixture
def shown(monkeypatch):
    """Sentences that the user was shown."""
    sentences: list[str] = []
    monkeypatch.setattr(jobs, "show_error", sentences.append)
    return sentences


def run(qtbot, job):
    with qtbot.waitSignal(job.ended):
        job.start()


def outcomes(job):
    seen: list[str] = []
    job.succeeded.connect(lambda _: seen.append("succeeded"))
    job.failed.connect(lambda _: seen.append("failed"))
    job.cancelled.connect(lambda: seen.append("cancelled"))
    return seen


def test_a_job_runs_off_the_gui_thread_and_gives_its_result_on_it(qtbot):
    threads = []

    def work(report):
        threads.append(threading.get_ident())
        return 42

    results = []
    job = Job("counting", work)
    job.succeeded.connect(lambda result: results.append((result, threading.get_ident())))
    run(qtbot, job)
    assert results == [(42, threading.get_ident())]
    assert threads[0] != threading.get_ident()
    assert not job.running


def test_every_message_arrives_in_few_deliveries(qtbot):
    def work(report):
        for done in range(2000):
            report(Progress(done, 2000))
        time.sleep(0.1)

    deliveries = []
    job = Job("counting", work)
    job.progressed.connect(deliveries.append)
    run(qtbot, job)
    assert [message.done for messages in deliveries for message in messages] == list(range(2000))
    assert len(deliveries) < 200


def test_cancel_unwinds_the_job(qtbot):
    started = threading.Event()

    def work(report):
        while True:
            started.set()
            report(Progress(0, 0))
            time.sleep(0.002)

    job = Job("endless", work)
    seen = outcomes(job)
    job.start()
    assert started.wait(5)
    with qtbot.waitSignal(job.ended):
        job.cancel()
    assert seen == ["cancelled"]


def test_a_result_that_comes_after_cancel_is_discarded(qtbot):
    cancelled = threading.Event()

    def work(report):
        cancelled.wait(5)
        return "too late"

    discarded = []
    job = Job("late", work, discard=discarded.append)
    seen = outcomes(job)
    job.start()
    job.cancel()
    with qtbot.waitSignal(job.ended):
        cancelled.set()
    assert seen == ["cancelled"]
    assert discarded == ["too late"]


def test_stop_is_raised_once_and_the_result_is_kept(qtbot):
    def work(report):
        try:
            while True:
                report(Progress(0, 0))
                time.sleep(0.002)
        except Stopped:
            report(Progress(1, 1, "Evaluating"))
            return "best so far"

    results = []
    job = Job("training", work)
    job.succeeded.connect(results.append)
    job.start()
    with qtbot.waitSignal(job.ended):
        job.stop()
    assert results == ["best so far"]


def test_stop_before_anything_was_made_is_a_cancel(qtbot):
    def work(report):
        while True:
            report(Progress(0, 0))
            time.sleep(0.002)

    job = Job("training", work)
    seen = outcomes(job)
    job.start()
    with qtbot.waitSignal(job.ended):
        job.stop()
    assert seen == ["cancelled"]


@pytest.mark.parametrize("error", [None, InputError("No such model.")])
def test_libraries_load_without_a_search_for_garbage_which_goes_later(error, monkeypatch):
    class Layer:
        pass

    layer = Layer()
    layer.itself, gone = layer, weakref.ref(layer)
    with suppress(InputError), loading_libraries():
        assert not gc.isenabled()
        monkeypatch.setitem(sys.modules, "just_loaded", ModuleType("just_loaded"))
        if error is not None:
            raise error
    assert gc.isenabled()
    assert not gc.get_freeze_count()
    del layer
    gc.collect()
    assert gone() is None


def test_where_all_is_loaded_garbage_is_left_as_it_is():
    with loading_libraries():
        pass
    gc.freeze()
    with loading_libraries():
        pass
    assert gc.get_freeze_count()
    gc.unfreeze()


def test_bad_input_is_one_sentence(qtbot, shown):
    def work(report):
        raise InputError("The folder is empty.")

    job = Job("reading", work)
    seen = outcomes(job)
    run(qtbot, job)
    assert seen == ["failed"]
    assert shown == ["The folder is empty."]


def test_a_crash_goes_to_napari_and_is_not_swallowed(qtbot, shown, monkeypatch):
    crashes = []
    monkeypatch.setattr(
        jobs.notification_manager, "receive_error", lambda *error: crashes.append(error)
    )

    def work(report):
        raise ZeroDivisionError("a bug")

    run(qtbot, Job("buggy", work))
    assert shown == []
    [(kind, error, traceback)] = crashes
    assert kind is ZeroDivisionError
    assert str(error) == "a bug"
    assert traceback is not None
