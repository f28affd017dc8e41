"""`ask`, `find` and `describe` on a rendered room, with the shipped nano model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commanding import run_command
from drawn_scenes import write_checkpoint
from exporting import build_model, build_processor

from ide3d import nano_model
from ide3d.commands.scenes import NANO_REQUEST
from trainer import export_inference_model
from trainer.session import SceneSession, open_video
from trainer.session.scene_session import GROUND

REPOSITORY = Path(__file__).parents[2]
DIGITS = ("--numbers", "digits")  # of what is said below
SAID = ['[{"frame":1,"center":[-34,12,231],"size":[61,88,58],"yaw":-12}]', "[]", "behind you"]
QUESTIONS = ("Is there a red chair?", "How many chairs are in the room?")


@pytest.fixture(scope="module")
def scene(room):
    return open_video(nano_model(), room.video)


class TestAsk:
    def test_each_answer_is_a_line(self, room, scene):
        told = run_command("ask", room.video, *QUESTIONS)
        assert told.stdout.splitlines() == scene.ask(QUESTIONS) and told.stderr == ""
        assert told.stdout.splitlines()[0] in ("yes", "no") and told.stdout.splitlines()[1].isdigit()

    def test_json_holds_the_questions_too(self, room, scene):
        rows = json.loads(run_command("ask", room.video, *QUESTIONS, "--json").stdout)
        expected = zip(QUESTIONS, scene.ask(QUESTIONS), strict=True)
        assert rows == [{"question": question, "answer": answer} for question, answer in expected]

    def test_a_folder_of_pictures_is_a_video(self, room):
        answer = run_command("ask", room.frames, QUESTIONS[1]).stdout
        session = open_video(nano_model(), room.frames)
        assert session.frame_indices == (0, 1, 2, 3) and answer == session.ask([QUESTIONS[1]])[0] + "\n"

    def test_options_reach_the_session(self, room, tmp_path, monkeypatch):
        processor = build_processor()
        export = export_inference_model(build_model(processor), processor, tmp_path / "export")
        seen = {}
        answer = SceneSession.answer

        def record(self, questions, regions=None, **kwargs):
            seen.update(kwargs, frames=self.num_frames, memory=self.memory.max_memory, size=self.processor.image_size)
            return answer(self, questions, regions, **kwargs)

        monkeypatch.setattr(SceneSession, "answer", record)
        words = ("--model", export, "--num-frames", 2, "--max-new-tokens", 3, "--max-memory", 1.5, "--device", "cpu")
        run_command("ask", room.video, "Where is the lamp?", *words)
        assert (seen["frames"], seen["max_new_tokens"], seen["size"]) == (2, 3, 70)
        assert seen["memory"] == 3 * 2**29

    @pytest.mark.slow
    def test_from_any_folder_in_a_process_of_its_own(self, room, scene, tmp_path):
        """Nothing but the package is needed: no model, no network, no cache, no write into the package."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME")}
        environment |= {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "ide3d", "ask", str(room.video), QUESTIONS[0]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout == scene.ask(QUESTIONS[:1])[0] + "\n"
        assert done.stderr == ""

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--model", "{tmp}"), "{tmp} has no config.json. MODEL is the folder of an export"),
            (("--num-frames", 99), "num_frames=99 was asked for, but the video has 4 frame(s)"),
            (("--max-memory", 0.001), "The scene takes "),
            (("--device", "nonsense"), "`device` must be"),
        ],
    )
    def test_what_is_wrong_is_told_in_one_line(self, room, tmp_path, words, told):
        words = [str(word).format(tmp=tmp_path) for word in words]
        stderr = run_command("ask", room.video, "Hello?", *words, code=1).stderr
        assert stderr.startswith("ide3d ask: ") and stderr.count("\n") == 1
        assert told.format(tmp=tmp_path) in stderr

    def test_what_is_no_video_is_told_in_one_line(self, tmp_path):
        (tmp_path / "broken.mp4").write_bytes(b"no video at all")
        stderr = run_command("ask", tmp_path / "broken.mp4", "Hello?", code=1).stderr
        assert stderr.startswith("ide3d ask: ") and "broken.mp4" in stderr and stderr.count("\n") == 1


