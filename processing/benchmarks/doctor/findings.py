"""Kinds of faults that the data doctor can find, each with its remedy."""

from dataclasses import dataclass

__all__ = ["KINDS", "Finding", "Kind"]


@dataclass(frozen=True)
class Kind:
    """Kind of a finding.

    Attributes:
        part: Part of the data that is spoilt, of `tasks.PARTS`; or "annotations", which every task needs; or "extra",
            which none does.
        stops: Whether the fault stops a task that needs the part.
        fix: Advice in small letters, without a period.
    """

    part: str
    stops: bool
    fix: str


@dataclass(frozen=True)
class Finding:
    """Fault of a benchmark folder.

    Attributes:
        kind: Key of `KINDS`.
        path: File or folder that is at fault.
        detail: Observation in small letters.
        scene_id: Scene that it touches; None touches all, as with `task` and `split`.
        task: Key of `TASKS`.
        split: Name of a split.
    """

    kind: str
    path: str
    detail: str
    scene_id: str | None = None
    task: str | None = None
    split: str | None = None


_AGAIN = "download or copy it again"
_REMAKE = "make it again with the preprocessing script of the model"
_POSES_OUT = "leave these frames out: load_scene(..., skip_invalid_poses=True)"

KINDS = {
    # the folder
    "folder-missing": Kind("annotations", True, "give the folder that holds processed/, metadata/ and scannet/"),
    "folder-nested": Kind("annotations", True, "give the inner folder, or move its contents up"),
    "folder-misspelt": Kind("annotations", True, "rename it to processed/"),
    "path-holds-jpg": Kind("extra", False, "rename the folder; the original replaces every 'jpg' of a path"),
    "unreadable": Kind("annotations", True, "the file is of no known kind: make it again, and report this finding"),
    # samples
    "annotations-missing": Kind("annotations", True, "put the file there, or leave the split out"),
    "annotations-broken": Kind("annotations", True, f"{_AGAIN}; it must be complete JSON (VSI-Bench: parquet)"),
    "annotations-empty": Kind("annotations", True, _REMAKE),
    "field-missing": Kind("annotations", True, _REMAKE),
    "scene-id-bad": Kind(
        "annotations", True, "a scene id is a name below the folder, such as scannet/scene0000_00; correct it"
    ),
    "prompt-foreign": Kind("annotations", True, "the file was made for another model; regenerate it for this one"),
    "id-twice": Kind("annotations", True, "remove the second sample, or give it an id of its own"),
    "train-id-twice": Kind("annotations", False, "training takes both; remove one if they are the same sample"),
    "question-empty": Kind("annotations", True, "remove the sample, or take its text from the benchmark's own file"),
    "answer-missing": Kind("annotations", True, "take the answers from the benchmark's own file"),
    "box-null": Kind("annotations", True, "only box_input of Scan2Cap may be null; take the box from the scan"),
    "box-bad": Kind(
        "annotations", True, "a box is cx, cy, cz, dx, dy, dz in metres, sizes not negative; make it again"
    ),
    "question-type-unknown": Kind("annotations", True, "use the names of the benchmark; scores are split by them"),
    "choice-bad": Kind(
        "annotations", True, "the truth must be the letter of an option, or a number where none is given"
    ),
    "truth-zero": Kind("annotations", False, "the relative error of 0 is undefined; the clean score leaves it out"),
    "split-overlap": Kind("extra", False, "the scene is in train and in evaluation: take it out of the train file"),
    "object-id-unknown": Kind(
        "annotations", True, "boxes and samples are of different versions; make both from one scan"
    ),
    "object-box-differs": Kind(
        "annotations", True, "boxes and samples are of different versions; make both from one scan"
    ),
    "input-boxes-null": Kind(
        "annotations",
        False,
        "no object has a proposal; make the file with the proposals in place",
    ),
    # candidate boxes
    "boxes-missing": Kind("boxes", True, "put the file there; proposals come from Mask3D, gt boxes from the scans"),
    "boxes-broken": Kind("boxes", True, f"{_AGAIN}; it maps scene ids to lists of six numbers"),
    "true-boxes-broken": Kind("extra", False, f"needed for boxes='gt' and to compare boxes with the scans: {_AGAIN}"),
    "boxes-scene-missing": Kind("boxes", True, "make the boxes of this scene too, or take its samples out"),
    "boxes-none": Kind("boxes", True, "a scene without candidates cannot be grounded in; make its proposals again"),
    "boxes-strange": Kind("boxes", True, "boxes and poses must be of one scene, in one world frame, in metres"),
    # frames
    "scene-missing": Kind("frames", True, "copy the scene's folder to posed_images/, or take its samples out"),
    "frames-missing": Kind("frames", True, "extract the frames (NNNNN.jpg) of this scene again"),
    "frame-broken": Kind("frames", True, f"the picture is cut off or no picture: {_AGAIN}"),
    "frame-size-differs": Kind("frames", True, "all frames of a scene must have one size; extract them again"),
    "frame-names-bad": Kind("frames", True, "keep one picture of each frame, named NNNNN.jpg"),
    "frame-missing": Kind("extra", False, "copy the pictures again, or remove their poses and depth"),
    "frame-turned": Kind(
        "poses", True, "geometry belongs to the stored pixels: remove the EXIF orientation, or turn the geometry too"
    ),
    "frame-name-foreign": Kind(
        "extra", False, "name frames by five digits; other pictures of the folder are passed over"
    ),
    "frames-few": Kind("extra", False, "fewer frames than 32: the video is shorter than the original's"),
    "video-missing": Kind("frames", True, "unpack the videos of VSI-Bench to vsibench/<data set>/<scene>.mp4"),
    "video-replaced": Kind("extra", False, "the scene's frames are shown instead; unpack the videos to change that"),
    "video-broken": Kind("frames", True, f"the video cannot be decoded: {_AGAIN}"),
    # poses and cameras
    "pose-missing": Kind("poses", True, "extract the poses (NNNNN.txt) of these frames"),
    "pose-broken": Kind("poses", True, "a pose file holds four rows of four numbers; extract it again"),
    "pose-not-finite": Kind("poses", True, _POSES_OUT),
    "pose-not-rigid": Kind(
        "poses", True, "camera_to_world must be a rotation and a shift in metres; remove the scaling"
    ),
    "camera-missing": Kind("poses", True, "put intrinsic.txt into the scene's folder, or the depth images"),
    "camera-broken": Kind(
        "poses", True, "a camera is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels of its images; write it again"
    ),
    "camera-unread": Kind("extra", False, "needed with poses only: a camera is rows of numbers; write it again"),
    "camera-wrong": Kind("poses", True, "take the camera of these pictures, in pixels of their size"),
    "poses-wrong": Kind("poses", True, "write camera_to_world in OpenCV axes and metres, one file for its own frame"),
    "infos-missing": Kind("poses", True, "put EmbodiedScan's pickle there, or its export by export_pickle_free"),
    "infos-broken": Kind("poses", True, _AGAIN),
    "infos-unsafe": Kind(
        "poses", True, "the pickle would run code: do not open it elsewhere, get it from its authors"
    ),
    "infos-scene-missing": Kind("poses", True, "take EmbodiedScan's file of the right split and version"),
    "alignment-bad": Kind("poses", True, "axis_align_matrix must be a rotation and a shift; get the file again"),
    "infos-stale": Kind("poses", False, "the JSON is older than the pickle; run export_pickle_free again"),
    "frame-list-differs": Kind(
        "extra", False, "EmbodiedScan's list and the folder differ; frames='uniform' uses the folder"
    ),
    # depth
    "depth-missing": Kind("depth", True, "extract the depth (NNNNN.png), or use masks from poses: --without depth"),
    "depth-broken": Kind("depth", True, f"depth is a 16-bit grey PNG: {_AGAIN}"),
    "depth-size-wrong": Kind("depth", True, "depth must show the field of view of the frames, one size a scene"),
    "depth-unit-wrong": Kind("depth", True, "depth files hold millimetres: multiply by 1000 times the unit in metres"),
    "depth-empty": Kind("depth", False, "no pixel is measured in this frame; it supports no region mask"),
    "depth-holes": Kind("depth", True, "the sensor measured next to nothing; extract the depth again"),
    "depth-camera-wrong": Kind("depth", True, "depth_cam2img is of another image size; take that of the depth images"),
    # what is optional
    "selection-broken": Kind("extra", False, f"needed for frames='coverage' only: {_AGAIN}"),
    "selection-frame-missing": Kind("extra", False, "the selection names frames that are not there; select again"),
    "teacher-broken": Kind("extra", False, "needed for distillation only: extract the features again"),
    "teacher-frames-differ": Kind("extra", False, "the store was made from other frames; extract the features again"),
    "mask-broken": Kind("extra", False, f"needed to make proposals only: {_AGAIN}"),
    "mask-size-differs": Kind("extra", False, "mask and point cloud are of different meshes; take both from one"),
    "cloud-broken": Kind("extra", False, f"needed to make proposals only: {_AGAIN}"),
}
