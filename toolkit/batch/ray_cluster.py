"""Connected to a Ray cluster, or to one of one's own, and quiet about it."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from toolkit.cores import usable_cores
from toolkit.errors import ClusterError, MissingExtra, reason_of

CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 100 << 20  # of a cluster started here: it holds the model files
ADVICE = "Look at it with `ray status`, or name another with --ray-address."


def check_ray() -> None:
    """Whether Ray is installed; it is not imported, which takes a second.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("batch-predict --engine ray", "ray", "Ray")


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Yield the module `ray`, connected; where the caller is connected already, to that cluster.

    Args:
        address: see `score_on_ray`.
        workers: CPUs of a cluster that is started here; every usable core by default.
    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: the cluster cannot be reached.
    """
    check_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != "auto":
        _check_answers(address)
    local = {"address": "local", "num_cpus": workers or usable_cores(), "object_store_memory": OBJECT_STORE_BYTES}
    options = {"address": address} if address else {**local, "include_dashboard": False}
    with _silent(ray):
        try:
            try:
                with _own_sigterm():
                    ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                named = f"the Ray cluster {address}: cannot be used" if address else "Ray cannot be started here"
                raise ClusterError(f"{named} ({reason_of(error)}). {ADVICE}") from error
            yield ray
        finally:
            with _own_sigterm():
                ray.shutdown()


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Keep Ray from writing to stdout, where results go, that a worker died; no option of Ray 2.60 does."""
    module = ray._private.worker
    before = getattr(module, "print_to_stdstream", None)
    module.print_to_stdstream = lambda *message, **options: None
    try:
        yield
    finally:
        module.print_to_stdstream = before


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray puts its own answer, which writes its stack to stderr."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """Whether anybody listens there: Ray itself waits for minutes, and writes about it.

    Raises:
        ClusterError: nobody does, or it is no HOST:PORT.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in host:
        raise ClusterError(
            f"--ray-address {address}: not HOST:PORT. Run this on a machine of the cluster, with the address that "
            "`ray start --head` printed, or with auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"the Ray cluster {address}: does not answer ({reason_of(error)}). {ADVICE}") from error
