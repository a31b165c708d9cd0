"""Renders chat templates with Jinja as transformers does (`apply_chat_template`).

Reads {"templates": {name: text}, "cases": {name: variables}} and answers {template: {case: text, or null where Jinja refuses}}.
"""

import datetime
import json
import sys

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def refuse(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
jinja.filters["tojson"] = tojson
jinja.globals["raise_exception"] = refuse
jinja.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)


def render(template, variables):
    try:
        return jinja.from_string(template).render(**variables)
    except TemplateError:
        return None


asked = json.load(sys.stdin)
print(json.dumps({
    name: {case: render(template, variables) for case, variables in asked["cases"].items()}
    for name, template in asked["templates"].items()
}))
