#!/usr/bin/env python3
"""Renders chat templates with Jinja2 in the environment that transformers gives them, and writes what comes out.

    pip install jinja2==3.1.6
    python make_template_goldens.py                       data/templates/*.jinja -> data/templates/golden.json
    python make_template_goldens.py OUT.json DIR [DIR…]   any folders of *.jinja, sources inside OUT.json

The environment is that of `transformers/utils/chat_template_utils.py` (transformers 5), with a fixed clock.
"""

import glob
import json
import os
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime(2024, 7, 26, 13, 5, 9)
HERE = os.path.dirname(os.path.abspath(__file__))


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the \"current\" weather — né à Zürich <b>&</b>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, e.g. 'Zürich'"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}}, "additionalProperties": False},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
        "return": {"type": "number", "description": "degrees"},
    },
}
NOTHING = {"type": "function", "function": {"name": "noop", "description": "Does nothing", "parameters": {"type": "object", "properties": {}}}}


def call(name, arguments, id="call00001"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def inputs():
    """name -> (messages, keyword arguments)"""
    turns = [user("What is 2 + 2?"), assistant("It is 4."), user("  And 3 + 3?\n")]
    weather = [system("You are a bot."), user("Weather in Zürich?")]
    called = [*weather, assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": 2, "tags": ["a", "b"], "exact": True, "none": None, "x": 1.5})])]
    answered = [*called, {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"degrees\": 21.5}"}]
    image = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in this picture?"}]}]
    yield "one", ([user("Hi there")], {})
    yield "system", ([system("Be brief.\nAlways."), user("Why is the sky blue?")], {})
    yield "turns", ([system("You are kind."), *turns], {})
    yield "turns_no_system", (turns, {})
    yield "no_prompt", ([*turns[:2]], {"add_generation_prompt": False})
    yield "odd_text", ([user("<|im_end|> & <b>\"quotes\"</b> {{ x }} {% y %} 🙂\t東京\r\n"), assistant("  spaced  "), user("")], {})
    yield "think", ([user("Think."), assistant("<think>\nI did.\n</think>\n\nDone."), user("Again."), assistant("Sure.", reasoning_content="Hm, let me see."), user("And?")], {"enable_thinking": True})
    yield "no_think", ([system("S"), user("Do not think.")], {"enable_thinking": False})
    yield "tools", (weather, {"tools": [WEATHER, NOTHING]})
    yield "tools_no_system", (weather[1:], {"tools": [WEATHER]})
    yield "tool_call", (called, {"tools": [WEATHER], "add_generation_prompt": False})
    yield "tool_answer", (answered, {"tools": [WEATHER, NOTHING]})
    yield "tool_done", ([*answered, assistant("It is 21.5 °C."), user("Thanks!")], {"tools": [WEATHER]})
    yield "tool_text_arguments", ([*weather, assistant(None, tool_calls=[call("get_weather", "{\"city\": \"Zürich\"}"), call("noop", "{}", "call00002")]),
                                   {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "21"}, {"role": "tool", "name": "noop", "tool_call_id": "call00002", "content": "ok"}], {"tools": [WEATHER, NOTHING]})
    yield "image", (image, {})
    yield "parts", ([{"role": "system", "content": [{"type": "text", "text": "You see."}]}, *image, {"role": "assistant", "content": [{"type": "text", "text": "A fire."}]}, {"role": "user", "content": [{"type": "text", "text": "Hear this: "}, {"type": "audio"}]}], {})
    yield "two_systems", ([system("A"), user("x"), system("B"), user("y")], {})
    yield "wrong_order", ([user("x"), user("y"), assistant("z")], {})
    yield "empty", ([], {})
    yield "documents", ([user("Read.")], {"documents": [{"title": "T", "text": "Some text."}], "date_string": "01 Jan 2025", "keep_past_thinking": True})


DEFAULTS = {"tools": None, "documents": None, "add_generation_prompt": True}


def render(env, source, messages, kwargs):
    try:
        template = env.from_string(source)
        values = {**DEFAULTS, "bos_token": "<s>", "eos_token": "</s>", **kwargs}
        return {"text": template.render(messages=messages, **values)}
    except Raised as e:
        return {"raised": str(e)}
    except Exception as e:  # whatever else: the test wants an error too
        return {"failed": f"{type(e).__name__}: {e}"}


def main():
    if len(sys.argv) > 1:
        out, folders, inline = sys.argv[1], sys.argv[2:], True
    else:
        out, folders, inline = os.path.join(HERE, "data", "templates", "golden.json"), [os.path.join(HERE, "data", "templates")], False
    env = environment()
    golden = {"now": NOW.strftime("%Y %m %d %H %M %S"), "inputs": {}, "templates": {}}
    for name, (messages, kwargs) in inputs():
        golden["inputs"][name] = {"messages": messages, **kwargs}
    for path in sorted(path for folder in folders for path in glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as file:
            source = file.read()
        name = os.path.splitext(os.path.basename(path))[0]
        entry = golden["templates"][name] = {"source": source} if inline else {}
        entry["results"] = {name: render(env, source, messages, kwargs) for name, (messages, kwargs) in inputs()}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=False, indent=None if inline else 1)
        file.write("\n")
    n = sum(len(t["results"]) for t in golden["templates"].values())
    texts = sum("text" in r for t in golden["templates"].values() for r in t["results"].values())
    print(f"{len(golden['templates'])} templates, {n} renderings, {texts} with text")


if __name__ == "__main__":
    main()
