"""The protocol of cursors and floors, on a real server: no job that can be claimed is ever left below a floor."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Jsonb

from qworker.claims import ClaimedJob, Claims
from qworker.db.connection import connect
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworker.registry import NO_CTID, PREPARED, Heartbeat, PollResult, Registry
from qworkerd.scheduler.watermarks import scrub as scrub_module
from qworkerd.scheduler.watermarks import tracker as tracker_module
from qworkerd.scheduler.watermarks.releases import RELEASE_MISSED_AFTER
from qworkerd.scheduler.watermarks.scrub import EXPENSIVE_SCRUB, SCRUB_EVERY, SLICE_FIRST, SLICE_MAX, Scrub
from qworkerd.scheduler.watermarks.settled import LINGERING_AFTER
from qworkerd.scheduler.watermarks.tracker import WatermarkTracker
from qworkerd.shared.claim import new_token
from qworkerd.shared.slots import Role, Slot, SlotTable
from qworkerd.shared.watermarks import Watermarks
from qworkerd.worker import cursors as cursors_module
from qworkerd.worker.cursors import Cursors
from tests.database import Database
from tests.qworkerd.clock import Clock

Connection = psycopg.Connection[tuple[Any, ...]]

QUEUES, PRIORITIES = ("a", "b"), (0, 5)
PRODUCERS, NODES, WORKERS = 3, 2, 2
#: So often a scheduler looks (seconds).
BEAT = 1.0

claims = Claims()
maintenance, recovery, registry = Maintenance(), Recovery(), Registry()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (tracker_module, scrub_module, cursors_module):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


class Hand:
    """A worker: its cursors, and the claim it holds."""

    def __init__(self, floors: Watermarks, slot: Slot) -> None:
        self.slot = slot
        self.cursors = Cursors(floors, WORKERS)
        self.dry = True
        self.token = 0
        self.rows: list[ClaimedJob] = []


class Side:
    """A node: its scheduler's survey, and its workers."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.number = registry.register(conn, name="side", version="1", queues=QUEUES, processes=WORKERS, lease=30.0)
        *slots, self.scheduler = (table := SlotTable(WORKERS + 1)).slots
        self.floors = Watermarks(table, QUEUES)
        self.survey = WatermarkTracker(self.floors)
        self.hands = [Hand(self.floors, slot) for slot in slots]
        #: Places filled again by other nodes: those told with no beat yet, and those that this node did not look for;
        #: among these are the places of transactions that lingered.
        self.untold: set[int] = set()
        self.strange: set[int] = set()
        #: Those that the look under way can have seen, and those that its beat tells.
        self.seen: set[int] = set()
        self.telling: set[int] = set()
        self.look: Iterator[str] | None = None

    def steps(self) -> Iterator[str]:
        """Do what the scheduler does once a second; anything may happen between two steps."""
        for _ in range(2):
            (floors, scrub), doubts = self.survey.begin(), self.survey.needs_writers
            returned = self.survey.released_seq
            yield "begun"
            place = registry.find_ctid(self.conn, self.number) or NO_CTID
            sight = registry.poll(
                self.conn, self.number, queues=self.floors.queues, priorities=self.floors.priorities, watermarks=floors,
                scrub=scrub, with_writers=doubts, heartbeat=Heartbeat(Jsonb({}), returned, place),
            )  # fmt: skip
            yield "executed"
            if not self.survey.advance(sight):
                break

    def claim(self, hand: Hand, limit: int) -> None:
        """Do what a worker does that is free."""
        if hand.rows:
            return
        starts, sweep = hand.cursors.start(limit, idle=hand.dry)
        hand.token = new_token()
        hand.rows = claims.claim(
            self.conn, node=self.number, token=hand.token, queues=self.floors.queues,
            priorities=self.floors.priorities, cursors=starts, limit=limit,
        )  # fmt: skip
        hand.cursors.advance(hand.rows, limit, sweep=sweep, took=0.0)
        hand.dry = len(hand.rows) < limit


