"""Video, doctor, reader, collator and the tensor checks agree on what a pose, a camera and a depth map is."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from training_samples import HEIGHT, WIDTH, build_collator, make_sample

from processing import PosedVideo, box_rules, geometry_rules
from processing.benchmarks.doctor.scene_checks import check_scene
from processing.benchmarks.readers.tasks import Layout
from trainer.geometry import check_camera_to_world, check_depth, check_intrinsics, checks

GOOD = make_sample(3)
SIZE = (HEIGHT, WIDTH)
ANGLES = np.array([0.7, -0.3, 0.4])


def turned(position=(1.5, -0.5, 2.0)) -> np.ndarray:
    """A pose that is turned about all axes, (4, 4) float64."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(ANGLES), np.sin(ANGLES)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = about_z @ about_y @ about_x, position
    return pose


def scaled(factor: float) -> np.ndarray:
    pose = turned()
    pose[:3, :3] *= factor
    return pose


def pose_with(row: int, values) -> np.ndarray:
    pose = turned()
    pose[row] = values
    return pose


def camera(fx=60.0, fy=60.0, *, skew=0.0, last=(0.0, 0.0, 1.0)) -> np.ndarray:
    return np.array([[fx, skew, (WIDTH - 1) / 2], [0, fy, (HEIGHT - 1) / 2], last])


def flat(*metres: float) -> np.ndarray:
    """Depth (3, h, w) whose pixels take these values in turn."""
    count = 3 * HEIGHT * WIDTH
    return np.resize(np.array(metres, np.float32), count).reshape(3, HEIGHT, WIDTH)


POSES = {
    "turned": (turned(), True),
    "text with 6 digits": (np.loadtxt([" ".join(f"{x:.6f}" for x in row) for row in turned()]), True),
    "text with 4 digits": (turned().round(4), True),
    "float16": (turned().astype(np.float16), True),
    "bfloat16": (torch.tensor(turned()).bfloat16().double().numpy(), False),
    "far away": (turned((1e6, 0, -1e6)), True),
    "scale just inside": (scaled(1.00049), True),
    "scale just outside": (scaled(1.00051), False),
    "smaller scale just outside": (scaled(0.99949), False),
    "scale 1.001": (scaled(1.001), False),
    "reflection": (turned() @ np.diag([1.0, 1, -1, 1]), False),
    "transposed": (turned().T, False),
    "zero": (np.zeros((4, 4)), False),
    "huge": (pose_with(0, [1e30, 1e30, -1e30, 0]), False),
    "NaN": (pose_with(1, [np.nan, 0, 0, 0]), False),
    "Inf translation": (pose_with(1, [0, 1, 0, np.inf]), False),
    "beyond float32": (pose_with(1, [0, 1, 0, 1e39]), False),
    "bottom row 9 9 9 1": (pose_with(3, [9, 9, 9, 1]), False),
    "bottom row just inside": (pose_with(3, [0, 0.00099, 0, 1.00099]), True),
    "bottom row just outside": (pose_with(3, [0, 0.00101, 0, 1]), False),
    "3 x 3": (turned()[:3, :3], False),
}
CAMERAS = {
    "pinhole": (camera(), True),
    "two focal lengths": (camera(45.0, 90.0), True),
    "NaN": (camera(np.nan), False),
    "Inf": (camera(np.inf), False),
    "negative focal length": (camera(60, -60), False),
    "no focal length": (camera(0.0), False),
    "skew just inside": (camera(skew=0.00099), True),
    "skew just outside": (camera(skew=0.00101), False),
    "skew": (camera(skew=2.0), False),
    "transposed": (camera().T, False),
    "bottom row 9 9 9": (camera(last=(9, 9, 9)), False),
    "last entry just inside": (camera(last=(0, 0, 1.00099)), True),
    "last entry just outside": (camera(last=(0, 0, 1.00101)), False),
    "very wide just inside": (camera(0.0501 * WIDTH), True),
    "very wide just outside": (camera(0.0499 * WIDTH), False),
    "normalised": (np.array([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]), False),
    "2 x 3": (camera()[:2], False),
    "of pictures of twice the size": (
        camera(120, 120) + 1.1 * np.array([[0, 0, 31.5], [0, 0, 23.5], [0, 0, 0]]),
        False,
    ),
    "centre on the edge": (camera() + np.array([[0, 0, 31.4], [0, 0, 0], [0, 0, 0]]), True),
    "narrow just inside": (camera(9.9 * WIDTH, 9.9 * HEIGHT), True),
    "a telescope": (camera(10.1 * WIDTH, 10.1 * WIDTH), False),
}
DEPTHS = {
    "room": (GOOD["depth"], True),
    "holes": (flat(0, 0, 0, 2.5), True),
    "nothing measured": (flat(0), True),
    "millimetres": (flat(0, 2500), False),
    "divided twice": (flat(0, 0.0025), False),
    "NaN": (flat(2, 2, np.nan), False),
    "Inf": (flat(2, np.inf), False),
    "negative": (flat(2, 2, -1), False),
    "near just inside": (flat(0.051), True),
    "near just outside": (flat(0.049), False),
    "far just inside": (flat(99.9), True),
    "far just outside": (flat(100.1), False),
    "half of it far": (flat(95, 110), True),
    "most of it far": (flat(95, 110, 110), False),
    "half of it near": (flat(0.04, 2), False),
    "less than half near": (flat(0.04, 2, 2), True),
}


