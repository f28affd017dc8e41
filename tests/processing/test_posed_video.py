import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from processing.posed_video import PosedVideo
from processing.rooms import load_rooms


def parts(views=3, size=(6, 8)):
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, 0, 3] = np.arange(views)
    return {
        "frames": rng.integers(0, 255, (views, *size, 3), dtype=np.uint8),
        "depth": rng.uniform(0.5, 4, (views, *size)).astype(np.float32),
        "intrinsics": np.array([[10.0, 0, 3.5], [0, 10, 2.5], [0, 0, 1]]),
        "camera_to_world": poses,
        "boxes": np.array([[0, 0, 1, 1, 1, 2.0]]),
        "labels": ["chair"],
    }


def changed(name, value):
    return {**parts(), name: value}


def test_a_whole_video_keeps_its_parts_and_shares_one_camera():
    given = parts()
    video = PosedVideo(**given, scene_id="a")
    assert len(video) == 3 and video.has_geometry
    np.testing.assert_array_equal(video.frames, given["frames"])
    assert video.intrinsics.shape == (3, 3, 3) and video.labels == ("chair",)


def test_rgb_alone_is_enough():
    video = PosedVideo(parts()["frames"])
    assert video.depth is None and video.camera_to_world is None and not video.has_geometry
    assert len(video.select_frames([2, 0])) == 2


def test_float_frames_are_rounded_to_eight_bits():
    video = PosedVideo(np.full((1, 2, 2, 3), 0.5))
    assert video.frames.dtype == np.uint8 and (video.frames == 128).all()


def broken_pose(value, row=0, column=0):
    poses = parts()["camera_to_world"]
    poses[1, row, column] = value
    return poses


def nan_depth(value):
    depth = parts()["depth"]
    depth[0, 0, 0] = value
    return depth


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("frames", np.zeros((0, 6, 8, 3), np.uint8), "no frames"),
        ("frames", np.zeros((3, 0, 8, 3), np.uint8), "at least one pixel"),
        ("frames", np.zeros((3, 3, 6, 8), np.uint8), "channels last"),
        ("frames", np.full((3, 6, 8, 3), np.nan), "NaN or infinite"),
        ("frames", np.full((3, 6, 8, 3), np.inf), "NaN or infinite"),
        ("frames", np.full((3, 6, 8, 3), 200.0), "Divide by 255"),
        ("depth", parts(views=2)["depth"], "3 frames but 2 depth maps"),
        ("depth", parts()["depth"][0], r"\(3, h, w\)"),
        ("depth", parts()["depth"] * 1000, "looks like millimetres, divide by 1000"),
        ("depth", nan_depth(np.nan), "NaN or Inf"),
        ("depth", nan_depth(-1), "negative"),
        ("camera_to_world", parts(views=2)["camera_to_world"], "3 frames but 2 poses"),
        ("camera_to_world", parts()["camera_to_world"][:, :3], r"\(3, 4, 4\)"),
        ("camera_to_world", broken_pose(np.nan), r"frames \[1\] is not finite"),
        ("camera_to_world", broken_pose(-np.inf, 0, 3), r"frames \[1\] is not finite"),
        ("camera_to_world", broken_pose(2.0), r"frames \[1\] is not a rigid motion"),
        ("camera_to_world", broken_pose(-1.0), "not a rigid motion"),
        ("camera_to_world", broken_pose(1.0, 3, 0), "not a rigid motion"),
        ("intrinsics", np.eye(4), r"`intrinsics` must have shape \(3, 3, 3\)"),
        ("intrinsics", np.zeros((3, 3)), "positive focal lengths"),
        ("boxes", np.zeros((1, 7)), r"\(N, 6\)"),
        ("boxes", np.array([[0, 0, 0, -1, 1, 1.0]]), "not negative"),
        ("labels", ["chair", "table"], "one per box"),
        ("frame_names", ["a"], "1 frame_names for 3 frames"),
    ],
)
def test_bad_input_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        PosedVideo(**changed(name, value))


def test_integer_frames_other_than_bytes_are_a_type_error():
    with pytest.raises(TypeError, match="uint8"):
        PosedVideo(np.zeros((1, 2, 2, 3), np.int64))


def test_depth_without_measurements_passes_and_zeros_do_not_count_for_the_unit():
    assert PosedVideo(**changed("depth", np.zeros((3, 2, 2)))).depth.shape == (3, 2, 2)
    far = np.zeros((3, 2, 2))
    far[0, 0, 0] = 2000
    with pytest.raises(ValueError, match="millimetres"):
        PosedVideo(**changed("depth", far))


def test_selected_frames_keep_their_order_and_the_boxes():
    given = parts()
    video = PosedVideo(**given, frame_names=["0", "1", "2"]).select_frames([2, 0])
    np.testing.assert_array_equal(video.depth, given["depth"][[2, 0]])
    assert video.frame_names == ("2", "0") and video.camera_to_world[0, 0, 3] == 2 and len(video.boxes) == 1


