"""Keys of samples: a misspelt one is named, the other columns of a data set are left alone."""

import pytest
import torch
from training_samples import make_grounding_sample, make_sample

COLUMNS = """
    id question questions answer metadata scan_id scene scene_name image image_id frame frame_ids frame_indices video
    box boxes object_ids instance_ids depth_path depth_map poses extrinsics world_to_camera mask masks conversations
    task type value label text teacher_features_path mentions cell_words
""".split()


@pytest.mark.parametrize(
    "misspelt, meant",
    [
        ("depths", "depth"),
        ("Depth", "depth"),
        ("depht", "depth"),
        ("intrinsic", "intrinsics"),
        ("camera_to_worlds", "camera_to_world"),
        ("camera2world", "camera_to_world"),
        ("teacher_feature", "teacher_features"),
        ("region_mask", "region_masks"),
        ("region_reference", "region_references"),
        ("region-targets", "region_targets"),
        ("frame_name", "frame_names"),
        ("sceneid", "scene_id"),
    ],
)
def test_a_misspelt_key_is_named_with_what_was_meant(collator, misspelt, meant):
    good = make_grounding_sample(2, teacher=True, scene_id="attic", frame_names=["0", "1"], region_references=[-1])
    typo = {misspelt if key == meant else key: value for key, value in good.items()}
    name = "1" if meant == "scene_id" else "'attic'"
    with pytest.raises(ValueError, match=f"Sample {name}: Unknown key '{misspelt}': did you mean '{meant}'"):
        collator([good, typo])


def test_a_column_beside_the_key_and_one_without_a_value_are_no_misspellings(collator):
    sample = make_sample(2)
    expected = collator([sample])
    assert collator([{**sample, "depths": sample["depth"], "region_mask": None}]).keys() == expected.keys()


def test_further_columns_of_a_data_set_are_left_alone(collator):
    sample = make_sample(2, geometry=False)
    batch, plain = collator([{**dict.fromkeys(COLUMNS, "a"), **sample}]), collator([sample])
    assert batch.keys() == plain.keys() and torch.equal(batch["input_ids"], plain["input_ids"])
