"""Every block of the document is known to these tests."""

from tests.recipes import document

CARRIED_OUT = {
    ("By SSH", "sh"): 1,
    ("SLURM, as one job", "sh"): 1,
    ("SLURM, with dask-jobqueue", "python"): 1,
    ("MPI", "python"): 1,
    ("MPI", "sh"): 1,
    ("Kubernetes", "python"): 1,
}
# Where there is no Kubernetes, there is nothing to build an image for, nor to talk to.
ONLY_READ = {("Kubernetes", "dockerfile"): 1, ("Kubernetes", "sh"): 1}


def test_no_other_blocks() -> None:
    """A recipe that is added to the document is added to the tests, or said not to be."""
    assert document.languages() == CARRIED_OUT | ONLY_READ