@pytest.mark.parametrize("indices", [[], [3], [-1]])
def test_frames_that_do_not_exist_cannot_be_selected(indices):
    with pytest.raises(ValueError, match="indices"):
        PosedVideo(**parts()).select_frames(indices)


@pytest.fixture
def folder(tmp_path):
    scene = tmp_path / "scene0000_00"
    scene.mkdir()
    for i, name in enumerate(("00000", "00010", "00020")):
        Image.fromarray(np.full((12, 16, 3), 40 * i, np.uint8)).save(scene / f"{name}.jpg")
        Image.fromarray(np.full((6, 8), 1500 + i, np.uint16)).save(scene / f"{name}.png")
        pose = np.eye(4)
        pose[0, 3] = i
        np.savetxt(scene / f"{name}.txt", pose)
    camera = np.eye(4)
    camera[:2, :3] = [[20, 0, 7.5], [0, 20, 5.5]]
    np.savetxt(scene / "intrinsic.txt", camera)
    camera[:2, :3] = [[10, 0, 3.5], [0, 10, 2.5]]
    np.savetxt(scene / "depth_intrinsic.txt", camera)
    return scene


def test_a_public_scene_is_read_in_metres_with_the_colour_camera(folder):
    video = PosedVideo.from_folder(folder)
    assert video.frames.shape == (3, 12, 16, 3) and video.depth.shape == (3, 6, 8)
    np.testing.assert_allclose(video.depth[:, 0, 0], [1.5, 1.501, 1.502], rtol=1e-6)
    np.testing.assert_allclose(video.intrinsics[0], [[20, 0, 7.5], [0, 20, 5.5], [0, 0, 1]])
    assert video.camera_to_world[2, 0, 3] == 2 and video.scene_id == "scene0000_00"
    assert video.frame_names == ("00000", "00010", "00020")
    assert PosedVideo.from_folder(folder, indices=[2]).frame_names == ("00020",)


def test_the_depth_camera_is_scaled_to_the_frames_by_pixel_centres(folder):
    (folder / "intrinsic.txt").unlink()
    np.testing.assert_allclose(PosedVideo.from_folder(folder).intrinsics[0], [[20, 0, 7.5], [0, 20, 5.5], [0, 0, 1]])


def test_a_folder_of_images_alone_is_an_rgb_video(folder):
    for file in [*folder.glob("*.png"), *folder.glob("*.txt")]:
        file.unlink()
    video = PosedVideo.from_folder(folder)
    assert video.depth is None and video.camera_to_world is None and video.intrinsics is None


def test_an_invalid_pose_is_an_error_unless_it_is_to_be_left_out(folder, caplog):
    np.savetxt(folder / "00010.txt", np.full((4, 4), -np.inf))
    with pytest.raises(ValueError, match="not finite"):
        PosedVideo.from_folder(folder)
    video = PosedVideo.from_folder(folder, skip_invalid_poses=True)
    assert video.frame_names == ("00000", "00020") and "00010" in caplog.text


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        PosedVideo.from_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no frames"):
        PosedVideo.from_folder(tmp_path)
    with pytest.raises(ValueError, match="indices"):
        PosedVideo.from_folder(folder, indices=[3])
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "00010.png")
    with pytest.raises(ValueError, match="16-bit grey"):
        PosedVideo.from_folder(folder)
    (folder / "00010.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks depth files.*00010"):
        PosedVideo.from_folder(folder)
    (folder / "00010.txt").write_text("1 0 0\n")
    with pytest.raises(ValueError, match="4 x 4"):
        PosedVideo.from_folder(folder)
    (folder / "00000.jpg").write_bytes(b"not an image")
    np.savetxt(folder / "00010.txt", np.eye(4))
    with pytest.raises(ValueError, match="is no readable image"):
        PosedVideo.from_folder(folder)


def test_poses_and_depth_of_other_tools_are_read_on_request(tmp_path):
    """The same scene, written as OpenGL poses and depth in 1/5000 m, is refused as it is and read when it is said."""
    scene = PosedVideo.from_room(load_rooms("test", 1, num_frames=6, image_size=96)[0])
    for index in range(6):
        Image.fromarray(scene.frames[index]).save(tmp_path / f"{index:05d}.jpg")
        Image.fromarray(np.round(scene.depth[index] * 5000).astype(np.uint16)).save(tmp_path / f"{index:05d}.png")
        np.savetxt(tmp_path / f"{index:05d}.txt", scene.camera_to_world[index] @ np.diag([1.0, -1, -1, 1]))
    np.savetxt(tmp_path / "intrinsic.txt", scene.intrinsics[0])
    with pytest.raises(ValueError, match='convention="opengl"'):
        PosedVideo.from_folder(tmp_path, depth_unit=1 / 5000)
    with pytest.raises(ValueError, match="depth_unit=1/5000"):
        PosedVideo.from_folder(tmp_path, convention="opengl")
    read = PosedVideo.from_folder(tmp_path, convention="opengl", depth_unit=1 / 5000)
    read.check()
    np.testing.assert_allclose(read.camera_to_world, scene.camera_to_world, atol=1e-6)
    np.testing.assert_allclose(read.depth, scene.depth, atol=1e-4)
    for options in ({"convention": "blender"}, {"depth_unit": 0}, {"depth_unit": float("nan")}):
        with pytest.raises(ValueError, match="convention|depth_unit"):
            PosedVideo.from_folder(tmp_path, **options)


