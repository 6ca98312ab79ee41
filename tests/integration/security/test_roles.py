"""What the roles of `trunkline rbac` allow, and what they don't, on a real etcd."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from tests.integration.security.conftest import PASSWORD, Guarded

from trunkline.directory import Directory
from trunkline.directory.event import PeerJoined
from trunkline.directory.sharing import close_all
from trunkline.errors import StoreAuthError
from trunkline.metadata.key import DEFAULT_NAMESPACE, NIXL_NAMESPACE, MetadataKey
from trunkline.store.contract import Delete, Put, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.store.contract import Store

ONE, TWO = "1" * 32, "2" * 32
T = 20.0


@pytest.fixture(autouse=True)
def no_observer_stays() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def name() -> str:
    return f"decode-{uuid.uuid4().hex[:8]}"


def put(store: Store, *keys: str) -> None:
    store.transact(Transaction((), tuple(Put(key, b"v") for key in keys)), timeout=T)


def delete(store: Store, key: str, *, prefix: bool = False) -> None:
    store.transact(Transaction((), (Delete(key, prefix=prefix),)), timeout=T)


def live(directory: Directory, name: str) -> None:
    """Do all that an agent ever does in the directory."""
    with directory.watch(name, include_nixl=True) as watch:
        first = directory.open_publisher(name, incarnation=ONE, timeout=T)
        first.publish(b"metadata", catalog=b"names", timeout=T)
        first.publish(b"part", label="part", timeout=T)
        first.update(attributes={"role": "decode"}, timeout=T)
        while not isinstance(watch.next(T), PeerJoined):
            pass
        assert directory.fetch(name, timeout=T).catalog == b"names"
        assert name in directory.names(timeout=T)
        assert directory.presence(name, timeout=T) is not None
        assert directory.presence("nobody", timeout=T) is None
        first.withdraw(label="part", timeout=T)
        with directory.open_publisher(name, incarnation=TWO, takeover=True, timeout=T) as second:
            second.publish(b"new", timeout=T)
        first.close()
    assert directory.presence(name, timeout=T) is None


@pytest.mark.parametrize(
    ("user", "namespace"), [("agent", "/prod"), ("bound", "/prod"), ("default", DEFAULT_NAMESPACE)]
)
def test_an_agent_can_do_all_that_agents_do(guarded: Guarded, user: str, namespace: str, name: str) -> None:
    with guarded.open(user) as store:
        live(Directory(store, namespace=namespace), name)
        if user == "bound":
            live(Directory(store, namespace=namespace), "so lo")
        if user == "default":
            live(Directory(store, namespace=NIXL_NAMESPACE), name)


@pytest.mark.parametrize(
    ("user", "namespace"),
    [(user, "/dev") for user in ("agent", "bound", "observer", "operator", "nixl", "default")]
    + [(user, "/prod") for user in ("dev", "default", "default nixl")],
)
def test_nobody_gets_at_another_namespace(guarded: Guarded, user: str, namespace: str, name: str) -> None:
    with guarded.open(user) as store:
        directory = Directory(store, namespace=namespace)
        for look in (
            lambda: directory.names(timeout=T),
            lambda: directory.presence(name, timeout=T),
            lambda: directory.fetch(name, timeout=T),
            lambda: directory.open_publisher(name, incarnation=ONE, timeout=T),
            lambda: put(store, f"{namespace}/{name}/metadata"),
            lambda: delete(store, f"{namespace}/", prefix=True),
            lambda: store.list("/", timeout=T),
        ):
            with pytest.raises(StoreAuthError, match="permission denied"):
                look()
        with directory.watch() as watch, pytest.raises(StoreAuthError, match="permission denied"):
            watch.next(T)


def test_an_agent_bound_to_names_reads_the_others_and_writes_none_of_them(guarded: Guarded, name: str) -> None:
    other = f"prefill-{name}"
    with (
        guarded.open("agent") as theirs,
        guarded.open("bound") as store,
        Directory(theirs, namespace="/prod").open_publisher(other, incarnation=ONE, timeout=T) as publisher,
    ):
        publisher.publish(b"metadata", catalog=b"names", timeout=T)
        directory = Directory(store, namespace="/prod")
        assert directory.fetch(other, timeout=T).metadata == b"metadata"
        for wanted in (other, "decode", "so lo2"):
            with pytest.raises(StoreAuthError):
                directory.open_publisher(wanted, incarnation=TWO, takeover=True, timeout=T)
        key = MetadataKey("/prod", other)
        for mine in (str(key), key.marker, key.presence, key.catalog, f"{key.chunks_prefix}0"):
            with pytest.raises(StoreAuthError):
                put(store, mine)
            with pytest.raises(StoreAuthError):
                delete(store, mine)
        assert directory.fetch(other, timeout=T).metadata == b"metadata"


def test_an_observer_sees_everything_and_writes_nothing(guarded: Guarded, name: str) -> None:
    with (
        guarded.open("agent") as theirs,
        guarded.open("observer") as store,
        Directory(theirs, namespace="/prod").open_publisher(name, incarnation=ONE, timeout=T) as publisher,
    ):
        publisher.publish(b"metadata", timeout=T)
        directory = Directory(store, namespace="/prod")
        assert directory.fetch(name, timeout=T).metadata == b"metadata"
        assert name in directory.names(timeout=T)
        with directory.watch(name, include_nixl=True) as watch:
            assert isinstance(watch.next(T), PeerJoined)
        key = MetadataKey("/prod", name)
        entry, _ = store.get(key.presence, timeout=T)
        assert entry is not None
        assert store.time_to_live(entry.lease, timeout=T)
        for write in (
            lambda: put(store, f"/prod/{name}-2/metadata"),
            lambda: delete(store, str(key)),
            lambda: delete(store, "/prod/", prefix=True),
            lambda: store.revoke(entry.lease, timeout=T),
            lambda: directory.open_publisher(f"{name}-2", incarnation=TWO, timeout=T),
        ):
            with pytest.raises(StoreAuthError, match="permission denied"):
                write()


def test_an_operator_may_clean_up(guarded: Guarded, name: str) -> None:
    with guarded.open("agent") as theirs, guarded.open("operator") as store:
        put(theirs, f"/prod/{name}/metadata")
        directory = Directory(store, namespace="/prod")
        assert name in directory.names(timeout=T)
        delete(store, f"/prod/{name}/", prefix=True)
        assert name not in directory.names(timeout=T)


@pytest.mark.parametrize(
    ("user", "namespaces"), [("nixl", ["/prod"]), ("default nixl", [DEFAULT_NAMESPACE, NIXL_NAMESPACE])]
)
def test_a_nixl_agent_has_its_keys_and_not_trunklines_records(
    guarded: Guarded, user: str, namespaces: list[str], name: str
) -> None:
    with guarded.open(user) as store:
        for namespace in namespaces:
            mine, other = MetadataKey(namespace, name), MetadataKey(namespace, "prefill")
            put(store, mine.marker, str(mine))
            store.get(str(other), timeout=T)
            with store.watch(other.marker) as watch:
                assert watch.next(T) is not None
            delete(store, mine.agent_prefix, prefix=True)
            for record in (mine.presence, mine.catalog, f"{mine.chunks_prefix}0"):
                for touch in (
                    lambda: put(store, record),  # noqa: B023 - called at once
                    lambda: delete(store, record),  # noqa: B023
                    lambda: store.get(record, timeout=T),  # noqa: B023
                ):
                    with pytest.raises(StoreAuthError):
                        touch()


def test_what_others_can_and_can_not_do_with_a_lease(guarded: Guarded, name: str) -> None:
    """The security page says so: rights are those of keys, and refreshing and looking need none."""
    with (
        guarded.open("agent") as store,
        guarded.open("dev") as stranger,
        Directory(store, namespace="/prod").open_publisher(name, incarnation=ONE, timeout=T) as publisher,
    ):
        publisher.publish(b"metadata", timeout=T)
        entry, _ = store.get(f"/prod/{name}/metadata", timeout=T)
        assert entry is not None
        assert stranger.time_to_live(entry.lease, timeout=T)
        refreshed = guarded.control("lease", "keep-alive", "--once", f"{entry.lease:x}", user=f"dev:{PASSWORD}")
        assert "keepalived" in refreshed
        with pytest.raises(StoreAuthError):
            stranger.revoke(entry.lease, timeout=T)
        stranger.transact(Transaction((), (Put("/dev/x", b"", entry.lease),)), timeout=T)
        with pytest.raises(StoreAuthError):  # etcd checks that for a put, and not for one in a transaction
            store.revoke(entry.lease, timeout=T)
        delete(stranger, "/dev/x")
        empty = store.grant(30, timeout=T)
        assert stranger.revoke(empty.id, timeout=T)
        empty.close(T)
