"""Where benchmark numbers go: one JSON file per benchmark, with the machine, the versions and the
date beside the numbers."""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from feature_interaction_graph.engine.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    "What the numbers were measured on."
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor()
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "load_at_start": os.getloadavg()[0],
    }


def write(name: str, settings: dict[str, Any], numbers: dict[str, Any]) -> Path:
    "Writes `results/<name>.json` and returns its path."
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps(
            {
                "benchmark": name,
                "date": date.today().isoformat(),
                "machine": machine(),
                "versions": provenance(),
                "settings": settings,
                "numbers": numbers,
            },
            indent=1,
        )
        + "\n"
    )
    return path
