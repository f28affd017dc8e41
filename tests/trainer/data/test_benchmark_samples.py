"""Samples of the benchmarks on a folder of drawn rooms in the public layout: what is in them, and a training."""

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from equal_gradients import largest_difference

from processing.benchmarks import build_prompt, load_task
from processing.benchmarks.export.rooms import export_rooms
from processing.token_grid import TokenGrid
from trainer import IDE3DDataCollator
from trainer.data import benchmark_samples
from trainer.data.benchmark_samples import BenchmarkDataset
from trainer.loop.benchmark_mixture import build_benchmark_mixture
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.supervision.criterion import GeometryCriterion

TASKS = ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"]
NUM_FRAMES, SIZE = 4, 48
GRID = TokenGrid(SIZE, 8, 2)
TEACHER_SIZE = 4  # of the store that export_rooms writes


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark_training") / "rooms"
    return export_rooms(folder, num_scenes=2, image_size=SIZE, num_frames=NUM_FRAMES)


def dataset(rooms, task, split="train", **options):
    return BenchmarkDataset(task, split, rooms, GRID, **{"num_frames": NUM_FRAMES, **options})


class TestSamples:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_a_sample_says_what_the_annotation_says(self, rooms, task, protocol):
        samples = dataset(rooms, task, protocol=protocol)
        rows = load_task(task, "train", rooms, num_frames=NUM_FRAMES)
        assert len(samples) == len(rows)
        sample, row = samples[0], rows[0]
        user, assistant = sample["messages"]
        assert user["content"][1]["text"] == build_prompt(task, row, protocol=protocol, stage="train")
        answer = assistant["content"][0]["text"]
        assert answer == ("<ground>" if row["candidate_boxes"] else row["answers"][0])
        assert sample["frames"].shape == (NUM_FRAMES, SIZE, SIZE, 3)
        assert sample["depth"].shape == (NUM_FRAMES, SIZE, SIZE) and 0.1 < np.median(sample["depth"]) < 20
        assert sample["camera_to_world"].shape == (NUM_FRAMES, 4, 4)
        assert sample["scene_id"] == row["scene_id"] and list(sample["frame_names"]) == row["frame_names"]

    @pytest.mark.parametrize("task", ["scanrefer", "multi3drefer"])
    def test_targets_are_the_objects_that_are_meant(self, rooms, task):
        samples = dataset(rooms, task)
        counts = set()
        for index in range(len(samples)):
            row, sample = samples.rows[index], samples[index]
            masks, targets = sample["region_masks"], sample["region_targets"]
            assert masks.shape == (len(row["candidate_boxes"]), NUM_FRAMES, *GRID.shape)
            found = targets.nonzero().flatten().tolist()
            assert found == (sorted(row["object_ids"]) or [len(masks)])
            counts.add(len(row["object_ids"]))
            for number, box in zip(row["object_ids"], row["gt_boxes"], strict=True):
                np.testing.assert_allclose(row["candidate_boxes"][number], box, atol=1e-3)
        assert counts == ({1} if task == "scanrefer" else counts | {0}) and len(counts) > (task != "scanrefer")

    def test_the_box_to_describe_is_a_region(self, rooms):
        sample = dataset(rooms, "scan2cap")[0]
        assert sample["region_masks"].shape == (1, NUM_FRAMES, *GRID.shape)
        assert "region_targets" not in sample and "<ground>" in sample["messages"][0]["content"][1]["text"]

    def test_captions_without_a_box_are_left_out(self, rooms, tmp_path, caplog):
        data = shutil.copytree(rooms, tmp_path / "data")
        path = data / "processed" / "scan2cap_train_llava_style.json"
        records = json.loads(path.read_text())
        records[0]["box_input"] = None
        path.write_text(json.dumps(records))
        assert len(dataset(data, "scan2cap")) == len(records) - 1
        assert f"1 of {len(records)} samples have no box" in caplog.text
        path.write_text(json.dumps([{**record, "box_input": None} for record in records]))
        with pytest.raises(ValueError, match="No sample of scan2cap train .* has a box to describe"):
            dataset(data, "scan2cap")

    def test_regions_from_poses_need_no_depth(self, rooms, tmp_path):
        data = shutil.copytree(rooms, tmp_path / "data")
        for file in data.glob("scannet/posed_images/*/*.png"):
            file.unlink()
        sample = dataset(data, "scanrefer", regions="poses", has_geometry=False)[0]
        assert sample["region_masks"].any() and "depth" not in sample
        with pytest.raises(FileNotFoundError, match=r"\.png"):
            dataset(data, "scanqa")[0]
        assert set(dataset(data, "scanqa", has_geometry=False)[0]) == {"messages", "scene_id", "frame_names", "frames"}

    def test_teacher_features_are_those_of_the_store(self, rooms, monkeypatch):
        samples = dataset(rooms, "scanqa", has_teacher=True)
        features = samples[0]["teacher_features"]
        assert features.shape == (NUM_FRAMES, *GRID.shape, TEACHER_SIZE)
        asked = []
        monkeypatch.setattr(benchmark_samples, "read_teacher_features", lambda *words: asked.append(words))
        assert samples[0]["teacher_features"] is None and asked[0][1].frame_names == tuple(
            samples.rows[0]["frame_names"]
        )

    def test_scenes_are_opened_when_a_sample_is_asked_for(self, rooms, monkeypatch):
        opened = []
        load = benchmark_samples.load_scene
        monkeypatch.setattr(
            benchmark_samples,
            "load_scene",
            lambda *words, **options: opened.append(words[1]) or load(*words, **options),
        )
        samples = dataset(rooms, "scanqa")
        assert opened == []
        samples[0], samples[1], samples[len(samples) - 1]
        scenes = [samples.rows[index]["scene_id"] for index in (0, 1, len(samples) - 1)]
        assert opened == scenes and scenes[0] == scenes[1]
        kept = dataset(rooms, "scanrefer", kept_scenes=1)
        opened.clear()
        pairs = [(kept[index], dataset(rooms, "scanrefer")[index]) for index in (0, 1, len(kept) - 1)]
        assert len(opened) == len(pairs) + 2 and pairs[0][0]["frames"] is pairs[1][0]["frames"]
        for ours, fresh in pairs:
            assert torch.equal(ours["region_masks"], fresh["region_masks"])
            np.testing.assert_array_equal(ours["depth"], fresh["depth"])
        again = pickle.loads(pickle.dumps(samples))  # workers of a data loader
        np.testing.assert_array_equal(again[0]["frames"], samples[0]["frames"])

    @pytest.mark.parametrize(
        "words, error, message",
        [
            (("vsibench", "train"), ValueError, "vsibench has the splits"),
            (("scanqa", "trian"), ValueError, "scanqa has the splits"),
            (("scan", "train"), ValueError, "`task` must be one of"),
        ],
    )
    def test_names_that_there_are_not(self, rooms, words, error, message):
        with pytest.raises(error, match=message):
            dataset(rooms, *words)

    def test_wrong_options(self, rooms, tmp_path):
        with pytest.raises(ValueError, match="`regions` must be one of"):
            dataset(rooms, "scanqa", regions="boxes")
        with pytest.raises(FileNotFoundError, match="scanqa_train"):
            dataset(tmp_path, "scanqa")