def raises(call) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


def scene_folder(root, sample) -> Layout:
    """The sample as a benchmark's scene; what its files cannot hold is rounded."""
    layout = Layout(root)
    folder = layout.frames("scannet/scene0000_00")
    folder.mkdir(parents=True)
    for index, pose in enumerate(sample["camera_to_world"]):
        Image.fromarray(sample["frames"][index]).save(folder / f"{index:05d}.jpg")
        millimetres = np.round(sample["depth"][index].astype(np.float64) * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / f"{index:05d}.png")
        np.savetxt(folder / f"{index:05d}.txt", pose)
    np.savetxt(folder / "intrinsic.txt", sample["intrinsics"][0])
    return layout


def verdicts(sample: dict, root) -> dict[str, bool]:
    """Whether each judge takes the sample; the two that read files only where files can hold it."""
    geometry = {name: sample[name] for name in ("depth", "intrinsics", "camera_to_world")}
    poses, cameras, depth = (
        torch.tensor(np.asarray(sample[name], np.float32)) for name in ("camera_to_world", "intrinsics", "depth")
    )

    def check_tensors():
        check_camera_to_world(poses)
        check_intrinsics(cameras, frame_size=SIZE)
        check_depth(depth)

    found = {
        "video": not raises(lambda: PosedVideo(sample["frames"], **geometry)),
        "collator": not raises(lambda: build_collator()([sample])),
        "tensor checks": not raises(check_tensors),
    }
    if np.isfinite(sample["depth"]).all() and 0 <= sample["depth"].min() and sample["depth"].max() < 65:
        layout = scene_folder(root, sample)
        folder = layout.frames("scannet/scene0000_00")
        focal = np.diagonal(np.asarray(sample["intrinsics"], np.float64)[0])[:2]
        focal = focal if (np.isfinite(focal) & (focal > 0)).all() else [60.0, 60.0]
        info = {"images": ["0.jpg"], "axis_align_matrix": np.eye(4), "depth_cam2img": np.diag([*focal, 1.0, 1.0])}
        info["depth_cam2img"][:2, 2] = [(WIDTH - 1) / 2, (HEIGHT - 1) / 2]
        found["doctor"] = not {
            finding.kind for finding in check_scene(layout, "scannet/scene0000_00", info, {"poses", "depth"})
        } - {"frames-few", "frame-list-differs", "depth-holes"}
        found["reader"] = not raises(lambda: PosedVideo.from_folder(folder))
    return found


