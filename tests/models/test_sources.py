import contextlib
import hashlib
import http.client
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dti_geom.errors import ModelFilesError
from dti_geom.models.downloads import in_units, plan_download
from dti_geom.models.sources import Folder, HubRepository, read_json
from remote import open_remote, run
from variants import with_variants


@pytest.mark.slow
def test_a_remote_model_costs_the_bytes_of_its_token_tables_and_gives_the_local_answer(
    local_hub: Any, sdxl_folder: Path, tmp_path: Path
) -> None:
    local_hub.repositories["some/sdxl"] = sdxl_folder
    remote = run(local_hub.url, tmp_path, "norms", "--model", "some/sdxl", "--json")
    assert remote.returncode == 0, remote.stderr
    local = run(local_hub.url, tmp_path, "norms", "--model", str(sdxl_folder), "--json")
    assert json.loads(remote.stdout)["encoders"] == json.loads(local.stdout)["encoders"]
    for tower, width in (("text_encoder", 32), ("text_encoder_2", 48)):
        weights = f"{tower}/model.safetensors"
        size = (sdxl_folder / weights).stat().st_size
        table = 528 * width * 4
        assert local_hub.sent[weights] <= table + min(
            1 << 17, size
        )  # the table, and one read for the header
    assert not any(file.startswith(("unet", "vae")) for file in local_hub.sent)


@pytest.mark.slow
def test_a_remote_table_is_fetched_once(local_hub: Any, sd15_folder: Path, tmp_path: Path) -> None:
    local_hub.repositories["some/sd15"] = sd15_folder
    assert (
        run(
            local_hub.url, tmp_path, "neighbors", "cat", "--model", "some/sd15", "--json"
        ).returncode
        == 0
    )
    local_hub.sent.clear()
    again = run(local_hub.url, tmp_path, "neighbors", "cat", "--model", "some/sd15", "--json")
    assert again.returncode == 0
    assert local_hub.sent["text_encoder/model.safetensors"] <= 1 << 17  # at most the header


@pytest.mark.slow
def test_a_server_without_ranges_still_answers(
    local_hub: Any, sd15_folder: Path, tmp_path: Path
) -> None:
    local_hub.repositories["some/sd15"] = sd15_folder
    local_hub.ranges = False
    got = run(local_hub.url, tmp_path, "norms", "--model", "some/sd15", "--json")
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["encoders"][0]["vocab_size"] == 528


@pytest.mark.slow
def test_remote_shards_are_found_through_their_index(
    local_hub: Any, sana_folder: Path, tmp_path: Path
) -> None:
    local_hub.repositories["some/sana"] = sana_folder
    got = run(local_hub.url, tmp_path, "norms", "--model", "some/sana", "--json")
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["encoders"][0]["dim"] == 32
    assert json.loads(got.stdout)["encoders"][0]["special"]


@pytest.mark.slow
def test_a_remote_pipeline_costs_what_its_plan_says_and_is_fetched_once(
    local_hub: Any, sd15_pipeline: Path, tmp_path: Path
) -> None:
    folder = with_variants(sd15_pipeline, tmp_path / "published", full=True)
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"never to be sent")
    local_hub.repositories["some/sd15"] = folder
    got = open_remote(local_hub.url, tmp_path, "some/sd15")
    assert got.returncode == 0, got.stderr
    plan = plan_download(str(folder), "bfloat16")
    small = sum(file.bytes for file in plan.files if file.name.endswith("model_index.json"))
    missing = plan.bytes - small
    assert f"downloading {in_units(missing)} of some/sd15: unet/" in got.stderr
    assert f"('downloading some/sd15', {missing}, {missing})" in got.stdout
    needed = {file.name: file.bytes for file in plan.files} | {
        "model_index.json": (folder / "model_index.json").stat().st_size
    }
    assert {name: sent for name, sent in local_hub.sent.items() if name != "listing"} == needed
    local_hub.sent.clear()
    again = open_remote(local_hub.url, tmp_path, "some/sd15")
    commit = hashlib.sha1(b"main").hexdigest()  # as the local server names it
    assert again.stdout == f"nothing to fetch\ncommit {commit}\n"
    assert set(local_hub.sent) == {"listing"}
    offline = open_remote(local_hub.url, tmp_path, "some/sd15", HF_HUB_OFFLINE="1")
    assert offline.stdout == again.stdout, offline.stderr
    words = ("neighbors", "cat", "--model", "some/sd15")
    measured = run(local_hub.url, tmp_path, *words, HF_HUB_OFFLINE="1")
    assert measured.returncode == 0, measured.stderr


