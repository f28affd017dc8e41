"""A server of the nano model, asked by the stock client `openai`."""

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from example_scripts import load_script
from serving import MODEL, about, as_url, ask, connect, video_part

from ide3d.serving.media import MediaRules, read_chat
from ide3d.serving.memory import SceneMemory
from trainer.session import SceneSession

openai = pytest.importorskip("openai", reason="needs the extra `serve`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")


QUESTIONS = ("Is there a red chair?", "How many chairs are in the room?", "Is there a bed?")


@pytest.fixture
def encoded(loaded, monkeypatch) -> list[int]:
    """Numbers of frames of the videos that the model has encoded."""
    model, _ = loaded
    counts, encode = [], model.model._encode_frames

    def record(frames, *args, **kwargs):
        counts.append(len(frames))
        return encode(frames, *args, **kwargs)

    monkeypatch.setattr(model.model, "_encode_frames", record)
    return counts


@contextmanager
def web(folder) -> Iterator[str]:
    """Serve a folder from this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def expected(loaded, videos) -> list[list[str]]:
    """Answers of a session about each video."""
    return [SceneSession(*loaded, str(video)).ask(QUESTIONS) for video in videos]


def refused(client, part, **options) -> str:
    with pytest.raises(openai.BadRequestError) as told:
        ask(client, about("Is there a red chair?", part), **options)
    assert told.value.body["type"] == "invalid_request_error"
    return told.value.body["message"]


class TestAnswers:
    def test_text_alone(self, served):
        assert isinstance(ask(served[0], about("Is there a red chair?")), str)

    @pytest.mark.parametrize("question", range(3))
    def test_a_video_as_base64_gets_the_answers_of_a_session(self, served, videos, expected, question):
        assert ask(served[0], about(QUESTIONS[question], video_part(as_url(videos[0])))) == expected[0][question]

    def test_a_video_as_file(self, served, videos, expected):
        for data in (as_url(videos[1]), base64.b64encode(videos[1].read_bytes()).decode()):
            part = {"type": "file", "file": {"file_data": data, "filename": "room.mp4"}}
            assert ask(served[0], about(QUESTIONS[1], part)) == expected[1][1]

    def test_pictures_as_base64_and_as_file(self, loaded, served, videos):
        picture = videos[0].with_suffix(".png")
        url = as_url(picture, "image/png")
        model, processor = loaded
        chat = about(QUESTIONS[0], {"type": "image", "path": str(picture)})
        inputs = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True,
                                               return_tensors="pt")  # fmt: skip
        answer = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
        words = processor.decode(answer, skip_special_tokens=True)
        for part in (
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "file", "file": {"file_data": url, "filename": "room.png"}},
        ):
            assert ask(served[0], about(QUESTIONS[0], part), max_tokens=64) == words

    def test_several_turns_and_media(self, served, videos):
        chat = about("How many chairs are in the room?", video_part(as_url(videos[0])))
        chat += [{"role": "assistant", "content": "2"}, *about("Is there a bed?", video_part(as_url(videos[1])))]
        assert ask(served[0], chat)

    def test_tokens_are_streamed(self, served, videos, expected):
        chat = about(QUESTIONS[0], video_part(as_url(videos[0])))
        stream = served[0].chat.completions.create(model=MODEL, messages=chat, stream=True)
        chunks = list(stream)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said == expected[0][0] and chunks[-1].choices[0].finish_reason == "stop"

    @pytest.mark.parametrize("is_streamed", [False, True])
    def test_an_answer_ends_at_a_stop(self, served, videos, expected, is_streamed):
        chat, whole = about(QUESTIONS[0], video_part(as_url(videos[0]))), expected[0][0]
        for stop in (["?!"], whole[0]):
            given = {"model": MODEL, "messages": chat, "stop": stop, "stream": is_streamed}
            answer = served[0].chat.completions.create(**given)
            if is_streamed:
                said = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            else:
                said = answer.choices[0].message.content
            assert said == whole if stop == ["?!"] else whole.startswith(said)

    def test_requests_at_once_get_their_own_answers(self, served, videos, expected):
        asked = [(video, question) for video in range(2) for question in range(3)] * 2
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = pool.map(
                lambda pair: ask(served[0], about(QUESTIONS[pair[1]], video_part(as_url(videos[pair[0]])))), asked
            )
            assert list(answers) == [expected[video][question] for video, question in asked]

    def test_the_model_is_listed_and_no_other_is_loaded(self, served, videos):
        client, _ = served
        assert [model.id for model in client.models.list().data] == [MODEL]
        with pytest.raises(openai.BadRequestError, match="pinned"):
            ask(client, about("Is there a bed?"), model="other/model")
        for path in ("/load_model", "/reset", "/v1/responses", "/v1/completions"):
            with pytest.raises(openai.NotFoundError):
                client.post(str(client.base_url).replace("/v1/", path), body={"model": "other/model"}, cast_to=object)


def test_the_example_asks(served, videos, expected, capsys):
    load_script("ask_server").main([str(videos[0]), *QUESTIONS[:2], "--url", str(served[0].base_url)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == expected[0][:2]


class TestFrames:
    def test_a_clip_shorter_than_asked_for_is_shown_whole(self, loaded, videos, encoded):
        with connect(loaded) as (client, _):
            part = video_part(as_url(videos[0]))
            few = ask(client, about(QUESTIONS[0], part), extra_body={"chat_template_kwargs": {"num_frames": 2}})
            many = ask(client, about(QUESTIONS[0], part), extra_body={"chat_template_kwargs": {"num_frames": 32}})
        assert encoded == [2, 4] and few and many

    def test_frames_of_a_request_are_those_of_the_processor(self, loaded, videos, encoded):
        with connect(loaded) as (client, _):
            ask(client, about(QUESTIONS[0], video_part(as_url(videos[0]))))
        assert encoded == [loaded[1].video_processor.num_frames]

    @pytest.mark.parametrize("count", [0, -1, 2.5, True, "4", 10**6])
    def test_other_numbers_of_frames_are_refused(self, served, videos, count):
        options = {"extra_body": {"chat_template_kwargs": {"num_frames": count}}}
        told = refused(served[0], video_part(as_url(videos[0])), **options)
        assert told.startswith("num_frames must be a whole number from 1 to 113")


class TestMemory:
    def test_a_video_is_encoded_once(self, loaded, videos, encoded):
        with connect(loaded) as (client, app):
            for question in QUESTIONS:
                ask(client, about(question, video_part(as_url(videos[0]))))
            chat = [{"role": "system", "content": "Be short."}, *about(QUESTIONS[0], video_part(as_url(videos[0])))]
            ask(client, chat)  # another prompt, the same visual tokens
            assert encoded == [4] and app.state.memory.store.num_bytes > 0

    def test_what_was_not_used_for_longest_leaves(self, loaded, videos, encoded):
        with connect(loaded) as (client, app):
            ask(client, about(QUESTIONS[0], video_part(as_url(videos[0]))))
            room_for_one = app.state.memory.store.num_bytes
        encoded.clear()
        with connect(loaded, max_memory=int(1.5 * room_for_one)) as (client, app):
            for video in (0, 1, 1, 0):
                ask(client, about(QUESTIONS[0], video_part(as_url(videos[video]))))
                assert app.state.memory.store.num_bytes <= 1.5 * room_for_one
        assert encoded == [4, 4, 4]

    def test_nothing_is_kept_where_nothing_fits(self, loaded, videos, expected):
        with connect(loaded, max_memory=1) as (client, app):
            assert ask(client, about(QUESTIONS[1], video_part(as_url(videos[0])))) == expected[0][1]
            assert len(app.state.memory.store) == 0

    def test_prompts_are_those_of_the_processor(self, loaded, videos):
        model, processor = loaded
        memory = SceneMemory(model, processor, 2**30)
        messages = about(QUESTIONS[0], video_part(as_url(videos[0])))
        chat, media = read_chat(messages, MediaRules())
        inputs = memory.prepare(chat, media, [memory.read_pixels(medium) for medium in media])
        told = processor.apply_chat_template(
            about(QUESTIONS[0], {"type": "video", "path": str(videos[0])}),
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        assert torch.equal(inputs["input_ids"], told["input_ids"])
        kept = inputs["cache"].get_seq_length()
        model.generate(**inputs, max_new_tokens=3)
        again = memory.prepare(chat, media, [memory.read_pixels(medium) for medium in media])
        assert again["cache"].get_seq_length() == kept  # what one answer added is not the next one's


class TestRefusals:
    def test_bad_media_get_the_message_of_the_reader(self, served):
        told = refused(served[0], video_part("data:video/mp4;base64," + base64.b64encode(b"no video").decode()))
        assert "the video of 8 bytes" in told

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (video_part("data:video/mp4;base64,?"), "is no base64"),
            (video_part("data:video/mp4,AAAA"), "must be base64"),
            (video_part("/etc/passwd"), "expected a URL of http, https, data: or file:"),
            (video_part("file:///etc/passwd"), "reads no local files"),
            (video_part("http://127.0.0.1:1/room.mp4"), "private network"),
            (video_part("http://localhost:1/room.mp4"), "private network"),
            (video_part("http://169.254.169.254/latest"), "private network"),
            ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "has the type 'input_audio'"),
            ({"type": "file", "file": {"file_id": "file-1"}}, "no file is kept here"),
            ({"type": "video_url"}, "needs a URL"),
            ({"type": "text", "text": "<video>"}, "may not hold <image>, <video>, <ground>"),
            ({"type": "text", "text": "Where is <ground>?"}, "may not hold <image>, <video>, <ground>"),
        ],
    )
    def test_what_may_not_be_read(self, served, part, words):
        assert words in refused(served[0], part)

    def test_a_chat_that_is_none(self, served):
        for messages in ([], [{"role": "tool", "content": "x"}], [{"role": "user", "content": None}]):
            with pytest.raises(openai.BadRequestError):
                ask(served[0], messages)

    def test_a_long_prompt(self, served, videos):
        with pytest.raises(openai.BadRequestError, match="the context of the model holds 8192"):
            ask(served[0], about("chair " * 9000, video_part(as_url(videos[0]))))

    def test_many_small_videos(self, loaded, videos):
        with connect(loaded, max_memory=1) as (client, _):
            with pytest.raises(openai.BadRequestError, match="at most 113 frames"):
                ask(client, about("Is there a bed?", *[video_part(as_url(videos[0]))] * 29))

    def test_long_requests_do_not_reach_memory(self, loaded, videos):
        with connect(loaded, rules=MediaRules(max_bytes=1000)) as (client, _):
            assert "are left for the pictures and videos" in refused(client, video_part(as_url(videos[0])))
            with pytest.raises(openai.APIStatusError) as told:
                ask(client, about("chair " * 400_000))
            assert told.value.status_code == 413


def form(error) -> tuple:
    """The parts of OpenAI's form of an error, checked to be all there."""
    told = error.response.json()["error"]
    assert set(told) == {"message", "type", "param", "code"} and told["message"]
    return told["type"], told["param"], told["code"]


