#!/usr/bin/env python3
"""check_features.py METADATA: what `cargo metadata` says about our own packages.

- `firelight-testing` depends on none of ours and is nobody's normal or build dependency;
- published packages have a README, description, keywords, categories, a licence and docs.rs metadata;
- for each feature that brings an optional dependency: with every other feature on, that dependency is really gone.
"""
import json
import subprocess
import sys

meta = json.load(open(sys.argv[1]))
ours = {p["name"]: p for p in meta["packages"] if p["id"] in meta["workspace_members"]}
problems = []

for name, p in ours.items():
    for d in p["dependencies"]:
        if d["name"] == "firelight-testing" and d["kind"] != "dev":
            problems.append(f"{name}: firelight-testing may only be a dev-dependency")
        if name == "firelight-testing" and d["name"] in ours:
            problems.append(f"firelight-testing depends on {d['name']}: it must not use the code it checks")
    if p["publish"] != []:
        for field in ("readme", "description", "keywords", "categories", "license", "repository", "rust_version"):
            if not p[field]:
                problems.append(f"{name}: a published package needs `{field}`")
        if not ((p["metadata"] or {}).get("docs") or {}).get("rs"):
            problems.append(f"{name}: a published package needs [package.metadata.docs.rs]")


def closure(features, start):
    """All features that `start` switches on, and the optional dependencies they bring."""
    on, deps, todo = set(), set(), [start]
    while todo:
        f = todo.pop()
        if f.startswith("dep:"):
            deps.add(f[4:])
        elif "/" in f:
            dep = f.split("/")[0]
            if not dep.endswith("?"):
                deps.add(dep)
        elif f not in on:
            on.add(f)
            todo += features.get(f, [])
    return on, deps


def tree(name, features):
    out = subprocess.run(
        ["cargo", "tree", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}", "--no-default-features",
         "--features", ",".join(features)], check=True, capture_output=True, text=True).stdout
    return {line.split()[0] for line in out.splitlines() if line}


checked = 0
for name, p in ours.items():
    optional = {d["rename"] or d["name"]: d["name"] for d in p["dependencies"] if d["optional"]}
    for alias, real in optional.items():
        without = [f for f in p["features"] if f != "default" and alias not in closure(p["features"], f)[1]]
        checked += 1
        if real in tree(name, without):
            problems.append(f"{name}: {real} is optional, but is there without its feature (features on: {without})")
        else:
            print(f"{name}: {real} is gone without its feature")
print(f"{len(ours)} packages, {checked} optional dependencies")
for line in problems:
    print(line)
sys.exit(bool(problems))
