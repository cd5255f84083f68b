"""EfficientFormerV2 image classification: on the BPU of an RDK X5, and on any other machine.

```python
import efv2_ros

with efv2_ros.load_model("s0") as model:
    classifier = efv2_ros.Classifier(model)
    result = classifier.classify(efv2_ros.read_photo("cat.jpg"))
    print(result.classes[0].label)
```

This is the Python API, which needs no ROS. `docs/python.md` describes it. Importing the package
loads nothing: each name is imported where it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efv2_ros.classify.classifier import Classified, Classifier
    from efv2_ros.classify.model import Model, load_model
    from efv2_ros.classify.options import ModelRequest, ViewOptions
    from efv2_ros.errors import Efv2Error
    from efv2_ros.pictures.photo import read_photo
    from efv2_ros.vision.frame import Frame

__version__ = "0.2.0"

__all__ = [
    "Classified",
    "Classifier",
    "Efv2Error",
    "Frame",
    "Model",
    "ModelRequest",
    "ViewOptions",
    "__version__",
    "load_model",
    "read_photo",
]

_MODULES = {
    "Classified": "classify.classifier",
    "Classifier": "classify.classifier",
    "Efv2Error": "errors",
    "Frame": "vision.frame",
    "Model": "classify.model",
    "ModelRequest": "classify.options",
    "ViewOptions": "classify.options",
    "load_model": "classify.model",
    "read_photo": "pictures.photo",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
