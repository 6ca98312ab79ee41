from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import ClosedError, ForkedError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.credentials import Credentials
from trunkline.etcd.sharing import close_client, open_client

if TYPE_CHECKING:
    from trunkline.etcd.client import EtcdClient

CONFIG = EtcdConfig(("127.0.0.1:1",))


def is_closed(client: EtcdClient) -> bool:
    try:
        client.watch(b"k").close()
    except ClosedError:
        return True
    return False


def test_equal_settings_share_a_client_until_its_last_user_closes() -> None:
    first, second = open_client(CONFIG), open_client(EtcdConfig(("127.0.0.1:1",)))
    assert first is second
    close_client(first)
    assert not is_closed(first)
    close_client(second)
    assert is_closed(first)
    close_client(second)


def test_other_credentials_are_another_client() -> None:
    one, other = open_client(CONFIG), open_client(EtcdConfig(("127.0.0.1:1",), credentials=Credentials("eva", "x")))
    assert one is not other
    close_client(one)
    close_client(other)


def test_after_the_last_close_a_new_client_is_made() -> None:
    first = open_client(CONFIG)
    close_client(first)
    second = open_client(CONFIG)
    assert second is not first
    assert not is_closed(second)
    close_client(first)  # a late, second close harms nobody
    assert not is_closed(second)
    close_client(second)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_its_own() -> None:
    ours = open_client(CONFIG)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            theirs = open_client(CONFIG)
            close_client(ours)  # does nothing there
            assert theirs is not ours
            assert not is_closed(theirs)
            close_client(theirs)
            with pytest.raises(ForkedError):
                ours.watch(b"k")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert not is_closed(ours)
    close_client(ours)
