"""Names, folders and hub ids; the hub is a real HTTP server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from at2_rag.errors import InputError, ModelNotFoundError
from at2_rag.model.hub import BUILT_INS, DEFAULT_MODEL, resolve_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_local_folder_is_taken_as_it_is(model_folder: Path, monkeypatch: Any) -> None:
    assert resolve_model(str(model_folder)) == resolve_model(model_folder) == model_folder
    monkeypatch.chdir(model_folder.parent)
    assert resolve_model("my-model") == model_folder
    monkeypatch.chdir(model_folder.parent.parent)
    assert resolve_model(f"{model_folder.parent.name}/my-model") == model_folder, "no hub id"
    monkeypatch.setenv("HOME", str(model_folder.parent))
    monkeypatch.setenv("USERPROFILE", str(model_folder.parent))
    assert resolve_model("~/my-model") == model_folder


def test_everything_missing_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config.*; no tokenizer.*; no safe") as caught:
        resolve_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
def test_files_that_never_end_are_refused(model_folder: Path) -> None:
    os.mkfifo(model_folder / "tokenizer_config.json")
    (model_folder / "generation_config.json").symlink_to("/dev/zero")
    (model_folder / "lost.json").symlink_to("nowhere")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(model_folder)
    assert str(caught.value).count("is neither a file nor a folder") == 2


def test_pickled_weights_are_refused(model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"pickle \(pytorch_model\.bin\), which is never"):
        resolve_model(model_folder)


@pytest.mark.parametrize("name", ["gpt2", "", "a/b/c", "a\0b", "~nobody/x", "é/x"])
def test_unknown_names_list_the_built_ins(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="isn't a folder and neither") as caught:
        resolve_model(name)
    assert DEFAULT_MODEL in str(caught.value)
    assert repr(name) in str(caught.value)


def test_near_misses_are_named(model_folder: Path, monkeypatch: Any) -> None:
    with pytest.raises(ModelNotFoundError, match=f"did you mean {DEFAULT_MODEL}"):
        resolve_model("SmolLM2-135M-instruct")
    with pytest.raises(ModelNotFoundError, match="did you mean .*my-model"):
        resolve_model(str(model_folder.parent / "my-modle"))


def test_a_file_and_a_path_that_is_not_there(model_folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is a file, not a folder"):
        resolve_model(model_folder / "config.json")
    for name in ("owner/name", DEFAULT_MODEL):
        with pytest.raises(ModelNotFoundError, match="isn't a folder; .* pass the name as a str"):
            resolve_model(Path(name))


def test_revision_is_for_hub_ids_only(model_folder: Path) -> None:
    for name in (DEFAULT_MODEL, str(model_folder)):
        with pytest.raises(InputError, match="revision is 'main', but"):
            resolve_model(name, revision="main")


COMMIT = "1" * 40
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "modeling_new.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
}


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a snapshot takes; knows the repository owner/name."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)  # type: ignore[attr-defined]
        if path.startswith("/api/models/owner/name/revision/"):
            known = path.endswith(("/main", "/v2", COMMIT))
            if not known:
                return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "owner/name", "sha": COMMIT, "siblings": siblings}
            return self._answer(200, json.dumps(info).encode())
        if path.startswith("/api/models/owner/name/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                for name, content in FILES.items()
            ]
            return self._answer(200, json.dumps(tree).encode())
        name = path.removeprefix(f"/owner/name/resolve/{COMMIT}/")
        if name in FILES:
            headers = {"ETag": f'"{_oid(FILES[name])}"', "X-Repo-Commit": COMMIT}
            return self._answer(200, FILES[name], headers)
        return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        server.requests = []  # type: ignore[attr-defined]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def resolve_in_child(name: str, revision: str | None = None) -> tuple[str, str]:
    """In a child process: the hub's client reads its settings when it is imported."""
    script = (
        "import sys; from at2_rag.errors import ModelNotFoundError\n"
        "from at2_rag.model.hub import resolve_model\n"
        "try: print(resolve_model(sys.argv[1], revision=sys.argv[2] or None))\n"
        "except ModelNotFoundError as error: print('error:', error)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name, revision or ""],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("revision", [None, "v2"])
def test_hub_model_is_fetched_without_code_and_pickles(
    hub: ThreadingHTTPServer, monkeypatch: Any, revision: str | None
) -> None:
    said, err = resolve_in_child("owner/name", revision)
    folder = Path(said)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert "Fetching" not in err and "%" not in err
    requests = hub.requests  # type: ignore[attr-defined]
    assert not [path for path in requests if path.endswith((".bin", ".py", "onnx/config.json"))]
    assert f"/api/models/owner/name/revision/{revision or 'main'}" in requests

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_in_child("owner/name", revision)[0] == said


def test_hub_knows_no_such_model_or_revision(hub: ThreadingHTTPServer) -> None:
    said, _ = resolve_in_child("owner/other")
    assert said.startswith(
        "error: the model 'owner/other' can't be fetched; tried (1) a local folder"
    )
    assert "RepositoryNotFoundError" in said and DEFAULT_MODEL in said
    said, _ = resolve_in_child("owner/name", "v9")
    assert "'owner/name' at revision 'v9'" in said and "RevisionNotFoundError" in said


def test_hub_without_a_network(hub: ThreadingHTTPServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said, _ = resolve_in_child("owner/name")
    assert "(2) the hub and its local cache: LocalEntryNotFoundError" in said
    assert "\n" not in said


@pytest.mark.default_model
def test_the_default_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(DEFAULT_MODEL)
    built_in = BUILT_INS[DEFAULT_MODEL]
    assert resolve_model(DEFAULT_MODEL) == folder == built_in.cached.folder
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size == pytest.approx(built_in.size, rel=0.001)

    # Head weights are fitted on exactly these files; other bytes need another cache format.
    expected = {
        "config.json": "1b806b8bf76c1b98c2dacf16ec4eca49e1b379a286c515a58dd620d52cd1c42c",
        "model.safetensors": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        "tokenizer.json": "7d27c493c729a66ecefc837280b05d948b1ed50d130eebdbf911b1b36cf38ed7",
    }
    for name, digest in expected.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
