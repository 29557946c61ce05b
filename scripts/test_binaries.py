#!/usr/bin/env python3
"""Reads `cargo test --no-run --message-format=json-render-diagnostics` and prints `package folder<TAB>executable` of those integration tests
of the packages named that have to do with a GPU. (Unit tests have not: they open none.)"""
import json
import os
import sys
from pathlib import Path


def of_gpus(source):
    files = Path(source).parent.rglob("*.rs") if os.path.basename(source) == "main.rs" else [Path(source)]
    return any("gpu" in f.read_text().lower() for f in files)


for line in sys.stdin:
    if not line.startswith("{"):
        continue
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m.get("executable") and m["profile"]["test"] and m["target"]["kind"] == ["test"]:
        name = m["package_id"].rsplit("#", 1)[-1].split("@")[0]
        folder = os.path.dirname(m["manifest_path"])
        # A path package's id ends in `#VERSION` when its folder has the package's name.
        named = name in sys.argv[1:] or f"firelight-{os.path.basename(folder)}" in sys.argv[1:]
        if named and of_gpus(m["target"]["src_path"]):
            print(f"{folder}\t{m['executable']}")
