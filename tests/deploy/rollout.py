"""What Kubernetes does to the pods of a Deployment at an upgrade, done to processes of this machine.

Settings, secrets, strategy, grace period and probes are those that the chart renders. What is not here: the kubelet's
and the network's own delays, and images (`test_image` runs one).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.deploy.chart import CONFIG, Object, one, pod_of, settings_of
from tests.system.service import Service

_READY_S_MAX = 90.0  # how long we wait; Kubernetes would wait on
_LOOK_S = 0.1


class Pod(Service):
    """The process of one pod, with the files that are mounted into it."""

    def __init__(self, folder: Path, name: str, objects: Sequence[Object], secret: str) -> None:
        mounted = folder / name
        mounted.mkdir()
        settings_of(list(objects), mounted, secret)  # lays them out
        super().__init__(folder, {}, name)
        self._config = mounted / "settings.yaml"
        pod = pod_of(one(list(objects), "Deployment"))
        self.grace_s = float(pod["terminationGracePeriodSeconds"])
        self._probe: Object = pod["containers"][0]["readinessProbe"]
        self._terminated_s = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """The ConfigMap's settings; only the port is one of this machine, which they share."""
        return {CONFIG: str(self._config), **super().environment}

    def await_ready(self, meanwhile: Callable[[], object]) -> None:
        """Ask as the readiness probe does, until it succeeds."""
        until_s, next_s = time.monotonic() + _READY_S_MAX, time.monotonic()
        while True:
            meanwhile()
            if time.monotonic() >= next_s:
                next_s += self._probe["periodSeconds"]
                if self.get(self._probe["httpGet"]["path"])[0] == 200:
                    return
            assert self.running, f"{self.name} ended\n{self.tail()}"
            assert time.monotonic() < until_s, f"{self.name} is not ready: {self.get('/readyz')}\n{self.tail()}"
            time.sleep(_LOOK_S)

    def terminate(self) -> None:
        """Tell it to end."""
        self._terminated_s = time.monotonic()
        self.process.send(signal.SIGTERM)

    def await_end(self, meanwhile: Callable[[], object]) -> None:
        """Wait for its end, which comes by itself within the grace period: Kubernetes would kill it then."""
        while self.running:
            meanwhile()
            assert time.monotonic() < self._terminated_s + self.grace_s, f"it would be killed now\n{self.tail()}"
            time.sleep(_LOOK_S)
        assert self.process.returncode == 0, self.tail()


class Rollout:
    """The pods of one release, first installed, then upgraded.

    Attributes
    ----------
    meanwhile
        Called several times a second while it waits.
    """

    def __init__(self, folder: Path, secret: str) -> None:
        self._folder, self._secret = folder, secret
        self.meanwhile: Callable[[], object] = lambda: None
        self.pods: list[Pod] = []
        self.old: list[Pod] = []

    def install(self, objects: Sequence[Object]) -> None:
        """Start as many as the Deployment says; return when all are ready."""
        for _ in range(one(list(objects), "Deployment")["spec"]["replicas"]):
            self._start(objects)
        for pod in self.pods:
            pod.await_ready(self.meanwhile)

    def upgrade(self, objects: Sequence[Object]) -> None:
        """Replace them as the strategy says; return when all are new and ready."""
        strategy: Any = one(list(objects), "Deployment")["spec"]["strategy"]
        if strategy == {"type": "Recreate"}:
            self._recreate(objects)
        else:
            assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
            self._roll(objects)

    def _recreate(self, objects: Sequence[Object]) -> None:
        """All end, then all begin."""
        replicas = len(self.pods)
        for pod in self.pods:
            pod.terminate()
        for pod in self.pods:
            pod.await_end(self.meanwhile)
        self.old, self.pods = self.pods, []
        for _ in range(replicas):
            self._start(objects).await_ready(self.meanwhile)

    def _roll(self, objects: Sequence[Object]) -> None:
        """One after the other; a pod that is told to end counts no more, so its successor begins beside it."""
        for _ in list(self.pods):
            pod = self.pods.pop(0)
            self.old.append(pod)
            pod.terminate()
            successor = self._start(objects)
            pod.await_end(self.meanwhile)
            successor.await_ready(self.meanwhile)

    def _start(self, objects: Sequence[Object]) -> Pod:
        pod = Pod(self._folder, f"pod-{len(self.old) + len(self.pods)}", objects, self._secret)
        self.pods.append(pod)
        pod.start()
        return pod

    def close(self) -> None:
        for pod in [*self.old, *self.pods]:
            pod.kill()