class TestFields:
    """No field is ignored silently."""

    @pytest.mark.parametrize(
        "field",
        [
            {"n": 2},
            {"logprobs": True},
            {"top_logprobs": 3},
            {"presence_penalty": 0.5},
            {"response_format": {"type": "json_object"}},
            {"tools": [{"type": "function", "function": {"name": "look"}}]},
            {"tool_choice": "required"},
            {"modalities": ["text", "audio"]},
            {"reasoning_effort": "high"},
            {"store": True},
            {"temperature": -1},
            {"temperature": "hot"},
            {"top_p": 0},
            {"max_tokens": 0},
            {"max_completion_tokens": 1.5},
            {"frequency_penalty": -1},
            {"logit_bias": {"chair": 1}},
            {"seed": "x"},
            {"stop": ["no", ""]},
            {"extra_body": {"stream": "yes"}},
            {"extra_body": {"top_k": 5}},
            {"extra_body": {"generation_config": "{}"}},
        ],
        ids=str,
    )
    def test_what_cannot_be_honoured_is_refused_by_name(self, served, field):
        (name,) = field.get("extra_body", field)
        with pytest.raises(openai.BadRequestError, match=name) as told:
            ask(served[0], about("Is there a red chair?"), **field)
        assert form(told.value) == ("invalid_request_error", name, 400)

    def test_an_unknown_field_names_the_nearest(self, served):
        with pytest.raises(openai.BadRequestError, match="Did you mean 'max_tokens'"):
            ask(served[0], about("Is there a red chair?"), extra_body={"max_token": 3})

    def test_what_is_the_default_or_changes_no_answer_is_taken(self, served, videos, expected):
        options = {
            "n": 1, "logprobs": False, "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto",
            "presence_penalty": 0, "user": "someone", "metadata": {"a": "b"}, "service_tier": "auto", "seed": 3,
            "temperature": 0, "top_p": 1, "frequency_penalty": 0, "stop": None, "extra_body": {"top_k": None},
        }  # fmt: skip
        chat = about(QUESTIONS[1], video_part(as_url(videos[0])))
        assert ask(served[0], chat, **options) == expected[0][1]

    @pytest.mark.parametrize("options", [{"temperature": 2}, {"top_p": 0.999}], ids=str)
    def test_answers_are_drawn_and_a_seed_repeats_them(self, served, videos, options):
        """Also while other answers are drawn, and beside one that is greedy by default."""
        chat = about("What colour is the armchair?", video_part(as_url(videos[0])))
        draw = functools.partial(ask, served[0], chat, max_tokens=12, **options)
        greedy = ask(served[0], chat, max_tokens=12)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(draw, seed=seed) for seed in (1, 2, 3, 4) * 2]
            answers = [answer.result() for answer in asked]
        assert answers[:4] == answers[4:]
        assert "top_p" in options or len({*answers, greedy}) > 2
        assert ask(served[0], chat, max_tokens=12) == greedy

    def test_a_bias_forbids_a_token(self, loaded, served, videos, expected):
        (first, *_) = loaded[1].tokenizer(expected[0][1])["input_ids"]
        chat = about(QUESTIONS[1], video_part(as_url(videos[0])))
        assert not ask(served[0], chat, logit_bias={first: -100}).startswith(expected[0][1])


