"""Pictures: every odd picture through every door gives the same upright pixels, or an error that names it."""

import base64
import io
import logging
import struct
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import build_processor
from PIL import Image, features

from processing import PosedVideo
from processing.image_opening_ide3d import download, is_image, open_image
from processing.image_reading_ide3d import frames_to_tensor, inspect_image, list_images, read_image
from processing.video_reading_ide3d import list_videos, read_video

ORIENTATION, SIZE = 0x0112, (20, 12)  # width, height
TURNS = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270}
HAS_AVIF = features.check("avif")


def colours() -> np.ndarray:
    """Smooth colours (12, 20, 3) without any symmetry."""
    rows, columns = np.mgrid[:12, :20]
    return np.stack([12 * columns, 20 * rows, 6 * (rows + columns)], -1).astype(np.uint8)


def alpha() -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 255, 20).astype(np.uint8), (12, 20))


def over_white(pixels: np.ndarray, share: np.ndarray) -> np.ndarray:
    share = share[..., None] / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def turned(orientation: int) -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(colours())
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    return image, {"exif": exif}, np.asarray(image.transpose(TURNS[orientation]))


def turned_tiff() -> tuple[Image.Image, dict, np.ndarray]:
    return Image.fromarray(colours()), {"tiffinfo": {ORIENTATION: 6}}, turned(6)[2]


def grey() -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(colours()[..., 0])
    return image, {}, np.repeat(np.asarray(image)[..., None], 3, -1)


def grey_and_alpha() -> tuple[Image.Image, dict, np.ndarray]:
    image, _, pixels = grey()
    image = Image.merge("LA", (image, Image.fromarray(alpha().copy())))
    return image, {}, over_white(pixels, alpha())


def colour_and_alpha() -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(np.concatenate([colours(), alpha()[..., None]], -1))
    return image, {}, over_white(colours(), alpha())


def palette() -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(colours()).quantize(16)
    return image, {}, np.asarray(image.convert("RGB"))


def clear_palette() -> tuple[Image.Image, dict, np.ndarray]:
    image, _, pixels = palette()
    pixels = np.where((np.asarray(image) == 3)[..., None], 255, pixels).astype(np.uint8)
    return image, {"transparency": 3}, pixels


def one_bit() -> tuple[Image.Image, dict, np.ndarray]:
    marks = np.indices((12, 20)).sum(0) % 3 == 0
    return Image.fromarray(marks), {}, np.repeat(marks[..., None] * np.uint8(255), 3, -1)


def four_inks() -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(colours()).convert("CMYK")
    return image, {}, colours()


def phone_stack() -> tuple[Image.Image, dict, np.ndarray]:
    image = Image.fromarray(colours())
    return image, {"save_all": True, "append_images": [Image.new("RGB", (5, 3))], "quality": 100}, colours()


def plain() -> tuple[Image.Image, dict, np.ndarray]:
    return Image.fromarray(colours()), {}, colours()


PICTURES = {
    "plain.bmp": plain, "turned3.png": partial(turned, 3), "turned5.png": partial(turned, 5),
    "turned6.jpg": partial(turned, 6), "turned6.webp": partial(turned, 6), "turned6.tif": turned_tiff,
    "grey.png": grey, "grey_alpha.png": grey_and_alpha, "colour_alpha.png": colour_and_alpha,
    "colour_alpha.webp": colour_and_alpha, "palette.png": palette, "palette.gif": palette,
    "clear_palette.png": clear_palette, "clear_palette.gif": clear_palette, "one_bit.png": one_bit,
    "one_bit.tif": one_bit, "four_inks.tif": four_inks, "four_inks.jpg": four_inks, "phone.jpg": phone_stack,
}  # fmt: skip
if HAS_AVIF:
    PICTURES["turned6.avif"] = partial(turned, 6)
