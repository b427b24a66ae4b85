"""Metadata of graphfm. Tools are configured in pyproject.toml, exact versions stand in requirements.lock."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

BENCH = [
    "arboreto>=0.1.6",
    "celltypist>=1.7",
    "giniclust3>=1.1.2",
    "graphst>=1.1.1",
    "harmonypy>=0.0.10",
    "novae>=1.1.2",
    "pot>=0.9",  # graphst does not name it
    "pybanksy>=1.3.5",
    "regdiffusion>=0.2.3",
    "scib-metrics>=0.5",
    "scikit-misc>=0.5",
    "scvi-tools>=1.4",
]
DEV = [
    "beartype>=0.18",
    "distributed>=2024.8",
    "hypothesis>=6.100",
    "import-linter>=2.0",
    "mudata>=0.3",
    "ipykernel>=6.29",
    "pyright[nodejs]>=1.1.400",
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "rdata>=0.11",
    "ruff>=0.8",
]

setup(
    name="graphfm",
    version=next(
        line.split('"')[1]
        for line in (ROOT / "graphfm" / "__init__.py").read_text().splitlines()
        if line.startswith("__version__")
    ),
    description="A graph foundation model for single-cell and spatial omics",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    packages=find_packages(include=["graphfm", "graphfm.*"]),
    package_data={
        "graphfm": ["vocabulary.tsv.gz", "report.html.jinja", "py.typed"],
        "graphfm.datasets": ["registry.json"],
        "graphfm.weights": ["*.safetensors", "*.md"],
    },
    install_requires=[
        "anndata>=0.11,<0.13",
        "h5py>=3.8",
        "igraph>=0.11",
        "jaxtyping>=0.2.30",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "networkx>=3.2",
        "numba>=0.61",
        "numpy>=1.26",
        "pandas>=2.1,<3",
        "pooch>=1.8",
        "psutil>=5.9",
        "pymetis>=2023.1",
        # 0.6 and later hand scanpy 1.11 a sparse array that its neighbour search cannot read
        "pynndescent>=0.5,<0.6",
        "safetensors>=0.4",
        "scanpy>=1.11",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "squidpy>=1.8,<1.9",
        "torch>=2.4",
        "torch-geometric>=2.6",
        "tqdm>=4.66",
        "tyro>=0.9",
    ],
    extras_require={
        "scatter": ["torch-scatter>=2.1.2"],
        "prep": ["distributed>=2024.8", "rdata>=0.11"],
        "bench": BENCH,
        "hub": ["huggingface-hub>=0.25"],
        "dev": DEV,
    },
    entry_points={"console_scripts": ["graphfm=graphfm.__main__:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
)