class Producer:
    """A session that enqueues, with the places of its transaction."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.drawn: int | None = None
        self.places: set[int] = set()
        self.since = 0.0


class Machine(RuleBasedStateMachine):
    """Producers whose transactions stay open, and nodes whose workers claim, finish, retry and hand back."""

    conn: Connection
    open: Callable[[], Connection]
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute("TRUNCATE qworker.job, qworker.node, qworker.idle_node")
        self.conn.execute("SELECT setval('qworker.job_seq', 1, false)")
        self.producers = [Producer(self.open()) for _ in range(PRODUCERS)]
        self.sides = [self.join() for _ in range(NODES)]

    @initialize(jobs=st.integers(0, 8), beats=st.integers(0, 3))
    def be_at_work(self, jobs: int, beats: int) -> None:
        """Begin with jobs that are running, and floors that have risen above them."""
        for number in range(jobs):
            self.insert(self.conn, QUEUES[number % 2], PRIORITIES[number // 2 % 2])
        for side in self.sides:
            for hand in side.hands:
                side.claim(hand, 2)
        self.live_on(beats)

    def join(self) -> Side:
        return Side(self.conn)

    def insert(self, conn: Connection, queue: str, priority: int, place: int | None = None) -> int:
        ((place,),) = conn.execute(
            "INSERT INTO qworker.job (task, queue, priority, seq) VALUES ('noop', %s, %s,"
            " coalesce(%s, nextval('qworker.job_seq'))) RETURNING seq",
            (queue, priority, place),
        ).fetchall()
        return int(place)

    def others(self, side: Side) -> list[Side]:
        return [other for other in self.sides if other is not side]

    # Producers

    number = st.integers(0, PRODUCERS - 1)
    where = st.tuples(st.sampled_from(QUEUES), st.sampled_from(PRIORITIES))

    def write(self, number: int) -> Producer:
        """Return a producer that has begun to write, if only now."""
        producer = self.producers[number]
        if not producer.since:
            producer.since = self.clock.now
        return producer

    @rule(number=number, where=where, jobs=st.integers(1, 3))
    def enqueue(self, number: int, where: tuple[str, int], jobs: int) -> None:
        producer = self.write(number)
        producer.places |= {self.insert(producer.conn, *where) for _ in range(jobs)}

    @rule(where=where)
    def enqueue_at_once(self, where: tuple[str, int]) -> None:
        self.insert(self.conn, *where)

    @rule(number=number)
    def draw(self, number: int) -> None:
        """Be in the middle of an INSERT: the table is locked, the place drawn, nothing written, no transaction id."""
        producer = self.write(number)
        if producer.drawn is None:
            producer.conn.execute("LOCK TABLE qworker.job IN ROW EXCLUSIVE MODE")
            ((producer.drawn,),) = producer.conn.execute("SELECT nextval('qworker.job_seq')").fetchall()

    @rule(number=number, where=where)
    def insert_drawn(self, number: int, where: tuple[str, int]) -> None:
        producer = self.producers[number]
        if producer.drawn is not None:
            producer.places.add(self.insert(producer.conn, *where, producer.drawn))
            producer.drawn = None

    @rule(number=number, well=st.booleans())
    def end(self, number: int, *, well: bool) -> None:
        """End a transaction; of one that has lingered the next look finds what it has written."""
        producer = self.producers[number]
        if well:
            producer.conn.commit()
            if self.clock.now - producer.since > LINGERING_AFTER:
                for side in self.sides:
                    side.strange |= producer.places
        else:
            producer.conn.rollback()
        self.producers[number] = Producer(producer.conn)

    @rule(number=number, where=where, well=st.booleans())
    def linger(self, number: int, where: tuple[str, int], *, well: bool) -> None:
        """Write for so long that the schedulers do not wait any more, while all others have nothing left to do."""
        self.enqueue(number, where, 1)
        for side in self.sides:
            for hand in side.hands:
                side.claim(hand, 1000)
        self.live_on(int(LINGERING_AFTER) + 3)
        self.end(number, well=well)

    @rule(number=number)
    def lock_a_job(self, number: int) -> None:
        """Hold a job that no sweep can get now and every one can later."""
        self.producers[number].conn.execute(
            "SELECT FROM qworker.job WHERE state = 'available' ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED"
        )

    # Nodes

    node = st.integers(0, NODES - 1)
    worker = st.integers(0, WORKERS - 1)

    @rule(node=node, worker=worker, limit=st.sampled_from([1, 2, 8]))
    def claim(self, node: int, worker: int, limit: int) -> None:
        side = self.sides[node]
        side.claim(side.hands[worker], limit)

    busy = precondition(lambda self: any(hand.rows for side in self.sides for hand in side.hands))
    one = st.randoms(use_true_random=False)

    def some(self, chance: Random) -> tuple[Side, Hand]:
        return chance.choice([(side, hand) for side in self.sides for hand in side.hands if hand.rows])

    @busy
    @rule(chance=one)
    def finish(self, chance: Random) -> None:
        _, hand = self.some(chance)
        claims.acknowledge(self.conn, hand.token, [row[0] for row in hand.rows])
        hand.rows = []

    @busy
    @rule(chance=one, delay=st.sampled_from([0.0, 3600.0]))
    def retry(self, chance: Random, delay: float) -> None:
        _, hand = self.some(chance)
        for row in hand.rows:
            claims.retry(self.conn, hand.token, row[0], delay=delay, error="{}")
        hand.rows = []
        maintenance.promote(self.conn, 0.0)

    @busy
    @rule(chance=one, jobs=st.integers(1, 8), leaves=st.booleans())
    def hand_back(self, chance: Random, jobs: int, *, leaves: bool) -> None:
        side, hand = self.some(chance)
        rows, hand.rows = hand.rows[:jobs], hand.rows[jobs:]
        claims.release(self.conn, hand.token, [row[0] for row in rows])
        side.floors.report_release(hand.slot, min(row[1] for row in rows))
        side.untold |= {row[1] for row in rows}
        if leaves and not hand.rows:  # another worker gets its slot before anybody has looked
            hand.slot.assign(Role.WORKER, 1, 0.0, 0.0)
            side.hands[side.hands.index(hand)] = Hand(side.floors, hand.slot)

    @busy
    @rule(chance=one)
    def die(self, chance: Random) -> None:
        """Have a worker killed and buried: the scheduler gives back what it held."""
        side, hand = self.some(chance)
        recovery.release_claim(self.conn, side.number, hand.token)
        side.floors.report_release(side.scheduler)
        side.untold |= {row[1] for row in hand.rows}
        side.hands[side.hands.index(hand)] = Hand(side.floors, hand.slot)

    @rule(node=node, worker=worker)
    def reconnect_a_worker(self, node: int, worker: int) -> None:
        side = self.sides[node]
        side.hands[worker].cursors.forget()
        side.floors.report_release(side.hands[worker].slot)

    @rule(node=node)
    def reconnect_a_scheduler(self, node: int) -> None:
        """Have it begin anew; a look that was under way is lost with the connection."""
        side = self.sides[node]
        side.look = None
        side.seen.clear()
        side.survey.reset()

    @rule(node=node)
    def leave(self, node: int) -> None:
        """Have a node replaced, as a deploy does; its jobs go back before its row goes."""
        side = self.sides[node]
        for hand in side.hands:
            recovery.release_claim(self.conn, side.number, hand.token)
            side.untold |= {row[1] for row in hand.rows}
        registry.deregister(self.conn, side.number)
        for other in self.others(side):
            other.strange |= side.untold
        self.sides[node] = self.join()

    @rule(node=node)
    def look(self, node: int) -> None:
        """Look, or end the look that is under way."""
        while self.goes_on(self.sides[node]):
            pass

    @rule(node=node)
    def look_a_step(self, node: int) -> None:
        """Begin a look, have its statement executed, or take in what it has shown."""
        self.goes_on(self.sides[node])

    def goes_on(self, side: Side) -> bool:
        side.look = side.look or side.steps()
        match next(side.look, "taken in"):
            case "executed":
                side.seen = set(side.strange)
                side.untold -= side.telling
                for other in self.others(side):
                    other.strange |= side.telling
                return True
            case at:
                side.strange -= side.seen
                side.seen.clear()
                side.telling = set(side.untold)
                side.look = side.look if at == "begun" else None
                return side.look is not None

    @rule(seconds=st.sampled_from([RELEASE_MISSED_AFTER + 1.0, SCRUB_EVERY]))
    def stand_still(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(beats=st.integers(1, 6))
    def live_on(self, beats: int) -> None:
        """Have the schedulers look in time."""
        for _ in range(beats):
            self.clock.now += BEAT
            for node in range(NODES):
                self.look(node)

    @invariant()
    def nothing_is_below_a_floor(self) -> None:
        """What others have just handed back, or had written long ago, is found with the first look that can know it."""
        waiting = self.conn.execute("SELECT queue, priority, seq FROM qworker.job WHERE state = 'available'").fetchall()
        for side in self.sides:
            front = side.floors.scan_start()
            excused = side.strange.union(*(other.untold for other in self.others(side)))
            for queue, priority, seq in waiting:
                assert seq > front[side.floors.index[queue, priority]] or seq in excused

    @precondition(lambda self: not any(side.strange or side.untold for side in self.sides))
    @rule(node=node)
    def sweep(self, node: int) -> None:
        """Have a worker that found nothing look again: what nobody has locked is not left lying."""
        for number in range(PRODUCERS):
            self.end(number, well=False)
        side = self.sides[node]
        hand = side.hands[0]
        claims.acknowledge(self.conn, hand.token, [row[0] for row in hand.rows])
        hand.rows, hand.dry = [], True
        side.claim(hand, 1000)
        assert self.conn.execute("SELECT count(*) FROM qworker.job WHERE state = 'available'").fetchall() == [(0,)]

    def teardown(self) -> None:
        for producer in self.producers:
            producer.conn.rollback()
        try:
            self.come_to_rest()
        finally:
            for producer in self.producers:
                producer.conn.close()

    def come_to_rest(self) -> None:
        """All that is left is claimed, and the floors rise to the last place."""
        self.live_on(3)
        for side in self.sides:
            for hand in side.hands:
                claims.acknowledge(self.conn, hand.token, [row[0] for row in hand.rows])
                hand.rows, hand.dry = [], True
                side.claim(hand, 1000)
        self.live_on(6)
        ((last,),) = self.conn.execute("SELECT last_value - 1 + is_called::int FROM qworker.job_seq").fetchall()
        ((left,),) = self.conn.execute("SELECT count(*) FROM qworker.job WHERE state = 'available'").fetchall()
        assert left == 0
        for side in self.sides:
            assert side.floors.scan_start() == [last] * len(side.floors.queues)


@pytest.mark.timeout(400)  # a failure takes Hypothesis up to five minutes to put in few words
def test_no_job_is_ever_left_below_a_floor(database: Database, clock: Clock) -> None:
    class Here(Machine):
        pass

    with connect(database.dsn, "test") as conn:
        Here.conn, Here.clock = conn, clock
        Here.open = staticmethod(lambda: database.connect(autocommit=False))
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


# The clauses of the protocol, one at a time


class Room:
    """A scheduler's survey that looks at what it is told to see."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        table = SlotTable(1)
        self.floors, self.slot = Watermarks(table, ["default"]), table.slots[0]
        self.survey = WatermarkTracker(self.floors)
        #: The slice of the last look.
        self.scrubbed = (0, 0)

    def see(self, drawn: int = 10, writers: Sequence[str] = (), **seen: Any) -> PollResult:
        shown: dict[str, Any] = {
            "ctid": "(0,1)", "heartbeats": {}, "released_seq": None,
            "first_available": [None] * len(self.floors.queues),
            "last_seq": drawn,
            "writers": list(writers), "due_in": None, "cancels": [], "has_running": False, "dead_nodes": [],
            "expired": False,
            "at": 0.0, "took": 0.0,
        }  # fmt: skip
        return PollResult(**shown | seen)

    def look(self, drawn: int = 10, writers: Sequence[str] = (), took: float = 0.0, **seen: Any) -> bool:
        """Look a second later; tell whether the survey wants another look at once."""
        self.clock.now += BEAT
        _, self.scrubbed = self.survey.begin()
        self.clock.now += took
        return self.survey.advance(self.see(drawn, writers, took=took, **seen))

    @property
    def floor(self) -> int:
        """From where a sweep begins: the same for every priority here."""
        (only,) = set(self.floors.scan_start())
        return only