@pytest.mark.slow
def test_a_revision_opens_its_own_files(
    local_hub: Any, sd15_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    local_hub.repositories["some/model"] = sd15_folder
    local_hub.revisions["some/model/two-towers"] = sdxl_folder
    counts = {}
    for model in ("some/model", "some/model@two-towers"):
        got = run(local_hub.url, tmp_path, "norms", "--model", model, "--json")
        assert got.returncode == 0, got.stderr
        counts[model] = len(json.loads(got.stdout)["encoders"])
    assert counts == {"some/model": 1, "some/model@two-towers": 2}
    absent = run(local_hub.url, tmp_path, "norms", "--model", "some/model@v9")
    assert absent.returncode == 1
    assert "has no revision 'v9'" in absent.stderr


@pytest.mark.parametrize(
    ("model", "environment", "said"),
    [
        ("nobody/nothing", {}, "there is no model repository 'nobody/nothing'"),
        (
            "nobody/nothing",
            {"HF_HUB_OFFLINE": "1"},
            "is not on this machine and the Hub did not give it",
        ),
        (
            "nobody/nothing",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "is not on this machine and the Hub did not give it",
        ),
    ],
)
def test_an_absent_repository_is_one_line(
    local_hub: Any, tmp_path: Path, model: str, environment: dict[str, str], said: str
) -> None:
    got = run(local_hub.url, tmp_path, "norms", "--model", model, **environment)
    assert got.returncode == 1
    assert said in got.stderr
    assert "Traceback" not in got.stderr
    assert got.stdout == ""


def failing(answer: bytes) -> Iterator[str]:
    """The address of a server that sends these bytes, whatever is asked, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed at the end of the test
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def oops(status: int) -> bytes:
    """An answer with this status. It says that it closes: the client must not ask there again."""
    return b"HTTP/1.1 %d Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nETag: x\r\nX-Repo-Commit: " + b"1" * 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "scheme", "said"),
    [
        (oops(503), "http", "try again in a few minutes"),
        (oops(429), "http", "try again in a few minutes"),
        (b"SSH-2.0-OpenSSH\r\n", "http", "Check the network"),
        (b"no TLS", "https", "Check the network"),
        (CUT + b"\r\n\r\n{", "http", "Check the network"),
    ],
    ids=["503", "429", "garbage", "no TLS", "truncated"],
)
def test_a_server_in_trouble_is_one_line(
    answer: bytes, scheme: str, said: str, tmp_path: Path
) -> None:
    with contextlib.contextmanager(failing)(answer) as url:
        got = run(url.replace("http", scheme), tmp_path, "norms", "--model", "some/model")
    assert got.returncode == 1
    assert "Traceback" not in got.stderr
    assert "bug" not in got.stderr
    (line,) = [line for line in got.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "--model ./my-model" in line


def network_errors() -> list[Exception]:
    import requests
    import urllib3.exceptions

    # What huggingface_hub itself speaks with; its later versions take the second.
    name = next(name for name in ("httpx2", "httpx") if find_spec(name))
    httpx: Any = import_module(name)
    pool: Any = None
    return [
        requests.exceptions.ConnectionError("refused"),
        requests.exceptions.ReadTimeout("slow"),
        requests.exceptions.ProxyError("proxy"),
        urllib3.exceptions.ProtocolError("broken"),
        urllib3.exceptions.MaxRetryError(pool, "/file"),
        httpx.ConnectTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        http.client.IncompleteRead(b"half"),
        http.client.RemoteDisconnected("gone"),
        ssl.SSLCertVerificationError("certificate"),
        socket.gaierror(-2, "no such name"),
        TimeoutError("slow"),
    ]


@pytest.mark.parametrize("error", network_errors(), ids=lambda error: type(error).__name__)
def test_network_errors_of_every_library_are_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    with pytest.raises(ModelFilesError, match="Check the network") as raised:
        HubRepository("some/model").has("config.json")
    assert "\n" not in str(raised.value)


def test_an_error_of_our_own_is_not_called_one_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    with pytest.raises(ZeroDivisionError):
        HubRepository("some/model").has("config.json")


@pytest.mark.parametrize("answer", ["<html>Log in to the hotel</html>", "[]", "3"])
def test_a_list_of_files_that_is_none_is_one_line(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def parse(*_: object, **__: object) -> Any:
        return huggingface_hub.ModelInfo(**json.loads(answer))  # type: ignore[no-untyped-call]

    monkeypatch.setattr("huggingface_hub.model_info", parse)
    with pytest.raises(ModelFilesError, match="the answer is no list of files"):
        HubRepository("some/model").sizes()


def test_a_folder_reads_just_the_bytes_asked_for(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(bytes(range(10)))
    folder = Folder(tmp_path)
    assert folder.read("numbers", 2, 5) == bytes([2, 3, 4])
    assert folder.read("numbers", 8, 100) == bytes([8, 9])


def test_a_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"has no config\.json"):
        Folder(tmp_path).local("config.json")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_broken_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelFilesError, match=r"config\.json"):
        read_json(Folder(tmp_path), "config.json")


class Answer:
    """A server's answer to a range request."""

    status_code = 206

    def __init__(self, content_range: str, chunks: Iterable[bytes]) -> None:
        self.headers = {"content-range": content_range} if content_range else {}
        self.chunks = chunks

    def raise_for_status(self) -> None:
        """The status is that of a part."""

    def iter_raw(self, size: int) -> Iterator[bytes]:
        yield from self.chunks

    @contextlib.contextmanager
    def stream(self, *_: object, **__: object) -> Iterator["Answer"]:
        yield self


@pytest.mark.parametrize(
    ("content_range", "chunks", "said"),
    [
        ("bytes 8-15/99", itertools.repeat(bytes(2**20)), "sent more of x than was asked for"),
        ("bytes 8-15/99", [bytes(8), b"x"], "sent more of x than was asked for"),
        ("bytes 0-7/99", [bytes(8)], "sent another part of x"),
        ("", [bytes(8)], "sent another part of x"),
    ],
)
def test_an_answer_other_than_what_was_asked_for_is_refused(
    content_range: str, chunks: Iterable[bytes], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(content_range, chunks)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: answer)
    with pytest.raises(ModelFilesError, match=said):
        HubRepository("a/b").read("x", 8, 16)


def test_an_answer_that_does_not_say_its_length_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Answer("bytes 8-15/*", [b"abc", b"", b"defgh"])
    monkeypatch.setattr("huggingface_hub.get_session", lambda: answer)
    assert HubRepository("a/b").read("x", 8, 16) == b"abcdefgh"


def test_a_configuration_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**33)  # takes no room on the disk
    with pytest.raises(ModelFilesError, match=r"config\.json has 8589934592 bytes"):
        read_json(Folder(tmp_path), "config.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ModelFilesError, match="is not valid JSON"):
        read_json(Folder(tmp_path), "deep.json")
