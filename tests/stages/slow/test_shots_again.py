"""Rows with good images, by DVC."""

import pandas as pd
from pipelines import change_params, clone_repository, ran, run


def test_a_row_with_good_images_stands_in_every_table_and_moves_no_other(pipeline, tmp_path):
    source, _ = pipeline
    folder = clone_repository(source, tmp_path / "clone")
    before = pd.read_csv(folder / "metrics/categories/sdd.csv")
    change_params(folder, lambda params: params["evaluation"].update(shots=[1]))
    output = run(folder, "dvc", "repro", "page")
    assert {"evaluate@sdd", "report", "page"} <= set(ran(output))
    assert not {"efa@visa", "rpl@visa", "features@sdd", "package@visa"} & set(ran(output))
    after = pd.read_csv(folder / "metrics/categories/sdd.csv")
    assert set(after["row"]) - set(before["row"]) == {"fuzzyclip_1shot"}
    pd.testing.assert_frame_equal(
        after[after["row"] != "fuzzyclip_1shot"].reset_index(drop=True), before
    )
    summary = (folder / "metrics/tables/summary.md").read_text()
    assert "FuzzyCLIP + 1 good image" in summary
    assert "not zero-shot" in summary
