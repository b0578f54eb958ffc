"""What opens the admin's routes."""

import pytest

from tolmach.gateway.policy import Policy


@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("loopback", [False, True])
@pytest.mark.parametrize("need_keys", [False, True])
def test_without_a_key_of_theirs_they_are_open_where_everyone_may_ask(
    metrics: bool, loopback: bool, need_keys: bool
) -> None:
    policy = Policy(loopback=loopback)
    admitted = policy.admits("Bearer any", callers_need_keys=need_keys, metrics=metrics)
    assert admitted is (loopback and not need_keys)


@pytest.mark.parametrize(
    ("sent", "admin", "metrics"),
    [
        ("", False, False),
        ("Bearer ", False, False),
        ("Bearer hush", True, True),
        ("bearer  hush ", True, True),
        ("Basic hush", False, False),
        ("Bearer watch", False, True),
        ("Bearer w\xe9", False, False),
    ],
)
def test_with_keys_each_opens_what_is_its_own(sent: str, admin: bool, metrics: bool) -> None:
    policy = Policy(admin_key="hush", metrics_key="watch")
    assert policy.admits(sent, callers_need_keys=False) is admin
    assert policy.admits(sent, callers_need_keys=False, metrics=True) is metrics


def test_a_key_for_metrics_says_nothing_of_the_admin() -> None:
    policy = Policy(metrics_key="watch")
    assert policy.admits("", callers_need_keys=False)
    assert not policy.admits("", callers_need_keys=False, metrics=True)
    assert not policy.admits("Bearer watch", callers_need_keys=True)
