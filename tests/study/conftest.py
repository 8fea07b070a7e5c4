import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dti_geom.study import build_study, read_material, read_study
from dti_geom.study.answers import DATABASE
from dti_geom.study.build import BuiltStudy, Material
from dti_geom.study.server import study_app
from dti_geom.study.storage import AnswerStore
from studies import write_evaluation


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def material(evaluation: Path) -> Material:
    return read_material([evaluation], references=evaluation / "references")


@pytest.fixture(scope="session")
def built(material: Material, tmp_path_factory: pytest.TempPathFactory) -> BuiltStudy:
    return build_study(material, tmp_path_factory.mktemp("study") / "s", seed=987654321, raters=24)


@pytest.fixture
def folder(built: BuiltStudy, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.folder, tmp_path / "study"))


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """Serve in this process."""
    uvicorn = pytest.importorskip("uvicorn")
    store = AnswerStore(folder / DATABASE, read_study(folder))
    config = uvicorn.Config(study_app(folder, store), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()
    store.close()
