# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a release says of itself: setup.cfg, the page on PyPI, CITATION.cff."""

import re
import runpy
from configparser import ConfigParser
from pathlib import Path

import pytest
import setuptools
import yaml


ROOT = Path(__file__).parents[1]


@pytest.fixture
def make_page(tmp_path, monkeypatch):
    """Makes the page on PyPI, with further lines under [metadata] of setup.cfg."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    make_long_description = runpy.run_path(str(ROOT / "setup.py"))["make_long_description"]

    def make(lines: str = "") -> str:
        config = (ROOT / "setup.cfg").read_text(encoding="utf-8").replace("[metadata]\n", f"[metadata]\n{lines}\n")
        (tmp_path / "setup.cfg").write_text(config, encoding="utf-8")
        (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
        monkeypatch.chdir(tmp_path)
        return make_long_description()

    return make


def links_of(page: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", page)


def test_the_page_on_pypi_has_no_link_that_leads_nowhere(make_page):
    page = make_page()
    assert [link for link in links_of(page) if not link.startswith("https://")] == []
    assert "![" not in page and "a folder or a CSV list (docs/segment.md)." in page


def test_with_an_address_of_the_source_the_page_leads_into_the_tag(make_page):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    tag = f"v{config['metadata']['version']}"
    links = links_of(make_page("url = https://example.org/it"))
    assert all(link.startswith("https://") for link in links)
    assert f"https://example.org/it/raw/{tag}/docs/demo.png" in links
    assert f"https://example.org/it/blob/{tag}/docs/segment.md" in links
    assert len(links) == len(links_of((ROOT / "README.md").read_text(encoding="utf-8")))


def test_the_paper_is_cited_as_the_front_page_cites_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    entry = re.search(r"@inproceedings\{yang2024remamber,(.*?)\n\}", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    fields = dict(re.findall(r"(\w+) += \{(.*)\}", entry))
    assert paper["title"] == fields["title"]
    assert str(paper["year"]) == fields["year"]
    assert paper["conference"]["name"] == fields["booktitle"]
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert " and ".join(authors) == fields["author"]
    assert "version" not in citation  # which stands in setup.cfg alone