@pytest.mark.parametrize("name", ["depth", "intrinsics", "camera_to_world", "boxes"])
def test_parts_that_hold_no_numbers_are_type_errors_by_name(name):
    number = np.asarray(parts()[name])
    for value in (
        number.astype(str),
        number.astype(object),
        number > 0,
        number.astype(complex),
        [[1.0], [1, 2]],
        "2.0x",
    ):
        with pytest.raises(TypeError, match=f"`{name}` must (hold|be an array of) numbers"):
            PosedVideo(**changed(name, value))


@pytest.mark.parametrize("name", ["labels", "frame_names"])
@pytest.mark.parametrize("value", ["abc", b"abc", [None] * 3, [1, 2, 3], 3])
def test_names_are_strings_in_a_list(name, value):
    given = {**parts(), "boxes": np.repeat(parts()["boxes"], 3, axis=0), "labels": list("abc")}
    with pytest.raises(TypeError, match=f"`{name}` must be (a list of )?strings"):
        PosedVideo(**{**given, name: value})


def test_indices_are_whole_numbers():
    video = PosedVideo(**parts())
    for indices in ([0.7], [True, False, True], "01", [None]):
        with pytest.raises(TypeError, match="whole numbers of frames"):
            video.select_frames(indices)
    assert len(video.select_frames(np.array([1.0, 2.0]))) == 2


def test_poses_in_millimetres_are_told_without_depth():
    given = {**parts(), "depth": None}
    given["camera_to_world"][:, 0, 3] = np.arange(3) * 300 + 5e5  # 30 cm a frame, far from the origin
    with pytest.raises(ValueError, match="`camera_to_world` must be in metres, .* moves by 300"):
        PosedVideo(**given)
    given["camera_to_world"][:, 0, 3] = np.arange(3) * 0.3 + 5e5
    assert len(PosedVideo(**given)) == 3


def test_names_and_arguments_of_the_folder_reader(folder):
    outside = folder.parent / "secret.jpg"
    outside.write_bytes((folder / "00000.jpg").read_bytes())
    for name in ("../secret", str(outside.with_suffix("")), "..", "", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="a name of a frame must stay inside its folder"):
            PosedVideo.from_folder(folder, frame_names=[name], parts=())
    for wrong in ({"frame_names": "00000"}, {"indices": [0.7]}, {"parts": "depth"}, {"depth_unit": "1"}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            PosedVideo.from_folder(folder, **wrong)
    with pytest.raises(TypeError, match="`path` must be a path"):
        PosedVideo.from_folder(None)
    with pytest.raises(ValueError, match="at least one frame"):
        PosedVideo.from_folder(folder, indices=[])


def test_other_cameras_and_another_name_check_nothing_else_again(monkeypatch):
    video = PosedVideo(**parts())
    poses = parts()["camera_to_world"]
    poses[:, 1, 3] = 0.25
    cameras = np.array([[11.0, 0, 3.5], [0, 11, 2.5], [0, 0, 1]])
    monkeypatch.setattr("processing.posed_video.check_depth", lambda *words: pytest.fail("depth was checked again"))
    moved = video.with_cameras(poses, cameras).named("b")
    assert moved.scene_id == "b" and video.scene_id is None and moved.depth is video.depth
    np.testing.assert_array_equal(moved.camera_to_world, poses.astype(np.float32))
    assert moved.intrinsics.shape == (3, 3, 3) and video.intrinsics[0, 0, 0] == 10
    with pytest.raises(ValueError, match="camera_to_world"):
        video.with_cameras(broken_pose(np.nan), cameras)
    with pytest.raises(ValueError, match="intrinsics"):
        video.with_cameras(poses, cameras[:2])
    with pytest.raises(ValueError, match="scene_id"):
        video.named("../b")


def test_a_depth_file_is_decoded_once(tmp_path, monkeypatch):
    given = parts()
    for number in range(3):
        Image.fromarray(given["frames"][number]).save(tmp_path / f"0000{number}.jpg")
        Image.fromarray((given["depth"][number] * 1000).astype(np.uint16)).save(tmp_path / f"0000{number}.png")
    np.savetxt(tmp_path / "intrinsic.txt", given["intrinsics"])
    decoded, prepare = [], PngImageFile.load_prepare
    monkeypatch.setattr(PngImageFile, "load_prepare", lambda image: decoded.append(image) or prepare(image))
    assert PosedVideo.from_folder(tmp_path).depth.shape == (3, 6, 8) and len(decoded) == 3
