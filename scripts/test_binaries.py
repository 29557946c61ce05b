#!/usr/bin/env python3
"""Reads `cargo test --no-run --message-format=json-render-diagnostics` and prints `package folder<TAB>executable` of the packages named."""
import json
import os
import sys

for line in sys.stdin:
    if not line.startswith("{"):
        continue
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m.get("executable") and m["profile"]["test"]:
        name = m["package_id"].rsplit("#", 1)[-1].split("@")[0]
        folder = os.path.dirname(m["manifest_path"])
        # A path package's id ends in `#VERSION` when its folder has the package's name.
        if name in sys.argv[1:] or f"firelight-{os.path.basename(folder)}" in sys.argv[1:]:
            print(f"{folder}\t{m['executable']}")
