"""Chat templates in the sandbox: what transformers writes, and nothing that a template should not reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_lab import TEMPLATE, write_byte_tokenizer

from secformer.models.data.saved_tokenizer import opened, save
from secformer.models.data.templates import rendered

pytest.importorskip("jinja2")

TALK = [{"role": "system", "content": "Be <b>brief</b>."}, {"role": "user", "content": " é \"你\" "},
        {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go on."}]
SPECIAL = {"bos_token": "<|start|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
LOOP = "{% for m in messages %}"
TEMPLATES = [
    TEMPLATE,
    LOOP + "{{ bos_token + m['role'] }}\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}",
    "{%- set ns = namespace(n=0) -%}" + LOOP + "{%- set ns.n = ns.n + 1 %}{{ ns.n }}{{ m | tojson }}{% endfor %}",
    LOOP + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}-{% endif %}"
           "{% endfor %}",
    LOOP + "{% if loop.index0 > 1 %}{% break %}{% endif %}\n  {{ loop.last }}{{ m.content.upper() }}\n{% endfor %}",
    "{{ strftime_now('%Y') }}{{ tools is none }}{{ documents }}{{ add_generation_prompt }}{{ messages[-1].content }}",
    "{% macro say(x) %}[{{ x }}]{% endmacro %}" + LOOP + "{{ say(m.content) }}{% endfor %}{{ range(2) | list }}",
    "{{ messages | map(attribute='role') | join(',') }}{{ {'a': messages[0]} | tojson(indent=2) }}{{ undefined }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_it_writes_what_transformers_writes(template: str, tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path, template=template)
    for talk in (TALK, TALK[1:2]):
        wanted = opened(tmp_path).apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert rendered(template, talk, SPECIAL) == wanted != ""
    assert save(opened(tmp_path), tmp_path)


def test_a_template_may_refuse() -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError, match="no narrator"):
        rendered(TEMPLATE, [{"role": "narrator", "content": ""}], {})


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__ }}", "{{ messages.__init__.__globals__ }}", "{{ raise_exception.__globals__ }}",
    "{{ messages.append(1) }}", "{{ strftime_now.__code__ }}", "{{ lipsum.__globals__ }}", "{{ cycler.__init__ }}",
    "{% include '/etc/passwd' %}", "{% for i in range(10**9) %}{% endfor %}",
])
def test_what_a_template_cannot_reach(template: str) -> None:
    try:
        found = rendered(template, TALK, SPECIAL)
    except Exception as error:
        assert type(error).__module__.startswith("jinja2") or isinstance(error, OverflowError | TypeError)
    else:
        assert found == "", "an attribute of that kind is undefined"
