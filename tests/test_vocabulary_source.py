"""data_prep/vocabulary.py rebuilds the packaged table from its sources."""

import importlib.util
import os
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("data_prep_vocabulary", ROOT / "data_prep" / "vocabulary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missing_or_changed_source_is_named(script, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"hgnc_entries\.tsv.*--source"):
        script._sources(tmp_path)
    (tmp_path / "hgnc_entries.tsv").write_text("other")
    with pytest.raises(ValueError, match="sha256"):
        script._sources(tmp_path)


def test_writing_is_deterministic(script, tmp_path):
    table = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
    script.write(table, tmp_path / "one.tsv.gz")
    script.write(table, tmp_path / "two.tsv.gz")
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert pd.read_csv(tmp_path / "one.tsv.gz", sep="\t").equals(table)
    assert len(list(tmp_path.iterdir())) == 2


def test_ambiguous_aliases_are_left_out(script):
    genes = pd.DataFrame({"key": ["1", "2"], "id": ["A", "B"]})
    lines = ["1 one", "1 ONE", "1 both", "2 BOTH", "2 Sym", "3 two", "2 two former", "2 123 former", "2 a|b former"]
    candidates = pd.DataFrame([(*line.split()[:2], "former" in line) for line in lines])
    candidates.columns = ["key", "alias", "former"]
    assert script.aliases(candidates, pd.Series(["SYM"]), genes, "key").tolist() == ["ONE", "two"]


@pytest.mark.slow
def test_the_packaged_table_is_rebuilt_byte_for_byte(script, tmp_path):
    folder = os.environ.get("GRAPHFM_VOCABULARY_SOURCE")
    if not folder:
        pytest.skip(
            "GRAPHFM_VOCABULARY_SOURCE is unset: it names the folder with the inputs of data_prep/vocabulary.py"
        )
    script.main(["--source", folder, "--output", str(tmp_path / "vocabulary.tsv.gz")])
    assert (tmp_path / "vocabulary.tsv.gz").read_bytes() == script.OUTPUT.read_bytes()