class TestFind:
    def test_region_score_and_frames_are_named(self, room, scene):
        thing = next(entry for entry in room.objects if entry["id"] == 1)
        wanted = f"the {thing['colour']} {thing['category']}"
        regions = scene.read_regions(room.ids)
        (found,) = scene.find([wanted], regions, template=NANO_REQUEST)
        told = run_command("find", room.video, wanted, "the red elephant", "--regions", room.ids).stdout.splitlines()
        where = f"{found.name}, score {found.score:.3f}, frames {', '.join(map(str, found.frames))}"
        assert told[0] == f"{wanted}: {where}"
        assert len(told) == 2 and told[1].startswith("the red elephant: ")

    def test_regions_are_proposed_where_no_file_names_them(self, room, scene):
        thing = next(entry for entry in room.objects if entry["id"] == 1)
        wanted = f"the {thing['colour']} {thing['category']}"
        (found,) = scene.find([wanted], template=NANO_REQUEST)
        told = run_command("find", room.video, wanted).stdout
        assert told.startswith(f"{wanted}: {found.name or 'no such object'}, score {found.score:.3f}")
        (row,) = json.loads(run_command("find", room.video, wanted, "--json").stdout)
        assert row["source"] == "own tokens" and row["licence"] and tuple(row["others"]) == found.others
        assert len(row["scores"]) == len(scene.session.propose())

    def test_nothing_fits(self, room, monkeypatch):
        import torch

        def ground(self, descriptions, regions, **kwargs):
            scores = torch.full((len(descriptions), len(regions) + 1), 0.25)
            scores[:, -1] = 0.5
            return scores

        monkeypatch.setattr(SceneSession, "ground", ground)
        told = run_command("find", room.video, "the tower", "--regions", room.ids).stdout
        assert told == "the tower: no such object, score 0.500\n"

    def test_the_request_is_the_own_one_of_the_model(self, room, monkeypatch):
        templates = []
        ground = SceneSession.ground

        def record(self, descriptions, regions, *, template=GROUND, **kwargs):
            templates.append(template)
            return ground(self, descriptions, regions, template=template, **kwargs)

        monkeypatch.setattr(SceneSession, "ground", record)
        for words in ((), ("--model", nano_model()), ("--template", "Where is {description}?")):
            run_command("find", room.video, "the bed", "--regions", room.ids, *words)
        assert templates == ["Find {description}.", GROUND, "Where is {description}?"]

    def test_boxes_and_json(self, room, tmp_path):
        boxes = {"left": {"0": [0, 0, 128, 256]}, "right": [[128, 0, 256, 256], None, None, None]}
        (tmp_path / "boxes.json").write_text(json.dumps({"frame_size": [256, 256], "boxes": boxes}))
        words = ("--regions", tmp_path / "boxes.json", "--json")
        (found,) = json.loads(run_command("find", room.video, "the lamp", *words).stdout)
        assert set(found["scores"]) == {"left", "right"} and found["description"] == "the lamp"
        best = max(found["scores"], key=found["scores"].get)
        assert found["name"] == (best if found["scores"][best] >= found["no_object"] else None)
        assert found["frames"] == ([0] if found["name"] else [])

    def test_boxes_in_words_are_told_in_metres(self, room, scene, monkeypatch):
        monkeypatch.setattr(SceneSession, "ask", lambda self, questions, **settings: SAID[: len(questions)])
        words = (
            "find",
            room.video,
            "the bed",
            "the cat",
            "the lamp",
            "--boxes",
            "--numbers",
            "digits",
            "--num-frames",
            2,
        )
        last = open_video(nano_model(), room.video, num_frames=2).frame_indices[1]
        assert run_command(*words).stdout.splitlines() == [
            f"the bed: frame {last}, centre -0.34 0.12 2.31 m, size 0.61 0.88 0.58 m, yaw -12 degrees",
            "the cat: no such object",
            "the lamp: no answer that can be parsed; was this model taught boxes in words?",
        ]
        rows = json.loads(run_command(*words, "--json").stdout)
        assert [row["boxes"] and len(row["boxes"]) for row in rows] == [1, [], None]
        assert rows[0]["boxes"][0]["frame"] == last and rows[2]["text"] == SAID[2] and rows[2]["problem"]

    def test_boxes_in_words_take_no_regions(self, room):
        told = run_command("find", room.video, "the bed", "--boxes", "--regions", room.ids, code=2)
        assert "--boxes are said in words, without regions: leave out --regions" in told.stderr

    def test_boxes_in_words_are_drawn(self, room, tmp_path, monkeypatch):
        monkeypatch.setattr(SceneSession, "ask", lambda self, questions, **settings: SAID[: len(questions)])
        page = tmp_path / "page.html"
        words = ("find", room.video, "the bed", "the cat", "--boxes", *DIGITS)
        told = run_command(*words, "--save", page, "--field-of-view", 68).stdout
        assert told == run_command(*words).stdout
        content = page.read_text(encoding="utf-8")
        assert "the cat: no such object" in content and "as if each camera stood level" in content

    def test_a_wrong_file_is_told_in_one_line(self, room, tmp_path):
        np.save(tmp_path / "ids.npy", np.zeros((3, 8, 8), int))
        stderr = run_command("find", room.video, "the lamp", "--regions", tmp_path / "ids.npy", code=1).stderr
        assert stderr.startswith("ide3d find: The array of ids in ") and stderr.count("\n") == 1