@pytest.fixture
def room(clock: Clock) -> Room:
    room = Room(clock)
    room.look()
    room.look()
    assert room.floor == 10
    return room


def test_floors_rise_when_those_who_were_writing_are_gone(clock: Clock) -> None:
    room = Room(clock)
    for writers in (["1/1"], ["1/1", "2/5"], ["2/5"]):
        room.look(10, writers)
        assert room.floor == 0
    room.look(10, ["2/6"])
    assert room.floor == 10


@pytest.fixture
def lingered(room: Room) -> Room:
    """Somebody who began when 10 places were settled keeps writing; 15 were drawn by then, 20 later."""
    room.look(15, ["1/1"], at=7.0)
    for _ in range(3):
        room.look(15, ["1/1"])
        assert room.floor == 10
    room.look(20, ["1/1"])
    for _ in range(2):
        assert not room.look(20, ["1/1"])
    assert room.floor == 20
    return room


def test_a_transaction_that_lingers_keeps_the_floors_down_no_more(lingered: Room) -> None:
    lingered.look(30, ["1/1", "2/2"])
    lingered.look(30, ["1/1", "2/2"])
    assert lingered.floor == 20
    lingered.look(30, ["1/1"])
    lingered.look(30, ["1/1"])
    assert lingered.floor == 30


