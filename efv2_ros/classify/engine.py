"""A stream of frames through a classifier that can be exchanged while frames flow."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.classify.pipeline import DropCause, Pipeline, QueuePolicy
from efv2_ros.vision.frame import Frame

if TYPE_CHECKING:
    from efv2_ros.models.download import DownloadProgress


class Engine:
    """Owns a model and the pipeline in front of it.

    Args:
        request: The first model.
        options: How frames are looked at.
        on_outcome: See `Pipeline`.
        policy: See `Pipeline`.
        on_dropped: See `Pipeline`.
        on_progress: See `load_model`.
        should_stop: See `load_model`; `close` stops a download too.

    Raises:
        Efv2Error: What `load_model` raises.
    """

    def __init__(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_outcome: Callable[[Frame, Classified | Exception, float], None],
        *,
        policy: QueuePolicy = "latest",
        on_dropped: Callable[[Frame, DropCause], None] = lambda frame, cause: None,
        on_progress: DownloadProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._closing = False
        self.classifier = Classifier(self._load(request), options)
        self._pipeline: Pipeline[Frame, Classified] = Pipeline(
            self.classifier,
            on_outcome,
            slots=request.slots,
            policy=policy,
            on_dropped=on_dropped,
        )
        # One thread: changes take effect in the order in which they were asked for.
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-change")

    def submit(self, frame: Frame) -> None:
        """See `Pipeline.submit`."""
        self._pipeline.submit(frame)

    def drain(self, timeout: float) -> bool:
        """See `Pipeline.drain`."""
        return self._pipeline.drain(timeout)

    def change(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        """Exchange the model, the options, or both, beside the running ones.

        Returns at once. Every frame is classified by the old or by the new classifier, none by
        neither, and no result of the old one follows one of the new.

        Args:
            request: The model wanted from now on.
            options: How frames are looked at from now on.
            on_done: Called in another thread, with None once the last result of the old classifier
                has been delivered, or with the reason why the old one goes on.
        """
        self._changes.submit(self._change, request, options, on_done)

    def close(self) -> None:
        """End a download, let everything else that runs finish, then free the model."""
        self._closing = True
        self._changes.shutdown(wait=True, cancel_futures=True)
        self._pipeline.close()
        self.classifier.model.close()

    def _load(self, request: ModelRequest) -> Model:
        return load_model(
            request, self._on_progress, should_stop=self._is_stopping, pipelined=True
        )

    def _is_stopping(self) -> bool:
        return self._closing or (self._should_stop is not None and self._should_stop())

    def _change(
        self,
        request: ModelRequest,
        options: ViewOptions,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        old = self.classifier
        try:
            same = request == old.model.request
            model = old.model if same else self._load(request)
            new = Classifier(model, options)
        except Exception as error:  # whatever is wrong with the new one, the old one goes on
            on_done(error)
            return
        self.classifier = new
        self._pipeline.replace(self.classifier)
        if model is not old.model:
            old.model.close()
        on_done(None)