class TestDescribe:
    def test_each_region_is_a_line(self, room, scene):
        expected = scene.describe(scene.read_regions(room.ids), max_new_tokens=5)
        words = ("--regions", room.ids, "--max-new-tokens", 5)
        told = run_command("describe", room.video, *words).stdout
        assert told.splitlines() == [f"{name}: {text}" for name, text in expected.items()]
        assert json.loads(run_command("describe", room.video, *words, "--json").stdout) == expected


class TestSave:
    def test_what_is_found_is_drawn_and_the_answer_stays(self, room, tmp_path):
        thing = next(entry for entry in room.objects if entry["id"] == 1)
        wanted = f"the {thing['colour']} {thing['category']}"
        words = ("find", room.video, wanted, "--regions", room.ids)
        page = tmp_path / "page.html"
        told = run_command(*words, "--save", page).stdout
        assert told == run_command(*words).stdout
        content = page.read_text(encoding="utf-8")
        assert f"{wanted} (" in content or f"{wanted}: no such object" in content

    def test_the_depth_of_a_checkpoint_is_drawn_as_points(self, room, tmp_path):
        write_checkpoint(tmp_path / "checkpoint-1")
        page = tmp_path / "page.html"
        words = ("--save", page, "--depth-from", tmp_path / "checkpoint-1", "--field-of-view", 70)
        run_command("find", room.video, "the bed", "--regions", room.ids, *words)
        content = page.read_text(encoding="utf-8")
        assert "Camera of frame 0" in content and "100,000 of" not in content and "points." in content

    def test_depth_of_one_frame_is_a_cloud_that_trimesh_opens(self, room, tmp_path):
        trimesh = pytest.importorskip("trimesh")
        write_checkpoint(tmp_path / "checkpoint-1")
        cloud = tmp_path / "cloud.ply"
        words = ("--save", cloud, "--depth-from", tmp_path / "checkpoint-1", "--num-frames", 1)
        run_command("find", room.video, "the bed", *words)
        loaded = trimesh.load(cloud, process=False)
        assert len(loaded.vertices) > 100 and np.isfinite(loaded.vertices).all()

    def test_what_is_described_is_drawn(self, room, tmp_path):
        sheet = tmp_path / "sheet.png"
        words = ("--regions", room.ids, "--max-new-tokens", 3, "--json", "--save", sheet)
        told = run_command("describe", room.video, *words)
        assert json.loads(told.stdout) and sheet.read_bytes()[:4] == b"\x89PNG"

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("--save", "page.pdf"), 1, "must end with one of .html"),
            (("--depth-from", "x"), 2, "name the file by --save"),
            (("--save", "x.glb"), 2, "regions have no place in it"),
            (("--save", "x.PLY"), 2, "Name a checkpoint by --depth-from"),
            (("--save", "x.html", "--depth-from", "nowhere"), 1, "There is no geometry_modules.safetensors in"),
            (("--save", "x.html", "--field-of-view", 500), 2, "field-of-view"),
        ],
    )
    def test_what_cannot_be_drawn_is_told_in_one_line(self, room, tmp_path, monkeypatch, words, code, told):
        monkeypatch.chdir(tmp_path)
        stderr = run_command("find", room.video, "the bed", "--regions", room.ids, *words, code=code).stderr
        assert told in stderr and stderr.count("\n") == 1 and not list(tmp_path.iterdir())