def test_the_floors_fall_when_one_that_lingered_is_gone_and_what_it_wrote_is_looked_for_at_once(lingered: Room) -> None:
    lingered.floors.swept = lingered.clock.now
    assert lingered.look(20)
    assert lingered.floor == 10
    assert lingered.survey.settled_at == 0.0  # for claims as well
    assert lingered.survey.begin()[0] == [10] * 10
    assert not lingered.look(20, first_available=[12] * 10)
    assert lingered.floor == 11
    assert lingered.floors.swept == 0.0


def test_each_one_that_lingers_has_its_own_mark(lingered: Room) -> None:
    for _ in range(6):
        lingered.look(30, ["1/1", "2/2"])
    assert lingered.floor == 30
    assert lingered.look(30, ["1/1"])
    assert lingered.floor == 20
    lingered.look(30, ["1/1"])
    assert lingered.floor == 30
    assert lingered.look(30)
    assert lingered.floor == 10


def test_a_look_that_cannot_be_had_may_have_missed_the_end_of_one_that_lingered(lingered: Room) -> None:
    lingered.survey.begin()
    lingered.survey.poll_failed()
    assert lingered.floor == 10
    lingered.look(20, ["1/1"])
    assert lingered.floor == 20


def test_the_floors_fall_to_the_lowest_mark_of_those_that_are_gone_at_once(lingered: Room) -> None:
    others = [f"2/{number}" for number in range(20)]  # a set has them in any order
    for _ in range(6):
        lingered.look(30, ["1/1", *others])
    assert lingered.floor == 30
    assert lingered.look(30)
    assert lingered.floor == 10


