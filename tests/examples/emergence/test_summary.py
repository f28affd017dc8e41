"""Numbers of a study from results of runs: planned seeds, and labels saved."""

import dataclasses

import pytest

from examples.emergence.curves import label_curves, rooms_needed
from examples.emergence.scores import METRICS
from examples.emergence.summary import summarise_study
from examples.emergence.tables import saved_cells


def test_planned_seeds_are_also_compared_alone(write_study):
    rows = {"exposure": {"more_seeds": [3]}, "all": {"depth": 1.0, "more_seeds": [3]}}
    _, study = write_study(rows=rows, pairs=[])
    hits = {"exposure": {1: "00", 2: "00", 3: "00"}, "all": {1: "10", 2: "11", 3: "00"}}
    cost = {"phases": {"questions": {"steps": 1, "cpu_seconds": 1.0}}, "parameters": {"export": 1}}
    runs = [
        {
            "row": row,
            "seed": seed,
            "training": cost,
            "result": {
                "rooms": 2,
                "probes": {},
                "accuracy": dict.fromkeys(METRICS, 0.5),
                "hits": dict.fromkeys(METRICS, text),
                "counts": dict.fromkeys(METRICS, "11"),
            },
        }
        for row, own in hits.items()
        for seed, text in own.items()
    ]
    (difference,) = summarise_study(study, "test", runs, {})["differences"]
    assert difference["seeds"] == [1, 2, 3] and difference["planned"]["seeds"] == [1, 2]
    values = [part["metrics"]["distance"]["value"] for part in (difference, difference["planned"])]
    assert values == pytest.approx([0.5, 0.75])


def test_curves_are_of_rows_that_differ_in_labelled_rooms_alone(write_study):
    rows = {"exposure": None, "all_2": {"depth": 1.0, "labelled_rooms": 2, "label": "few"}, "all": {"depth": 1.0}}
    _, study = write_study(
        rows={**rows, "exposure": {"more_seeds": [3]}, "all": {"depth": 1.0, "more_seeds": [3]}}, pairs=[]
    )
    labels = {name: row.label or name for name, row in study.rows.items()}
    summary = {"settings": dataclasses.asdict(study), "rows": dict.fromkeys(rows), "labels": labels}
    curves = label_curves(summary)
    assert curves == {"all_2": [(2, "all_2"), (3, "all")]}


def test_labels_saved_are_read_from_the_controls_curve(write_study):
    rows = {
        "exposure": None,
        "exposure_1": {"labelled_rooms": 1},
        "all": {"depth": 1.0},
        "all_1": {"depth": 1.0, "labelled_rooms": 1},
        "exposure_8": {"labelled_rooms": 8},
    }
    _, study = write_study(rows=rows, pairs=[])
    # The second seed of the control has no partner, so it must not move the curve.
    shares = {"exposure_1": [0.2], "exposure": [0.3, 0.9], "exposure_8": [0.4], "all": [0.41], "all_1": [0.35]}
    summary = {
        "settings": dataclasses.asdict(study),
        "labels": {name: name for name in rows},
        "control": "exposure",
        "rows": {
            name: {
                "seeds": list(range(1, 1 + len(values))),
                "accuracy": {metric: {"per_seed": values} for metric in METRICS},
            }
            for name, values in shares.items()
        },
    }
    _, cells = saved_cells(summary, label_curves(summary))
    # .35 lies half way between .3 (3 rooms) and .4 (8 rooms): sqrt(24) rooms.
    assert [[*cell[:3], cell[-1]] for cell in cells] == [["all_1", "1", "5", "1"], ["all", "3", "over 8", "1"]]
    assert rooms_needed([1, 3], [0.2, 0.3], 0.1) == "under 1"
    assert rooms_needed([1000, 4000], [0.2, 0.3], 0.27) == "2600"
    del summary["rows"]["exposure"], summary["rows"]["exposure_1"]  # what is left of the control is no curve
    assert saved_cells(summary, label_curves(summary))[1] == []
