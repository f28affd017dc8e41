"""Public benchmarks from the folders people already have: samples, scenes, prompts, and a doctor for the data.

    >>> from processing.benchmarks import TASKS, build_prompt, load_scene, load_task
    >>> sorted(TASKS)
    ['multi3drefer', 'nr3d', 'revsi', 'scan2cap', 'scanqa', 'scanrefer', 'sqa3d', 'vsibench']
    >>> TASKS["scanqa"].needs
    ('frames',)

A sample holds question and answers, a scene gives the pictures, and the prompt registry joins them::

    samples = load_task("scanqa", "val", "data")              # datasets.Dataset, columns as FEATURES
    sample = samples[0]
    video = load_scene("data", sample["scene_id"], frame_names=sample["frame_names"])   # PosedVideo, frames alone

    text = build_prompt("scanqa", sample, protocol="clean", stage="eval")   # the words behind the video
    chat = build_chat("scanqa", sample, protocol="clean", stage="train")    # messages, in training with the answer

`load_task` opens no picture, and `load_scene` opens the files of `parts` only: question answering reads RGB frames.
Samples of one scene stand together in the order of the file; `scene_id` groups them. Columns (`FEATURES`):

    id: str, unique in an evaluation split.
    task: str, key of TASKS.
    scene_id: str, "scannet/scene0000_00"; a video file of VSI-Bench is "vsibench/scannet/scene0000_00",
        one of ReVSI "revsi/32_frame/scene0000_00".
    question: description to find (ScanRefer, Multi3DRefer), question (ScanQA, VSI-Bench), situation and question
        (SQA3D), "" (Scan2Cap).
    options: the choices of a multiple choice question, "A. 3" and so on; else empty.
    answers: every reference answer or caption; empty for grounding.
    question_type: str as the benchmark names it, such as "unique", "zt_w_d", "what", "object_counting".
    candidate_boxes: boxes to choose from (grounding); else empty.
    gt_boxes: boxes that are right: one (ScanRefer, Scan2Cap), none or more (Multi3DRefer); else empty.
    object_ids: ids of those objects. In the boxes of the train split an id is the index into candidate_boxes.
    input_box: the box to describe (Scan2Cap); empty where no proposal comes near the object.
    frame_names: names of the frames to show, in order of time; empty where the scene is a video file, which
        `load_scene` samples.
    source_text: the user's words as the file has them, verbatim; "" where it has none.
    metadata: all other facts of the sample in the file, as JSON text.

Boxes are (cx, cy, cz, dx, dy, dz), float64, metres, axis aligned in the axis-aligned world frame of ScanNet, which is
the world frame of `load_scene(..., parts=("frames", "poses"))`.

`requirements_for` says which parts and files a task opens in which mode: "proposals" gives a model the benchmark's
boxes, "rgb_only" opens frames alone. `load_task(..., mode="rgb_only")` reads no box.

`ide3d doctor DATA` lists the splits of a folder that can be used, and `ide3d rooms export TARGET` writes a complete
example of such a folder.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