class TestMixture:
    def test_shares(self, rooms):
        mixture = build_benchmark_mixture(["scanqa", "sqa3d"], "train", rooms, GRID, weights=[3, 1], num_frames=2)
        draws = mixture.draws()
        assert draws[0] == pytest.approx(3 * draws[1], abs=2) and len(mixture[0]["frames"]) == 2

    @pytest.mark.parametrize(
        "tasks, weights, message",
        [([], None, "at least one"), (["scanqa"] * 2, None, "each once"), (["scanqa"], [1, 2], "one number for each")],
    )
    def test_lists_that_do_not_fit(self, rooms, tasks, weights, message):
        with pytest.raises(ValueError, match=message):
            build_benchmark_mixture(tasks, "train", rooms, GRID, weights=weights)


@pytest.fixture(scope="module")
def processor(rooms):
    rows = [row for task in TASKS for row in load_task(task, "train", rooms, num_frames=NUM_FRAMES)]
    texts = [text for row in rows for text in (row["question"], *row["answers"])]
    return build_nano_processor(
        texts, image_size=SIZE, patch_size=8, spatial_pool_stride=2, num_frames=NUM_FRAMES, vocab_size=400
    )


class TestPackedChats:
    def pack(self, rooms, processor, task, packed_tokens=10_000, **options):
        return dataset(rooms, task, packed_tokens=packed_tokens, processor=processor, **options)

    @pytest.mark.parametrize("task", TASKS)
    def test_each_chat_is_in_one_sample_with_what_it_has_alone(self, rooms, processor, task):
        singles, packed = dataset(rooms, task), self.pack(rooms, processor, task, 300)
        assert len({scene for scene in singles.rows["scene_id"]}) < len(packed) < len(singles)
        assert sorted(row for pack in packed.packs for row in pack) == list(range(len(singles)))
        for sample, pack in zip(packed, packed.packs, strict=True):
            asked = []
            for row, chat in zip(pack, sample["messages"], strict=True):
                single = singles[row]
                assert chat == single["messages"] and sample["scene_id"] == single["scene_id"]
                np.testing.assert_array_equal(sample["frames"], single["frames"])
                np.testing.assert_array_equal(sample["depth"], single["depth"])
                if task == "scan2cap":
                    asked.append(single["region_masks"][0])
                elif "region_targets" in single:
                    asked.append(single["region_targets"])
                    assert torch.equal(sample["region_masks"], single["region_masks"])
            if task == "scan2cap":
                assert torch.equal(sample["region_masks"][sample["region_references"]], torch.stack(asked))
            elif asked:
                assert torch.equal(sample["region_targets"], torch.stack(asked))

    def test_a_sample_has_at_most_so_many_tokens_behind_its_video(self, rooms, processor):
        collator, most = IDE3DDataCollator(processor), 90
        samples = self.pack(rooms, processor, "scanqa", most)
        own = [int((collator([s])["segment_ids"] > 0).sum()) for s in samples if len(s["messages"]) > 1]
        assert 0.7 * most < max(own) <= most
        alone = self.pack(rooms, processor, "scanqa", 1)  # longer than that are all
        assert len(alone) == len(dataset(rooms, "scanqa")) and len(alone[0]["messages"]) == 1

    def test_a_sample_mixes_the_objects_of_its_scene(self, rooms, processor):
        samples = self.pack(rooms, processor, "scanrefer", 200)
        neighbours = sum(b - a == 1 for pack in samples.packs for a, b in zip(pack, pack[1:], strict=False))
        assert neighbours < len(samples.rows) / 2
        assert samples.packs == self.pack(rooms, processor, "scanrefer", 200).packs

    @pytest.mark.parametrize("task", TASKS)
    def test_gradients_are_those_of_the_chats_one_by_one(self, rooms, processor, task):
        packed = self.pack(rooms, processor, task, has_teacher=True)
        singles = dataset(rooms, task, has_teacher=True)
        config = build_nano_config(processor, hidden_size=32, vision_layers=2, text_layers=2, heads=2)
        torch.manual_seed(0)
        model = build_nano_model(config, teacher_size=TEACHER_SIZE, validator={"layer_indices": (0, 1, 1, 2)}).double()
        model.criterion = GeometryCriterion()
        collator = IDE3DDataCollator(processor, protocol="clean")

        def step(samples):
            batch = collator(samples)
            batch["pixel_values_videos"] = batch["pixel_values_videos"].double()
            model.zero_grad()
            outputs = model(**batch)
            terms = [value for name in outputs if name.startswith("loss_") for value in [outputs[name]]]
            (outputs.loss + sum(terms)).backward()
            return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        together = step([packed[0]])
        one_by_one = step([singles[row] for row in packed.packs[0]])
        assert len(packed.packs[0]) > 3 and largest_difference(one_by_one, together) < 1e-6
        assert set(together) == set(one_by_one)

    def test_packing_needs_a_processor_and_the_clean_protocol(self, rooms, processor):
        with pytest.raises(ValueError, match="needs protocol 'clean' and the `processor`"):
            self.pack(rooms, None, "scanqa")
        with pytest.raises(ValueError, match="got 'paper'"):
            self.pack(rooms, processor, "scanqa", protocol="paper")
        with pytest.raises(ValueError, match="`packed_tokens` must be"):
            self.pack(rooms, processor, "scanqa", -1)


