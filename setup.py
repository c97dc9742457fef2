"Installs the package; every setting is read from settings.ini."
import shlex
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

parser = ConfigParser(delimiters=["="])
parser.read("settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
package = cfg["lib_path"]


class WithResults(build_py):
    "Puts the numbers of the benchmarks into the package: its tutorials need no checkout."

    def run(self):
        super().run()
        if self.editable_mode: return
        for file in sorted(Path("benchmarks/results").glob("*.json")):
            self.copy_file(str(file), str(self.place(file)))

    def place(self, file):
        place = Path(self.build_lib) / package / "results" / file.name
        self.mkpath(str(place.parent))
        return place


setuptools.setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"].upper(),
    url=cfg["git_url"],
    keywords=cfg["keywords"],
    python_requires=">=" + cfg["min_python"],
    packages=setuptools.find_packages(include=[package, f"{package}.*"]),
    package_data={package: ["py.typed", "demo/**", "assets/**"]},
    cmdclass={"build_py": WithResults},
    install_requires=shlex.split(cfg["requirements"]),
    extras_require={name: shlex.split(cfg[f"{name}_requirements"])
                    for name in ("dev", "notebooks", "smollm2", "lenses", "umap", "wandb", "ray")},
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{package}={package}._modidx:d"],
    },
)
