"""Tables of the accuracy bench: spreads, means over sets, what leaving one set out chooses, the plot."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accuracy_table import Spread, cost_plot, leave_one_out, over_sets, percent, read_results, summary, tables

from draem.errors import DataError
from draem.evaluation.metrics import METRIC_KEYS
from draem.tables.console import show


def result(name: str, recipe: str, seed: int, ap: float | None, simulated: float | None = None) -> dict[str, Any]:
    metrics = {**dict.fromkeys(METRIC_KEYS, 0.5), "pixel_ap": ap}
    cost = {"images_seen": 800, "training_flop": 3e15, "seconds": 90.0}
    about = {"set": name, "recipe": recipe, "seed": seed, "data_fingerprint": name}
    return {**about, "metrics": metrics, "validation": {"val_pixel_ap": simulated}, **cost}


def results_of(figures: dict[str, dict[str, float]], simulated: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """By set and recipe: two seeds around each figure."""
    return [
        result(name, recipe, seed, figure + 0.01 * (-1) ** seed, simulated.get(name, {}).get(recipe))
        for name, row in figures.items()
        for recipe, figure in row.items()
        for seed in (1, 2)
    ]


def test_spread_is_that_of_statistics() -> None:
    values = [0.91, 0.97, None, 0.88]
    found = Spread.of(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean([0.91, 0.97, 0.88]))
    assert found.std == pytest.approx(np.std([0.91, 0.97, 0.88], ddof=1))
    assert percent(found) == "92.0±4.6"
    assert Spread.of([0.5]) == (0.5, None, 1)
    assert Spread.of([None]) is None


def test_leaving_one_set_out_chooses_by_the_others() -> None:
    """Wide is best on bottle alone, thin on both others; by simulated defects mid is the best."""
    figures = {
        "bottle": {"wide": 0.95, "thin": 0.60, "mid": 0.55},
        "kolektor": {"wide": 0.20, "thin": 0.50, "mid": 0.45},
        "tile": {"wide": 0.30, "thin": 0.70, "mid": 0.65},
    }
    simulated = {"bottle": {"wide": 0.7, "mid": 0.8}, "tile": {"wide": 0.9, "mid": 0.95}}
    results = [*results_of(figures, simulated), result("bottle", "half", 1, 0.99)]  # without all sets, no choice
    assert [tuple(choice) for choice in leave_one_out(results)] == [
        ("bottle", "thin", "mid", "wide"),  # 0.25, 0.60 and 0.55 elsewhere
        ("kolektor", "thin", None, "thin"),  # 0.625, 0.65 and 0.60; nothing is known of simulated defects
        ("tile", "wide", "mid", "thin"),  # 0.575, 0.55 and 0.50
    ]
    assert leave_one_out([one for one in results if one["set"] == "tile"]) == []


def test_the_mean_over_sets_is_of_seeds_that_have_all() -> None:
    results = [result("a", "base", 1, 0.2), result("b", "base", 1, 0.6), result("a", "base", 2, 0.9)]
    results += [result("a", "other", 1, 0.5), result("b", "other", 1, None)]
    means = {(one["recipe"], one["seed"]): one["metrics"]["pixel_ap"] for one in over_sets(results)}
    assert means == {("base", 1): statistics.fmean([0.2, 0.6]), ("other", 1): None}
    assert summary(results)["mean"]["base"]["pixel_ap"] == {"mean": pytest.approx(0.4), "std": None, "seeds": 1}


def test_tables_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"bottle": {"wide": 0.9, "thin": 0.6}, "tile": {"wide": 0.4, "thin": 0.8}}
    for table in tables(results_of(figures, {})):
        show(table)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in (["wide"], ["thin"])]
    assert [row[:2] for row in rows[:2]] == [["wide", "2"], ["thin", "2"]]
    assert rows[0][6] == percent(Spread.of([0.89, 0.91])) == "90.0±1.4"
    assert rows[0][-3:] == ["800", "3", "1.5"]
    assert rows[4][6] == "65.0±1.4"  # wide over both sets
    (last,) = (line.split() for line in lines if line.split()[:1] == ["mean"] and "of" not in line)
    assert last == ["mean", "50.0", "–", "85.0"]  # thin on bottle and wide on tile; the best of each


def test_finished_runs_are_found_below_the_folder(tmp_path: Path) -> None:
    kept = [result("a", "base", 1, 0.2), result("a", "fast-2", 1, 0.3), result("b", "base", 1, 0.4)]
    for one in kept:
        folder = tmp_path / one["set"] / one["recipe"] / f"seed-{one['seed']}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(one))
    assert read_results(tmp_path) == kept
    assert read_results(tmp_path, ["fast-2", "base"], ["a"]) == kept[1::-1]
    assert read_results(tmp_path, only=["fast*"]) == [kept[1]]
    with pytest.raises(DataError, match="no finished run"):
        read_results(tmp_path, sets=["c"])
    other = tmp_path / "a" / "base" / "seed-2"
    other.mkdir()
    (other / "result.json").write_text(json.dumps({**kept[0], "seed": 2, "data_fingerprint": "other"}))
    with pytest.raises(DataError, match="saw different images"):
        read_results(tmp_path)


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read"), ("[]", "no set"), ("{}", "no set"), ("7", "read")])
def test_a_damaged_result_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "a" / "base" / "seed-1" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(DataError, match=f"result.json: .*{says}.*; remove it, and the run is evaluated again"):
        read_results(tmp_path)


def test_plot_has_both_accuracies_and_a_column_for_latency_where_it_is_known() -> None:
    results = results_of({"bottle": {"wide": 0.9, "thin": 0.6}}, {})
    one, two = cost_plot(results), cost_plot(results, {"wide": 20.0})
    assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)

    def thin(picture: Any) -> int:
        return int((picture == (0x00, 0x72, 0xB2)).all(2).sum())

    half = one.shape[0] // 2
    assert thin(one[:half]) > 0
    assert thin(one[half : -one.shape[0] // 6]) > 0  # image AUROC, above the legend
    assert thin(two[: -two.shape[0] // 5, two.shape[1] // 2 :]) == 0  # its latency is not known
    with pytest.raises(DataError, match="no recipe has a seed"):
        cost_plot([result("a", "base", 1, 0.2), result("b", "other", 1, 0.2)])
