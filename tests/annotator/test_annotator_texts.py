"""The texts of the page: every language has the same keys and values, and no text stands in the code."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

import rasura.annotator

PAGE = Path(rasura.annotator.__file__).parent / "page"
LANGUAGES = ("en", "zh-cn")
CODE = sorted(path for path in PAGE.rglob("*.js") if path.parent.name != "texts")
HTML = sorted(PAGE.rglob("*.html"))
ENTRY = re.compile(r'^  ("[\w.]+"): (.+),$', re.M)

Texts = dict[str, str | list[str]]


@cache
def read_texts(language: str) -> Texts:
    """The texts of a language: its file is one object of JSON's strings, and nothing else."""
    source = (PAGE / "texts" / f"{language}.js").read_text()
    entries = ENTRY.findall(source)
    assert len(entries) == sum(line.startswith('  "') for line in source.splitlines())
    keys = [json.loads(key) for key, _ in entries]
    assert len(set(keys)) == len(keys)
    return {key: json.loads(value) for key, (_, value) in zip(keys, entries, strict=True)}


def list_names(text: str | list[str]) -> set[str]:
    return set(re.findall(r"\{\w+\}|\[[a-z]+\](?!\()", text if isinstance(text, str) else " ".join(text)))


def test_every_language_has_the_same_texts() -> None:
    """The keys, the kind of each text, and the values and keys that it names are the same in all of them."""
    english, *others = (read_texts(language) for language in LANGUAGES)
    for other in others:
        assert set(other) == set(english)
        for key, text in english.items():
            assert isinstance(other[key], type(text)), key
            assert list_names(other[key]) == list_names(text), key
            assert all(other[key]), key
    letters = re.compile(r"[\u4e00-\u9fff]")
    untranslated = [key for key, text in read_texts("zh-cn").items() if not letters.search(str(text))]
    assert set(untranslated) <= {
        *("correct.wider", "correct.closer", "outbox.verdict", "wording.version", "plot.rating", "admin.alpha"),
        *("admin.rightOf", "outbox.on", "list.change"),
    }


def test_every_text_that_is_named_exists_and_is_used() -> None:
    """The keys in the code and in the pages are those of the files; those that are put together have a beginning that
    is there."""
    texts = read_texts("en")
    sources = "\n".join(path.read_text() for path in (*CODE, *HTML, PAGE / "texts" / "texts.js"))
    named = set(re.findall(r'\bt\(\s*"([\w.]+)"', sources)) | set(
        re.findall(r'data-(?:rich|text[a-z-]*)="([\w.]+)"', sources)
    )
    assert named <= set(texts), named - set(texts)
    beginnings = set(re.findall(r"`(\w+)\.\$\{", sources))
    quoted = set(re.findall(r'"(\w+\.\w+)"', sources))
    unused = {key for key in texts if key not in named | quoted and key.partition(".")[0] not in beginnings}
    assert not unused
    for beginning in beginnings:
        assert any(key.startswith(f"{beginning}.") for key in texts), beginning


def test_no_text_stands_in_the_code() -> None:
    """The pages have no words between their tags or in what is read aloud, the scripts no sentence in their strings."""
    names = {"Rasura", "esc", "CSV", "Parquet"}
    for path in HTML:
        page = re.sub(r"<script.*?</script>|<!--.*?-->", "", path.read_text(), flags=re.S)
        words = {word.strip() for word in re.findall(r">([^<]*[A-Za-z]{2,}[^<]*)<", page)}
        assert words <= names, (path.name, words - names)
        assert not re.findall(r'\b(?:aria-label|title|placeholder|alt)="[^"]*[A-Za-z]{2,}[^"]*"', page), path.name
    css = "\n".join(path.read_text() for path in PAGE.rglob("*.css"))
    assert not re.findall(r'content:\s*"[^"]*[A-Za-z]{2,}', css)
    sentence = re.compile(
        r'["`][A-Z]?[a-z]+(?:,? [a-z]{2,}){2,}[.?!]?["`]|["`][A-Z][a-z]+(?: [a-z]+)+[.?!:]?["`]|"[A-Z][a-z]{2,}[.?!:]?"'
    )
    for path in CODE:
        code = re.sub(r"/\*.*?\*/|(?<![:\"'])//[^\n]*", "", path.read_text(), flags=re.S)
        found = [
            text
            for text in sentence.findall(code)
            if not re.search(r'"(?:[A-Z][a-z]+(?:Left|Right|Up|Down)?)"', text) or " " in text
        ]
        assert not [text for text in found if text not in ALLOWED], (path.name, found)


ALLOWED = {'"use strict"'}


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_a_text_takes_its_values(tmp_path: Path) -> None:
    """Values stand in their places, a pair is chosen by the count, and the browser's first known language counts."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copytree(PAGE / "texts", tmp_path / "texts")
    (tmp_path / "check.js").write_text(
        """globalThis.navigator ??= {languages: ["en"]};
const { chooseLanguage, t } = await import("./texts/texts.js");
console.log(JSON.stringify([t("rank.waiting", {count: 1, number: "1"}), t("rank.waiting", {count: 2, number: "2"}),
  chooseLanguage(["fr", "zh-TW", "en"]), chooseLanguage(["de-DE"]), chooseLanguage(["en-GB", "zh"])]));"""
    )
    done = subprocess.run(["node", "check.js"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout) == ["1 scene waits", "2 scenes wait", "zh-CN", "en", "en"]