CASES = [
    *(
        (f"pose: {name}", "camera_to_world", np.stack([value] * 3), is_good)
        for name, (value, is_good) in POSES.items()
    ),
    *((f"camera: {name}", "intrinsics", np.stack([value] * 3), is_good) for name, (value, is_good) in CAMERAS.items()),
    *((f"depth: {name}", "depth", value, is_good) for name, (value, is_good) in DEPTHS.items()),
]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize(("name", "part", "value", "is_good"), CASES, ids=[case[0] for case in CASES])
def test_all_judges_give_one_verdict(name, part, value, is_good, tmp_path):
    sample = {**GOOD, part: value}
    if part == "depth":  # Of a still camera: moving ones would contradict depth that is the same everywhere.
        sample["camera_to_world"] = GOOD["camera_to_world"][[0, 0, 0]]
    found = verdicts(sample, tmp_path)
    assert found == dict.fromkeys(found, is_good)
    assert len(found) == 5 or part == "depth"


@pytest.mark.parametrize("judge", ["video", "collator"])
def test_depth_that_lies_while_its_frames_stand_is_refused(judge):
    sample = {**GOOD, "depth": GOOD["depth"].transpose(0, 2, 1).copy()}
    geometry = {name: sample[name] for name in ("depth", "intrinsics", "camera_to_world")}
    with pytest.raises(ValueError, match="maps of 64 x 48 .height x width. for frames of 48 x 64. Turn the maps"):
        build_collator()([sample]) if judge == "collator" else PosedVideo(sample["frames"], **geometry)


def test_a_pose_that_its_alignment_spoils_is_found_as_the_reader_finds_it(tmp_path):
    """Two matrices, each just inside the limit; their product is outside."""
    layout = scene_folder(tmp_path, {**GOOD, "camera_to_world": np.stack([scaled(1.0004)] * 3)})
    info = {"images": [], "axis_align_matrix": scaled(1.0004), "depth_cam2img": np.eye(4)}
    kinds = {finding.kind for finding in check_scene(layout, "scannet/scene0000_00", info, {"poses"})}
    assert "pose-not-rigid" in kinds
    video = PosedVideo.from_folder(layout.frames("scannet/scene0000_00"))
    with pytest.raises(ValueError, match=r"frames \[0, 1, 2\] is not a rigid motion"):
        dataclasses.replace(video, camera_to_world=info["axis_align_matrix"] @ video.camera_to_world)


def test_the_limits_of_the_tensor_checks_are_those_of_the_rules():
    limits = {name: value for name, value in vars(checks).items() if isinstance(value, float)}
    assert limits == {name: getattr(geometry_rules, name) for name in limits}
    assert len(limits) == 6


class TestRules:
    """What the predicates say, by frame."""

    def test_bad_frames_are_named(self):
        poses = np.stack([turned(), scaled(2), pose_with(0, [np.nan] * 4), turned()])
        assert geometry_rules.find_bad_poses(poses).tolist() == [1, 2]
        assert geometry_rules.find_nonfinite(poses).tolist() == [2]
        depth = np.stack([flat(2)[0], flat(2, -1)[0], flat(2, np.nan)[0]])
        assert geometry_rules.find_bad_depth(depth).tolist() == [1, 2]
        boxes = [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, -1], [0, 0, np.inf, 1, 1, 1]]
        assert box_rules.find_bad_boxes(boxes).tolist() == [1, 2]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
    def test_tensors_that_learn_are_judged_like_arrays(self, dtype):
        poses = torch.tensor(np.stack([turned(), scaled(2)]), dtype=dtype, requires_grad=True)
        assert geometry_rules.find_bad_poses(poses).tolist() == [1]
        assert not geometry_rules.is_pose(poses[1]) and geometry_rules.is_pose(poses[0])

    def test_the_message_says_what_came_and_what_to_do(self):
        with pytest.raises(ValueError, match=r"`poses` of frames \[0\] .* off by 3\. Remove scaling"):
            geometry_rules.check_poses(scaled(2)[None], name="poses")
        with pytest.raises(ValueError, match="below 0.05 of the frame's side.*Multiply its rows"):
            geometry_rules.check_intrinsics(CAMERAS["normalised"][0][None], frame_size=SIZE)
        with pytest.raises(ValueError, match="median is 0.0025. Was it divided by 1000 twice?"):
            geometry_rules.check_depth(flat(0, 0.0025))
        with pytest.raises(ValueError, match="Got 2 frames but 3 depth maps"):
            geometry_rules.check_depth(flat(2), num_frames=2)