def test_one_that_lingered_and_prepares_to_commit_is_waited_for(lingered: Room) -> None:
    lingered.look(20, [PREPARED])
    for _ in range(10):
        lingered.look(20, [PREPARED])
        assert lingered.floor == 10
    lingered.look(20)
    lingered.look(20)
    assert lingered.floor == 20


def test_what_is_prepared_to_commit_is_waited_for_under_whatever_name(clock: Clock) -> None:
    room = Room(clock)
    for writers in (["1/1"], [PREPARED], [PREPARED], [PREPARED]):
        room.look(10, writers)
        assert room.floor == 0
    room.look()
    room.look()
    assert room.floor == 10


def test_nobody_is_asked_for_when_nothing_was_drawn(clock: Clock) -> None:
    room, doubts = Room(clock), []
    for drawn in (10, 10, 10, 11, 11, 11):
        doubts.append(room.survey.needs_writers)
        room.look(drawn)
    assert doubts == [True, False, False, False, True, False]


def test_a_floor_stays_below_the_first_job_that_waits(room: Room) -> None:
    room.look(20)
    room.look(20, first_available=[15] * 10)
    room.look(20, first_available=[15] * 10)
    assert room.floor == 14


def test_the_lowest_of_several_places_handed_back_counts_until_a_look_has_begun_below_it(room: Room) -> None:
    room.floors.report_release(room.slot, 5)
    room.floors.report_release(room.slot, 7)
    assert room.floor == 4
    assert room.survey.begin()[0] == [4] * 10
    room.floors.report_release(room.slot, 3)  # too late for the look that is under way
    room.survey.advance(room.see())
    assert room.floor == 2
    room.look()
    assert room.floor == 10


