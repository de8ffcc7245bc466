"""One long run of the page: who ends it, what of it may still appear, and where its files are."""

import pytest

from dermadeit.views.page.job import FilesJob, Job, JobState


def test_only_the_first_event_takes_the_turn():
    job = Job()
    assert job.start()
    assert not job.start()
    job.finish()
    assert job.state is JobState.DONE
    assert not job.start()


def test_what_is_stopped_before_its_turn_stops_at_once_when_it_comes():
    job = Job()
    job.stop()
    assert job.start()
    assert job.is_ending
    job.go_on()
    assert job.state is JobState.RUNNING


@pytest.mark.parametrize("end", [Job.stop, Job.supersede])
def test_the_work_is_told_to_end_early(end):
    told = []
    job = Job(on_stop=lambda: told.append(True))
    job.start()
    end(job)
    assert told == [True]
    assert job.is_ending


def test_what_is_done_can_be_superseded_but_not_stopped():
    job = Job()
    job.start()
    job.finish()
    job.stop()
    assert not job.is_ending
    job.supersede()
    assert job.is_superseded
    job.finish()
    assert job.is_superseded


def test_files_go_back_only_where_the_turn_never_came(cache):
    place = cache / "page" / "a.jpg"
    place.parent.mkdir()
    for begins in (True, False):
        place.write_bytes(b"photo")
        job = FilesJob.begin([{"path": str(place)}])
        assert not place.exists()
        if begins:
            job.start()
        job.supersede()
        assert place.exists() is not begins
