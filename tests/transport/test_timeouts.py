"""The watch on its own: who cancelled whom."""

import asyncio

import pytest

from tolmach.errors import TimedOut
from tolmach.transport.base import Timeouts
from tolmach.transport.timeouts import Watch


async def _wait(watch: Watch) -> TimedOut | None:
    watch.begin()
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        expired = watch.expired()
        if expired is None:
            raise
        return expired
    raise AssertionError("nothing ends this wait but a cancellation")


async def test_a_limit_cancels_the_wait_and_takes_the_cancellation_back() -> None:
    task = asyncio.create_task(_wait(Watch("place", Timeouts(first_byte=0.01))))
    expired = await task
    assert expired is not None
    assert (expired.phase, expired.seconds, str(expired)) == ("first_byte", 0.01, "place: no answer within 0.01 s")
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_at_the_same_moment_wins() -> None:
    """As with `asyncio.timeout`: who cancelled the task finds it cancelled."""
    watch = Watch("place", Timeouts(first_byte=0.01))
    task = asyncio.create_task(_wait(watch))
    await asyncio.sleep(0)
    # Both timers are due in the same round of the loop, before the task can run.
    asyncio.get_running_loop().call_at(watch._at, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_task_that_is_being_cancelled_may_still_time_out() -> None:
    """What a clean-up waits for has its limits too."""

    async def clean_up() -> TimedOut | None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return await _wait(Watch("place", Timeouts(total=0.01)))
        raise AssertionError("nothing ends this wait but a cancellation")

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    expired = await task
    assert expired is not None
    assert expired.phase == "total"
    assert task.cancelling() == 1


async def test_one_timer_however_many_waits() -> None:
    watch = Watch("place", Timeouts(idle=60))
    watch.has_head()
    assert watch._timer is None  # most exchanges are over before they need one
    watch.elapsed()
    timer = watch._timer
    for _ in range(100):
        watch.begin()
        watch.end()
    assert watch._timer is timer
    assert timer is not None
    watch.disarm()
    assert timer.cancelled()


async def test_no_limits_no_timer() -> None:
    watch = Watch("place", Timeouts(connect=None, first_byte=None, idle=None, total=None))
    watch.begin()
    watch.has_head()
    assert watch._timer is None


async def test_a_deadline_counts_as_the_total() -> None:
    expired = await asyncio.create_task(_wait(Watch("place", Timeouts(total=5).within(0.01))))
    assert expired is not None
    assert (expired.phase, expired.seconds) == ("total", 5)
    past = await asyncio.create_task(_wait(Watch("place", Timeouts(total=5).within(-1))))
    assert past is not None
    assert past.phase == "total"


def test_within_only_shortens() -> None:
    limits = Timeouts(total=5)
    assert limits.within(None) is limits
    soon = limits.within(1)
    assert soon.deadline is not None
    assert soon.within(100).deadline == soon.deadline
    later = limits.within(100).within(1).deadline
    assert later is not None
    assert later < soon.deadline + 1