class TestErrors:
    """Every error has OpenAI's form."""

    def test_no_such_path(self, served):
        with pytest.raises(openai.NotFoundError) as told:
            served[0].embeddings.create(model=MODEL, input="a chair")
        assert form(told.value) == ("invalid_request_error", None, 404)

    def test_no_such_method(self, served):
        with pytest.raises(openai.APIStatusError) as told:
            served[0].get("/chat/completions", cast_to=object)
        assert form(told.value) == ("invalid_request_error", None, 405)
        assert told.value.response.headers["allow"] == "POST"

    @pytest.mark.parametrize("body", [[1], "text", None])
    def test_a_body_that_is_no_object(self, served, body):
        with pytest.raises(openai.BadRequestError, match="must be a JSON object") as told:
            served[0].post("/chat/completions", body=body, cast_to=object)
        assert form(told.value) == ("invalid_request_error", None, 400)


class TestAllowed:
    def test_a_host_of_the_list_may_be_private_and_no_other_is_asked(self, loaded, videos, expected):
        with (
            web(videos[0].parent) as address,
            connect(loaded, rules=MediaRules(frozenset({"127.0.0.1"}))) as (client, _),
        ):
            assert ask(client, about(QUESTIONS[1], video_part(f"{address}/room0.mp4"))) == expected[0][1]
            assert "404" in refused(client, video_part(f"{address}/none.mp4"))
            assert "allowed hosts are 127.0.0.1" in refused(client, video_part("http://localhost:1/room0.mp4"))

    def test_files_of_one_folder(self, loaded, videos, expected, tmp_path):
        with connect(loaded, rules=MediaRules(folder=videos[0].parent)) as (client, _):
            assert ask(client, about(QUESTIONS[1], video_part(videos[0].as_uri()))) == expected[0][1]
            (tmp_path / "other.mp4").write_bytes(videos[0].read_bytes())
            (videos[0].parent / "link.mp4").symlink_to(tmp_path / "other.mp4")
            for path in ("other.mp4", tmp_path / "other.mp4", videos[0].parent / "link.mp4"):
                url = f"file://{path}" if str(path)[0] == "/" else (videos[0].parent / ".." / path).as_posix()
                told = refused(client, video_part(url if "://" in url else f"file://{url}"))
                assert "this is none of them" in told