class TestTraining:
    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_all_tasks_with_all_terms(self, rooms, processor, make_trainer, protocol):
        mixture = build_benchmark_mixture(
            TASKS, "train", rooms, GRID, protocol=protocol, num_frames=NUM_FRAMES, has_teacher=True
        )
        config = build_nano_config(processor, hidden_size=32, vision_layers=2, text_layers=2, heads=2)
        torch.manual_seed(0)
        validator = {"layer_indices": (0, 1, 1, 2), "protocol": protocol}
        model = build_nano_model(config, teacher_size=TEACHER_SIZE, validator=validator)
        before = copy.deepcopy(model.state_dict())
        trainer = make_trainer(
            mixture,
            model=model,
            collator=IDE3DDataCollator(processor, protocol=protocol),
            protocol=protocol,
            mixture_batches="grouped",
            max_steps=6,
        )
        trainer.train()
        logged = {name for entry in trainer.state.log_history for name, value in entry.items() if value}
        pairs = "loss_overlap_l1" if protocol == "paper" else "loss_view_consistency"
        assert {"loss_language", "loss_depth", "loss_cross_view_depth", pairs, "loss_distillation"} <= logged
        assert "loss_grounding" in logged
        changed = {
            name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
        }
        assert {"model", "lm_head", "grounding_head", "geometric_validator", "teacher_projector"} <= changed
