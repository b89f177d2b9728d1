"""Which graph of a version the twin loads."""

import shutil

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from service.modelserver.errors import NotFound
from service.modelserver.servable import load_servable
from service.modelserver.tags import tags_to_load
from sluice.wire.processor import computes_bfloat16

SERVE, BOTH = ["serve"], ["serve", "bf16"]
CPUS = {
    "flags\t\t: fpu avx512f avx512_bf16 amx_tile": True,
    "flags\t\t: fpu avx512f amx_bf16 amx_tile": True,
    "flags\t\t: fpu avx512_bf16": True,
    "flags\t\t: fpu avx512f avx2": False,
    "flags\t\t: fpu avx512_bf16_of_another_kind": False,
    "model name\t: one with avx512_bf16 in its name\nflags\t\t: fpu": False,
    "": False,
}


@pytest.fixture
def cpu(tmp_path):
    """`cpu(text)` -> a /proc/cpuinfo of such a CPU."""

    def write(text: str):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\n{text}\nbugs\t\t: none\n")
        return path

    return write


@pytest.fixture
def one_graph(conformance_models, tmp_path):
    return shutil.copytree(conformance_models / "affine/1", tmp_path / "affine" / "1")


@pytest.fixture(params=["serve first", "bf16 first"])
def two_graphs(one_graph, conformance_models, request):
    """Of which the second is that of version 2, in either order, on the variables of the first."""
    path = one_graph / "saved_model.pb"
    proto = SavedModel.FromString(path.read_bytes())
    [graph] = proto.meta_graphs
    other = SavedModel.FromString((conformance_models / "affine/2/saved_model.pb").read_bytes())
    other.meta_graphs[0].meta_info_def.tags.append("bf16")
    graphs = [graph, other.meta_graphs[0]]
    both = SavedModel(saved_model_schema_version=proto.saved_model_schema_version)
    both.meta_graphs.extend(graphs if request.param == "serve first" else graphs[::-1])
    path.write_bytes(both.SerializeToString())
    return one_graph


@pytest.mark.parametrize("text", CPUS)
def test_a_cpu_says_whether_it_computes_in_bfloat16(cpu, text):
    assert computes_bfloat16(cpu(text)) == CPUS[text]


def test_where_nobody_says_so_it_does_not(tmp_path):
    assert not computes_bfloat16(tmp_path / "no such file")


def test_auto_takes_the_second_graph_where_both_can(two_graphs, cpu):
    assert tags_to_load(two_graphs, "auto", cpu("flags\t: avx512_bf16")) == BOTH
    assert tags_to_load(two_graphs, "auto", cpu("flags\t: avx2")) == SERVE


def test_auto_serves_what_has_one_graph(one_graph, cpu):
    assert tags_to_load(one_graph, "auto", cpu("flags\t: avx512_bf16")) == SERVE


def test_what_is_asked_for_wins(two_graphs, cpu):
    assert tags_to_load(two_graphs, "serve", cpu("flags\t: avx512_bf16")) == SERVE
    assert tags_to_load(two_graphs, "serve,bf16", cpu("flags\t: avx2")) == BOTH


def test_what_is_no_saved_model_fails_as_it_does_elsewhere(one_graph, cpu):
    (one_graph / "saved_model.pb").write_bytes(b"\xff")
    assert tags_to_load(one_graph, "auto", cpu("flags\t: avx512_bf16")) == SERVE


@pytest.mark.parametrize("tags", [SERVE, BOTH])
def test_each_graph_is_loaded_by_its_tags(two_graphs, tags):
    servable = load_servable(two_graphs, tags, None)
    assert "serving_default" in servable.signatures
    servable.close()


def test_a_tag_that_there_is_not_is_named(one_graph):
    said = r"no graph with the tags serve,bf16, but one with serve: start with --saved_model_tags="
    with pytest.raises(NotFound, match=said):
        load_servable(one_graph, BOTH, None)