def test_what_a_worker_has_handed_back_outlives_it(room: Room) -> None:
    """Its slot is another worker's before anybody has looked."""
    room.floors.report_release(room.slot, 5)
    room.slot.assign(Role.WORKER, 1, 0.0, 0.0)
    assert room.floor == 4


def test_what_is_handed_back_is_told_for_some_seconds_from_the_first_beat_on(room: Room) -> None:
    room.floors.report_release(room.slot, 5)
    room.look(ctid=None)
    room.clock.now += 100
    told = []
    for _ in range(10):
        room.look()
        told.append(room.survey.released_seq)
    assert told == [5] * 6 + [None] * 4


def test_what_is_handed_back_while_a_look_begins_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    returns = Watermarks.release_counts

    def late(floors: Watermarks) -> list[int]:
        floors.report_release(room.slot, 5)
        return returns(floors)

    monkeypatch.setattr(Watermarks, "release_counts", late)
    assert room.survey.begin()[0] == [4] * 10
    assert room.survey.released_seq == 5


def test_what_others_hand_back_lowers_the_floors_and_is_looked_for_at_once(room: Room) -> None:
    assert room.look(released_seq=6)
    assert room.floor == 5
    assert not room.look(released_seq=6)
    assert room.floor == 5
    room.look()
    assert room.floor == 10


def test_a_node_that_is_gone_may_have_told_nobody(room: Room) -> None:
    room.look(heartbeats={7: (1, 10.0)})
    assert room.floor == 10
    assert room.look(heartbeats={})
    assert room.floor == 0
    assert room.survey.begin()[0] == [0] * 10


@pytest.mark.parametrize("late", ["between looks", "in a look"])
def test_one_that_has_not_looked_for_some_seconds_begins_anew(room: Room, late: str) -> None:
    room.look()
    if late == "between looks":
        room.clock.now += RELEASE_MISSED_AFTER
    assert room.look(took=0.0 if late == "between looks" else RELEASE_MISSED_AFTER)
    assert room.floor == 0
    assert room.survey.begin()[0] == [0] * 10


def test_a_new_connection_may_lead_to_another_server(room: Room) -> None:
    room.floors.report_release(room.slot, 5)
    room.survey.reset()
    assert room.floor == 0
    assert room.survey.released_seq == 5
    assert room.survey.needs_writers


def test_a_dear_first_look_is_followed_by_one_from_the_floors(clock: Clock) -> None:
    room = Room(clock)
    assert room.look(took=0.5)
    assert not room.look(took=0.5)
    assert room.floor == 10


