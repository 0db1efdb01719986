"""The README's code runs as printed, against a local server, and what it names exists."""

import re
from pathlib import Path

import ktlslab

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_five_stages_run_as_printed(s_server, certificates, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(from ktlslab import .*?)```", README, re.DOTALL)
    port = s_server("-www")
    code = code.replace('("example.org", 443)', f'("localhost", {port})').replace("example.org", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - the README's own code
    assert "200 ok" in capsys.readouterr().out


def test_files_and_modules_that_it_names_exist():
    tree = re.search(r"\n    ktlslab/\n(.*?)\n    notebooks/", README, re.DOTALL)
    names = re.findall(r"^      (\S+)", tree.group(1), re.MULTILINE)
    assert len(names) > 8
    for name in names:
        assert (ROOT / "ktlslab" / name).exists(), name
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / path).exists(), path


def test_public_names_resolve():
    for name in ktlslab.__all__:
        assert getattr(ktlslab, name) is not None
