"""Own images that git does not track, named by a relative path, in the copy where DVC works."""

from pipelines import OWN, make_own_images, make_repository, ran, run, shrink


def test_a_relative_path_is_found_from_a_temporary_copy(tmp_path):
    def add(params):
        shrink(params)
        params["data"]["source"] = "official"  # nothing is drawn
        params["datasets"]["parts"] = OWN

    tmp_path.joinpath("repository").mkdir()
    folder = make_repository(tmp_path / "repository", add)
    make_own_images(folder / "mine")
    with (folder / ".git/info/exclude").open("a") as file:
        file.write("/mine/\n")
    output = run(folder, "dvc", "exp", "run", "--temp", "-n", "copy", "download@parts")
    assert ran(output) == ["check", "sample", "download@parts"]
    assert not (folder / "data").exists()
    run(folder, "dvc", "exp", "apply", "copy")
    taken, own = (
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*.*")}
        for place in (folder / "data/raw/parts", folder / "mine")
    )
    assert taken == own != {}
