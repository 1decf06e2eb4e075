# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Space as programs reach it: requests by hand, which no page sends."""

import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from remamber_hf.inference.loading import BUNDLED_PICTURES


pytest.importorskip("gradio", reason="Gradio is missing; `make test-space` installs it")

import app


PICTURE = BUNDLED_PICTURES / "shapes_3.png"
FORGOTTEN = "Picture and result were deleted"


class Client:
    """A visitor without a browser."""

    def __init__(self, url: str, folder: Path, blocks):
        self.url, self.folder = url.rstrip("/"), folder
        self.numbers = {function.name: number for number, function in blocks.fns.items()}

    def upload(self, content: bytes, name: str = "picture.png") -> str:
        border = uuid.uuid4().hex
        head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
        with urlopen(Request(f"{self.url}/gradio_api/upload", body, kind), timeout=60) as answer:
            return json.load(answer)[0]

    def call(self, name: str, *data, session: str | None = None) -> list[dict]:
        """What the server sends until it has finished."""
        session = session or uuid.uuid4().hex
        body = json.dumps({"data": data, "fn_index": self.numbers[name], "session_hash": session}).encode()
        kind = {"Content-Type": "application/json"}
        urlopen(Request(f"{self.url}/gradio_api/queue/join", body, kind), timeout=60).close()
        messages = []
        with urlopen(f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=60) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    messages.append(json.loads(line[6:]))
                    if messages[-1]["msg"] == "process_completed":
                        return messages
        raise AssertionError(messages)

    def segment(self, picture, text="the purple star", threshold=0.5, **options) -> tuple[str, str]:
        """What is said about a request, and the path of the overlay, each "" if there is none."""
        messages = self.call("segment", picture, text, None, threshold, **options)
        said = " ".join(str(message.get("log", "")) for message in messages if message["msg"] == "log")
        output = messages[-1]["output"]
        said += str(output.get("error") or "")
        shown = [entry["path"] for entry in output.get("data") or [] if isinstance(entry, dict) and "path" in entry]
        return said, shown[0] if shown else ""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradio").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        blocks = app.build_app(app.load_segmenters(None))
        _, url, _ = app.launch(blocks, prevent_thread_lock=True, quiet=True)
        yield Client(url, folder, blocks)
        blocks.close(verbose=False)


def file_data(path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_an_upload_is_segmented(client):
    path = client.upload(PICTURE.read_bytes())
    for upload in (file_data(path), {"path": path}):
        said, overlay = client.segment(upload)
        assert said == "" and Path(overlay).is_relative_to(client.folder)


def test_no_other_file_is_shown_and_nothing_is_told_of_what_there_is(client, tmp_path, capfd):
    (tmp_path / "private.png").write_bytes(PICTURE.read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    upload = Path(client.upload(PICTURE.read_bytes()))
    (upload.parent / "link.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(upload.parent / "pipe.png")
    inside = [upload.parent / name for name in ("link.png", "pipe.png", "none.png")]
    inside += [upload.parent, client.folder / ".." / tmp_path.name / "private.png", f"{upload}/", f"{upload}\0"]
    outside = [tmp_path / name for name in ("private.png", "text.png", "pipe.png", "none.png")]
    outside += [tmp_path, PICTURE, "/etc/passwd", "/dev/zero", "private.png", "", "file:///etc/passwd"]
    requests = [{"path": str(path)} for path in inside + outside if str(path) != f"{upload}/"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.segment, requests))
    for request, (said, overlay) in zip(requests, answers):
        assert overlay == "", request
        assert FORGOTTEN in said, (request, said)
    assert len({said for said, _ in answers}) == 1
    for malformed in ({"path": None}, {"path": 7}, {}, {"url": "http://127.0.0.1:9/a.png"}, [], "a.png", 7):
        assert client.segment(malformed)[1] == ""
    # Those that say that they are uploads are refused by Gradio, without a word.
    assert {client.segment(file_data(path)) for path in outside} == {("", "")}
    assert client.segment({"path": str(upload)})[0] == ""  # nobody holds the model


@pytest.mark.parametrize("threshold", ["x", "0.5", None, float("nan"), float("inf"), -1, 2, True, [], {}])
def test_a_threshold_that_is_none_is_told_clearly(client, threshold, capfd):
    path = client.upload(PICTURE.read_bytes())
    session = uuid.uuid4().hex
    said, overlay = client.segment({"path": path}, threshold=threshold)
    assert "The threshold is no number from 0 to 1" in said and overlay == ""
    assert client.segment({"path": path}, session=session)[0] == ""
    messages = client.call("redraw", None, None, threshold, session=session)
    assert "The threshold is no number from 0 to 1" in json.dumps(messages)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (7, "no text"),
        (["the star"], "no text"),
        ({"a": 1}, "no text"),
        (True, "no text"),
        (None, "There is no expression"),
        ("half \ud83d of one", "half of a letter"),
        ("the star " * 20, "too long for the model"),
        ("<|endoftext|>", "leave out special tokens"),
    ],
)
def test_what_is_no_expression_is_told_clearly(client, text, message, capfd):
    said, overlay = client.segment({"path": client.upload(PICTURE.read_bytes())}, text=text)
    assert message in said and overlay == ""
    assert "Traceback" not in "".join(capfd.readouterr())


def test_eight_visitors_at_once_get_their_own_results(client):
    wanted = {"shapes_1.png": "the yellow square", "shapes_2.png": "the red circle", "shapes_3.png": "the purple star"}
    paths = {name: client.upload((BUNDLED_PICTURES / name).read_bytes()) for name in wanted}

    def overlay_of(name: str) -> bytes:
        said, overlay = client.segment({"path": paths[name]}, wanted[name])
        assert said == ""
        return Path(overlay).read_bytes()

    expected = {name: overlay_of(name) for name in wanted}
    names = list(wanted) * 5
    with ThreadPoolExecutor(8) as pool:
        for name, content in zip(names, pool.map(overlay_of, names)):
            assert content == expected[name]
