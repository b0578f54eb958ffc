"""`tolmach providers` and `tolmach models`."""

import json

from tolmach.providers.registry import provider_names


def test_providers_are_a_table_with_a_line_each(run):
    lines = run("providers").stdout.splitlines()
    assert lines[0].split()[:3] == ["Provider", "Site", "Protocol"]
    assert [line.split()[0] for line in lines[1:]] == provider_names()


def test_providers_as_json(run):
    rows = json.loads(run("providers", "--json").stdout)
    assert [row["name"] for row in rows] == provider_names()
    by_name = {row["name"]: row for row in rows}
    assert by_name["Aichat"]["needs_cookies"] is True
    assert by_name["Chatgpt4Online"]["protocol"] == "ai-engine"
    assert by_name["ChatGptt"]["stream"] is True


def test_models_name_who_has_them(run):
    lines = run("models").stdout.splitlines()
    assert lines[0].split() == ["Model", "Providers"]
    line = next(line for line in lines if line.startswith("gpt-4o-mini "))
    assert "Chatgpt4o" in line
    assert "ChatGptt" in line


def test_models_as_json(run):
    rows = json.loads(run("models", "--json").stdout)
    assert [row["model"] for row in rows] == sorted(row["model"] for row in rows)
    assert "Aichat" in next(row["providers"] for row in rows if row["model"] == "gpt-3.5-turbo")