LOSSY = {"turned6.jpg": 24, "turned6.avif": 24, "four_inks.jpg": 24, "phone.jpg": 16}  # tolerances, of 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder with all odd pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, make in PICTURES.items():
        image, options, _ = make()
        options = {"lossless": True, **options} if name.endswith(".webp") else options
        image.save(folder / name, format="MPO" if name == "phone.jpg" else None, **options)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """Address of a server of the folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def read_only_frame(source) -> np.ndarray:
    """The one frame of a video, as the video processor reads it."""
    (video,) = list_videos(source)
    if isinstance(video, list) and not isinstance(video[0], (str, bytes, dict)):
        return frames_to_tensor(video, "the video")[0].permute(1, 2, 0).numpy()
    frames, metadata = read_video(video, lambda metadata: range(metadata.total_num_frames))
    assert metadata.total_num_frames == 1 and frames.shape[1:3] == (metadata.height, metadata.width)
    return frames[0]


def read_alone(read, path: Path, tmp_path: Path) -> np.ndarray:
    """Read a folder that holds one picture alone."""
    (tmp_path / f"00000{path.suffix}").write_bytes(path.read_bytes())
    return read(str(tmp_path))


def read_scene(path: Path, folder: Path) -> np.ndarray:
    folder.mkdir()
    (folder / "00000.jpg").write_bytes(path.read_bytes())  # the content says what it is
    return PosedVideo.from_folder(folder).frames[0]


STORED_DOORS = {
    "path": str,
    "Path": Path,
    "file URL": lambda path: path.as_uri(),
    "bytes": Path.read_bytes,
    "open file": lambda path: io.BytesIO(path.read_bytes()),
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
    "data URI": lambda path: "data:image/any;base64," + base64.encodebytes(path.read_bytes()).decode(),
    "datasets bytes": lambda path: {"bytes": path.read_bytes(), "path": None},
    "datasets path": lambda path: {"bytes": None, "path": str(path)},
    "PIL": Image.open,
    "PIL, loaded": lambda path: (image := Image.open(path), image.load())[0],
}


class TestOnePixelOneRule:
    @pytest.mark.parametrize("name", PICTURES)
    def test_a_picture_is_upright_over_white_and_8_bit(self, folder, name):
        expected = PICTURES[name]()[2].astype(int)
        pixels = read_image(folder / name)
        assert pixels.shape == expected.shape and pixels.dtype == np.uint8
        assert np.abs(pixels - expected).max() <= LOSSY.get(name, 0)

    @pytest.mark.parametrize("name", PICTURES)
    @pytest.mark.parametrize("door", STORED_DOORS)
    def test_every_source_gives_the_same_pixels(self, folder, name, door):
        np.testing.assert_array_equal(read_image(STORED_DOORS[door](folder / name)), read_image(folder / name))

    @pytest.mark.parametrize("name", PICTURES)
    def test_every_kind_of_video_gives_the_same_pixels(self, folder, address, tmp_path, name):
        path, expected = folder / name, read_image(folder / name)
        url = f"{address}/{name}"
        value = {"bytes": None, "path": str(path)}
        stored = [str(path), [str(path)], [path.read_bytes()], [value], url, [f"{url}?a=1"]]
        for source in (*stored, Image.open(path), [Image.open(path)]):
            np.testing.assert_array_equal(read_only_frame(source), expected, err_msg=str(source)[:60])
        np.testing.assert_array_equal(read_alone(read_only_frame, path, tmp_path), expected)
        np.testing.assert_array_equal(read_scene(path, tmp_path / "scene"), expected)

    @pytest.mark.parametrize("name", PICTURES)
    def test_the_processor_takes_them_all(self, folder, address, processor, name):
        path = folder / name
        expected = processor(text="<image>", images=read_image(path), return_tensors="pt")["pixel_values"]
        for source in (Image.open(path), str(path), path.read_bytes(), [[f"{address}/{name}"]]):
            inputs = processor(text=["<image>"], images=source, return_tensors="pt")
            assert torch.equal(inputs["pixel_values"], expected)
        content = base64.b64encode(path.read_bytes()).decode()
        for part in (
            {"path": str(path)},
            {"image": Image.open(path)},
            {"base64": content},
            {"url": f"{address}/{name}"},
        ):
            chat = [{"role": "user", "content": [{"type": "image", **part}]}]
            inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
            assert torch.equal(inputs["pixel_values"], expected)

    def test_no_decoder_that_goes_is_used(self, folder, processor, monkeypatch):
        """Transformers says so by its logger, once a process, and not by a warning."""
        said = []
        monkeypatch.setattr(logging.Logger, "warning_once", lambda self, message, *_: said.append(message))
        monkeypatch.setattr(logging.Logger, "warning", lambda self, message, *_: said.append(message))
        for kind in ("image", "video"):
            chat = [{"role": "user", "content": [{"type": kind, "path": str(folder / "turned6.jpg")}]}]
            processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
        assert [message for message in said if "deprecat" in message] == []

    def test_arrays_with_transparency_lie_over_white_too(self, processor):
        image, _, expected = colour_and_alpha()
        pixels = np.asarray(image)
        assert (frames_to_tensor(pixels[None], "it")[0].permute(1, 2, 0).numpy() == expected).all()
        for array in (pixels, torch.from_numpy(pixels.transpose(2, 0, 1).copy())):
            inputs = processor(text="<image>", images=array, return_tensors="pt")
            right = processor(text="<image>", images=Image.fromarray(expected), return_tensors="pt")
            assert torch.equal(inputs["pixel_values"], right["pixel_values"])
        with pytest.raises(ValueError, match="transparency hold 8 bit"):
            frames_to_tensor(np.zeros((1, 6, 5, 4), np.float32), "it")

    def test_a_picture_of_three_rows_is_not_taken_for_three_channels(self, processor, tmp_path):
        picture = np.random.default_rng(0).integers(0, 256, (3, 9, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "a.png")
        right = torch.from_numpy(picture).permute(2, 0, 1)
        for source in (str(tmp_path / "a.png"), Image.fromarray(picture)):
            inputs = processor(text="<image>", images=source, return_tensors="pt")
            expected = processor(text="<image>", images=right, input_data_format="channels_first", return_tensors="pt")
            assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
            video = processor.video_processor(source, return_tensors="pt")["pixel_values_videos"][0]
            assert torch.equal(video, expected["pixel_values"])


def png(depth: int, kind: int, channels: int, value: int) -> bytes:
    """PNG of 4 x 3 pixels, which Pillow cannot write, by its specification."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 4, 3, depth, kind, 0, 0, 0)
    row = b"\0" + np.full((4, channels), value, f">u{depth // 8}").tobytes()
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(3 * row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


class TestDepthIsNoPicture:
    DEPTH = (np.uint16, np.int32, np.float32)

    @pytest.mark.parametrize("dtype", DEPTH)
    def test_images_of_more_bits_are_refused_by_every_door(self, processor, tmp_path, dtype):
        image, path = Image.fromarray(np.full((12, 20), 1500, dtype)), tmp_path / "00000.tif"
        image.save(path)
        for source in (image, str(path), path.read_bytes()):
            with pytest.raises(ValueError, match="looks like depth"):
                processor(text="<image>", images=source)
        for source in (image, [image, image], str(path), [str(path)], str(tmp_path)):
            with pytest.raises(ValueError, match="looks like depth"):
                processor.video_processor(source)
        path.rename(tmp_path / "00000.jpg")
        with pytest.raises(ValueError, match=r"00000\.jpg .*looks like depth"):
            PosedVideo.from_folder(tmp_path)
        with pytest.raises(ValueError, match="looks like depth"):
            inspect_image(tmp_path / "00000.jpg")

    @pytest.mark.parametrize("dtype", [*DEPTH, np.float64])
    def test_arrays_of_larger_numbers_are_refused(self, processor, dtype):
        pixels = np.full((12, 20, 3), 1500, dtype)
        with pytest.raises(ValueError, match="Is it depth"):
            processor(text="<image>", images=pixels)
        with pytest.raises(ValueError, match="Is it depth"):
            processor.video_processor(pixels[None])

    def test_scaled_floats_are_told_from_unscaled(self, processor):
        pixels = np.full((12, 20, 3), 0.5, np.float32)
        with pytest.raises(ValueError, match="image 0 lie in 0 to 1, but dividing by 255 is on"):
            processor(text="<image>", images=pixels)
        inputs = processor(text="<image>", images=pixels, images_kwargs={"do_rescale": False}, return_tensors="pt")
        assert inputs["pixel_values"].abs().max() < 1e-6

    @pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
    def test_colours_of_16_bits_keep_their_upper_8(self, kind, channels):
        pixels = read_image(png(16, kind, channels, 0xABCD))
        expected = 0xAB if channels == 3 else round(0xAB * 0xAB / 255 + 255 - 0xAB)
        assert pixels.shape == (3, 4, 3) and np.unique(pixels).tolist() == [expected]

    def test_a_png_of_16_bit_grey_is_refused(self):
        with pytest.raises(ValueError, match="looks like depth"):
            read_image(png(16, 0, 1, 0xABCD))


class TestBrokenPictures:
    @pytest.mark.parametrize("name", ["turned6.jpg", "plain.bmp", "grey.png", "colour_alpha.webp", "palette.gif"])
    def test_a_cut_file_is_named(self, folder, processor, tmp_path, name):
        path = tmp_path / name
        whole = (folder / name).read_bytes()
        for length in (0, 8, len(whole) * 2 // 3):
            path.write_bytes(whole[:length])
            for read in (read_image, processor.video_processor, lambda path: processor(text="<image>", images=path)):
                with pytest.raises(ValueError, match=rf"{name} is no readable image"):
                    read(str(path))

    def test_what_is_not_there_or_no_picture(self, tmp_path, address):
        with pytest.raises(FileNotFoundError, match="No image at nowhere.png"):
            read_image("nowhere.png")
        with pytest.raises(FileNotFoundError, match="No image at abcd"):
            read_image("abcd")  # base64, but of nothing
        with pytest.raises(ConnectionError, match="nowhere.png cannot be downloaded"):
            read_image(f"{address}/nowhere.png")
        with pytest.raises(ValueError, match="more than 10 bytes"):
            download(f"{address}/plain.bmp", io.BytesIO(), 10)
        with pytest.raises(TypeError, match="got int"):
            read_image(3)
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        with pytest.raises(ValueError, match="cannot identify"):  # Pillow would start Ghostscript.
            read_image(tmp_path / "a.png")

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_an_orientation_that_cannot_be_read_is_none(self, tmp_path):
        for rubbish in (b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\x7f"):
            Image.fromarray(colours()).save(tmp_path / "a.jpg", exif=rubbish)
            assert read_image(tmp_path / "a.jpg").shape == (12, 20, 3)

    def test_more_pixels_than_pillow_allows(self, folder, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # below 240, where Pillow itself only warns
        with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match=r"plain\.bmp .*20 x 12"):
            read_image(folder / "plain.bmp")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(ValueError, match=r"plain\.bmp is no readable image .*bomb"):
            read_image(folder / "plain.bmp")

    def test_what_is_read_within_the_block_is_named_too(self, folder, tmp_path):
        path = tmp_path / "cut.jpg"
        path.write_bytes((folder / "turned6.jpg").read_bytes()[:-100])
        with pytest.raises(ValueError, match="cut.jpg is no readable"), open_image(path) as image:
            image.load()

    def test_content_decides_where_there_is_no_ending(self, folder, tmp_path):
        (tmp_path / "picture").write_bytes((folder / "grey.png").read_bytes())
        assert is_image(tmp_path / "picture") and is_image((folder / "plain.bmp").read_bytes())
        assert not is_image(b"\0\0\0\x20ftypisom" + bytes(64)) and not is_image("clip.mp4")
        np.testing.assert_array_equal(read_only_frame(str(tmp_path / "picture")), read_image(folder / "grey.png"))


class TestFolders:
    @staticmethod
    def fill(folder: Path, *names: str) -> None:
        for index, name in enumerate(names):
            Image.new("RGB", (8, 6), (9 * index,) * 3).save(folder / name)

    def test_natural_order_and_no_foreign_files(self, tmp_path):
        self.fill(tmp_path, *(f"{index}.jpg" for index in range(12)))
        for name in ("Thumbs.db", ".DS_Store", "._3.jpg", "notes.txt"):
            (tmp_path / name).write_bytes(b"no picture")
        (tmp_path / "13.jpg").mkdir()
        assert [Path(path).stem for path in list_images(str(tmp_path))] == [str(index) for index in range(12)]
        video = PosedVideo.from_folder(tmp_path)
        frames, _ = read_video(str(tmp_path), lambda metadata: range(metadata.total_num_frames))
        np.testing.assert_array_equal(video.frames, frames)

    @pytest.mark.parametrize("names", [("0001.jpg", "1.png"), ("1.jpg", "1.png"), ("a_01.png", "A_1.png")])
    def test_two_pictures_of_one_frame_are_an_error(self, tmp_path, names):
        self.fill(tmp_path, "0.jpg", *names)
        with pytest.raises(ValueError, match="two pictures of one frame"):
            list_images(str(tmp_path))

    @pytest.mark.parametrize(
        ("other", "message"), [("1.jpg", "two pictures of one frame"), ("2.JPG", "frames end with")]
    )
    def test_a_scene_refuses_frames_that_it_would_pass_over(self, tmp_path, other, message):
        self.fill(tmp_path, "00000.jpg", "00001.jpg", other)
        with pytest.raises(ValueError, match=message):
            PosedVideo.from_folder(tmp_path)

    def test_geometry_of_turned_frames_is_an_error(self, folder, tmp_path):
        (tmp_path / "00000.jpg").write_bytes((folder / "turned3.png").read_bytes())
        np.savetxt(tmp_path / "00000.txt", np.eye(4))
        with pytest.raises(ValueError, match=r"EXIF orientation of 00000\.jpg .*exiftool"):
            PosedVideo.from_folder(tmp_path)
        frames = PosedVideo.from_folder(tmp_path, parts=()).frames
        np.testing.assert_array_equal(frames[0], read_image(folder / "turned3.png"))

    def test_geometry_is_matched_by_name(self, tmp_path):
        self.fill(tmp_path, "00000.jpg", "00001.jpg")
        for name in ("0.txt", "1.txt"):
            np.savetxt(tmp_path / name, np.eye(4))
        with pytest.raises(ValueError, match=r"0\.txt .*00000\.txt"):
            PosedVideo.from_folder(tmp_path)


ANIMATED = {"GIF": ".gif", "WEBP": ".webp", "PNG": ".png", "TIFF": ".tif", **({"AVIF": ".avif"} if HAS_AVIF else {})}
LASTS = [100, 100, 200, 100, 100, 400]  # milliseconds


def animate(path: Path, format: str, **options) -> list[Image.Image]:
    pictures = [Image.new("RGB", SIZE, (40 * index, 0, 0)) for index in range(len(LASTS))]
    if format != "TIFF":
        options = {"duration": LASTS, **options}
    if format in ("WEBP", "AVIF"):
        options = {"quality": 100, **({"lossless": True} if format == "WEBP" else {"subsampling": "4:4:4"}), **options}
    pictures[0].save(path, format, save_all=True, append_images=pictures[1:], **options)
    return pictures


def read_all(source) -> tuple[np.ndarray, object]:
    (video,) = list_videos(source)
    return read_video(video, lambda metadata: range(metadata.total_num_frames))


class TestAnimatedPictures:
    @pytest.mark.parametrize("format", ANIMATED)
    def test_every_picture_is_a_frame_by_every_door(self, folder, address, tmp_path, format):
        path = folder / f"animated{ANIMATED[format]}"
        animate(path, format)
        frames, metadata = read_all(str(path))
        np.testing.assert_allclose(frames[:, 5, 5, 0], np.arange(len(LASTS)) * 40, atol=2)
        if format != "TIFF":
            assert metadata.duration == pytest.approx(sum(LASTS) / 1000)
        for source in (f"{address}/{path.name}", Image.open(path), [Image.open(path)], [str(path)]):
            np.testing.assert_array_equal(read_all(source)[0], frames)
        for source in (path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, io.BytesIO(path.read_bytes())):
            np.testing.assert_array_equal(read_video(source, lambda metadata: range(len(LASTS)))[0], frames)
        path.unlink()

    @pytest.mark.parametrize("format", ANIMATED)
    def test_it_is_no_image_and_no_frame(self, processor, tmp_path, format):
        path = tmp_path / f"1{ANIMATED[format]}"
        animate(path, format)
        Image.new("RGB", SIZE).save(tmp_path / "0.bmp")
        for source in (str(path), path.read_bytes(), Image.open(path)):
            with pytest.raises(ValueError, match="holds 6 pictures, where one is expected. Give the file as a video"):
                processor(text="<image>", images=source)
        with pytest.raises(ValueError, match="holds 6 pictures"):
            processor.video_processor(str(tmp_path), do_sample_frames=False)

    def test_an_image_in_memory_stays_at_its_picture(self, tmp_path):
        animate(tmp_path / "a.gif", "GIF")
        with Image.open(tmp_path / "a.gif") as image:
            image.seek(2)
            read_all(image)
            assert image.tell() == 2

    def test_the_default_of_an_apng_is_not_shown(self, tmp_path):
        pictures = [Image.new("RGB", SIZE, (40 * index, 0, 0)) for index in range(4)]
        pictures[0].save(
            tmp_path / "a.png", save_all=True, append_images=pictures[1:], default_image=True, duration=50
        )
        frames, metadata = read_all(str(tmp_path / "a.png"))
        assert frames[:, 0, 0, 0].tolist() == [40, 80, 120] and metadata.fps == pytest.approx(20)

    def test_thumbnails_of_a_tiff_are_not_shown(self, tmp_path):
        small = Image.new("RGB", (5, 3))
        small.encoderinfo = {"tiffinfo": {254: 1}}
        Image.fromarray(colours()).save(tmp_path / "a.tif", save_all=True, append_images=[small])
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colours())

    def test_transparent_pictures_lie_over_white(self, tmp_path):
        pictures = [Image.new("RGBA", SIZE, (40 * index, 0, 0, 0 if index % 2 else 255)) for index in range(4)]
        pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=50)
        assert read_all(str(tmp_path / "a.png"))[0][:, 0, 0, 0].tolist() == [0, 255, 80, 255]

    @pytest.mark.parametrize("format", ANIMATED)
    def test_a_cut_file_is_an_error(self, tmp_path, format):
        path = tmp_path / f"cut{ANIMATED[format]}"
        animate(path, format)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(ValueError, match=f"cut{ANIMATED[format]} is no readable image"):
            read_all(str(path))

    def test_a_header_that_announces_more_than_there_is(self, tmp_path):
        path = tmp_path / "a.png"
        animate(path, "PNG")
        content = bytearray(path.read_bytes())
        place = content.index(b"acTL")
        content[place + 4 : place + 8] = struct.pack(">I", 2**30)
        content[place + 12 : place + 16] = struct.pack(">I", zlib.crc32(content[place : place + 12]))
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"announces {2**30} pictures in"):
            read_all(str(path))

    def test_the_caller_s_fault_is_not_the_file_s(self, tmp_path):
        animate(tmp_path / "a.gif", "GIF")
        with pytest.raises(ValueError, match="frame indices from 0 to 5"):
            read_video(str(tmp_path / "a.gif"), lambda metadata: [6])


def test_a_gif_that_is_cut_anywhere_is_an_error(tmp_path):
    animate(tmp_path / "a.gif", "GIF")
    data = (tmp_path / "a.gif").read_bytes()

    def read(content):
        return read_video(content, lambda metadata: range(metadata.total_num_frames))[0]

    np.testing.assert_array_equal(read(data + b"\0\0"), read(data))
    for end in range(6, len(data)):
        with pytest.raises(ValueError, match="no readable image|cannot be decoded"):
            read(data[:end])


def test_stills_and_animations_in_a_list_are_a_video_each_in_any_order(tmp_path):
    still, moving = str(tmp_path / "still.webp"), str(tmp_path / "moving.webp")
    Image.new("RGB", (8, 6)).save(still)
    animate(moving, "WEBP")
    assert list_videos([still, moving]) == [still, moving] and list_videos([moving, still]) == [moving, still]
    assert list_videos([still, still]) == [[still, still]]
