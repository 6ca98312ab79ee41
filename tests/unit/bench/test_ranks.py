from __future__ import annotations

from typing import Any, Self

import pytest
from tests.unit.bench.kv.ranks import run_ranks

from trunkline.bench import ranks
from trunkline.bench.options import Options
from trunkline.bench.ranks import _check_same, check_run, run_worker
from trunkline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "POSIX"}, "--backend POSIX has no ranks"),
        ({"engine": "both"}, "--engine both is for block transfers"),
        ({"engine": "nixl", "backend": "CMA"}, "--engine nixl is measured with UCX here, not CMA"),
        ({"workers": 2}, "2 workers can't be the 3 ranks asked for; start 3"),
        ({"workers": 3, "csv": "-", "report": "-"}, "--csv - and --report - would go to standard output together"),
        ({"workers": 3, "total_buffer_size": 99}, "rank 1 needs 100 bytes of memory, and --total-buffer-size is 99"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_run(Options(**options), [50, 100, 0])


def test_memory_beyond_all_numbers_of_a_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rank 0 needs 36,893,488,147,419,103,232 bytes"):
        check_run(Options(workers=2), [1 << 65, 0])


def test_options_that_can() -> None:
    check_run(Options(local=3, engine="nixl", total_buffer_size=100), [50, 100, 0])


def test_workers_that_want_different_things() -> None:
    run_ranks(3, lambda group: _check_same(group, {"seed": "1"}))
    with pytest.raises(ConfigurationError, match="seed is 1 at rank 0 and 2 at rank 2"):
        run_ranks(3, lambda group: _check_same(group, {"seed": "1" if group.rank < 2 else "2"}))


def test_others_hear_why_a_worker_gave_up_before_its_engine_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Group:
        rank = 0

        def allgather(self, value: bytes) -> list[bytes]:
            return [value]

        def __enter__(self) -> Self:
            return self

        def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
            order.append(f"group: {error}")

    class Engine:
        def close(self) -> None:
            order.append("engine")

    def work(*_: object) -> None:
        raise RuntimeError("why")

    monkeypatch.setattr(ranks, "join_group", lambda stack, *_: (None, stack.enter_context(Group())))
    monkeypatch.setattr(ranks, "open_worker_engine", lambda *_, **__: Engine())
    with pytest.raises(RuntimeError):
        run_worker(Options(local=2), ["matrix"], {}, work)
    assert order[:2] == ["group: why", "engine"]