# Jobs that came back unannounced


def test_a_round_begins_now_and_then_and_takes_all_that_was_cheap_in_one_leap(clock: Clock) -> None:
    room, slices = Room(clock), []
    for number in range(100):
        room.look(50_000_000)
        if any(room.scrubbed):
            slices.append((number, room.scrubbed))
    assert slices == [(number, (0, 50_000_000)) for number in (29, 59, 89)]


def test_a_job_that_came_back_unannounced_lowers_the_floor(room: Room) -> None:
    while not any(room.scrubbed):
        room.look()
    assert room.floor == 10
    for _ in range(int(SCRUB_EVERY)):
        room.look()
    room.look(first_available=[7] * 10)
    assert room.floor == 6


class Rounds:
    """A scrub below floors that stand still, in an index of which a part is dead."""

    def __init__(self, clock: Clock, top: int, dead: range) -> None:
        self.clock, self.top, self.dead = clock, top, dead
        self.scrub = Scrub()

    def look(self) -> tuple[int, int]:
        self.clock.now += BEAT
        slice_from, slice_to = self.scrub.begin([0, self.top], free=True)
        self.scrub.advance(self.cost(slice_from, slice_to))
        return slice_from, slice_to

    def cost(self, slice_from: int, slice_to: int) -> float:
        return 0.0005 + 1e-6 * len(range(max(slice_from, self.dead.start), min(slice_to, self.dead.stop)))

    def go(self) -> list[tuple[int, int]]:
        """Return the slices of the next round, which leave nothing out."""
        slices: list[tuple[int, int]] = []
        while not slices or slices[-1][1] < self.top:
            slices += [(beyond, to) for beyond, to in [self.look()] if beyond < to]
        assert [beyond for beyond, _ in slices] == [0, *(to for _, to in slices[:-1])]
        return slices


DEAD = range(3_000_000, 4_000_000)


def test_no_look_takes_long_for_what_lies_dead_below_the_floors(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    for _ in range(20):
        costs = sorted(rounds.cost(*piece) for piece in rounds.go())
        assert costs[-5] <= 2 * EXPENSIVE_SCRUB  # those that first meet with the dead are as long as those before
        assert costs[-1] <= 1e-6 * SLICE_MAX + EXPENSIVE_SCRUB


def test_the_leap_is_as_long_as_it_is_cheap(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    leaps = [rounds.go()[0][1] for _ in range(20)]
    assert leaps[0] == SLICE_FIRST
    assert leaps[1] > 300_000
    assert all(abs(leap - DEAD.start) <= SLICE_MAX for leap in leaps[-10:])


def test_what_was_walked_over_cheaply_from_the_very_front_is_taken_in_one_leap(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    rounds.scrub.trust(2_000_000)
    assert rounds.go()[:2] == [(0, 2_000_000), (2_000_000, 2_000_000 + SLICE_FIRST)]


def test_a_leap_that_turns_dear_is_half_as_long_the_next_time(clock: Clock) -> None:
    rounds = Rounds(clock, 5_000_000, DEAD)
    rounds.scrub.trust(5_000_000)
    assert [rounds.go()[0][1] for _ in range(2)] == [5_000_000, 2_500_000]


def test_a_look_that_cannot_be_had_is_had_with_a_shorter_slice(clock: Clock) -> None:
    scrub, slices = Scrub(), []
    clock.now += SCRUB_EVERY
    for _ in range(5):
        slices.append(scrub.begin([1_000_000], free=True))
        scrub.poll_failed()
    assert slices == [(0, 4096), (0, 2048), (0, 1024), (0, 1024), (0, 1024)]


def test_a_look_that_does_something_dear_has_no_slice(clock: Clock) -> None:
    scrub = Scrub()
    clock.now += SCRUB_EVERY
    assert scrub.begin([1_000_000], free=False) == (0, 0)
    scrub.advance(1.0)
    assert scrub.begin([1_000_000], free=True) == (0, SLICE_FIRST)
