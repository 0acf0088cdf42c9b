package sim

import (
	"iter"
	"log/slog"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Config is what a run is made of; Draw makes one from a seed.
type Config struct {
	Seed       uint64
	Theme      string
	Brokers    int
	Groups     int
	Partitions int
	Think      time.Duration // of a producer between two batches
	Trouble    time.Duration // how long faults come
	Faults     []Fault
	Etcd       etcdFaults
	Net        netFaults
	LateWatch  int          // of 1000 changes of the map come late
	Trim       bool         // clients move log starts
	Balance    bool         // the balancer is on
	Reserve    ident.Offset // offsets reserved at a time; 0: so many that nobody comes near
}

// world is one cluster with its clients and its faults.
type world struct {
	e     *engine
	cfg   Config
	etcd  *etcd
	net   network
	nodes []*node
	disks map[ident.Log]*disk
	truth *queuemapper.Store // what etcd holds
	ghost *ghost
	topic ident.Topic

	stopped bool   // producers end
	calm    bool   // faults are over
	loose   uint64 // contents of producers that do not deduplicate
	reads   []ident.Offset

	asked     map[ident.Log]ident.LogEpoch // operators have given them up at an epoch, or try to
	operators int                          // who are at it

	back time.Duration  // see Result
	did  map[string]int // what came about, for who asks whether it does
}

// node is a machine: its disk survives what runs on it.
type node struct {
	w       *world
	id      int
	disk    *disk
	disks   int     // that it has had
	running *broker // nil: nothing runs
	boots   int
	slow    time.Duration // of each write, on top
	lossy   int           // faults that lose answers of etcd to it now
	trip    func()        // goes wrong at its next write to etcd
	hold    *held         // holds up one of its next writes to etcd
	clock   time.Duration // its wall clock is ahead by this
}

func newWorld(cfg Config) *world {
	e := newEngine(cfg.Seed)
	w := &world{e: e, cfg: cfg, etcd: newEtcd(e), disks: map[ident.Log]*disk{}, topic: ident.Topic{15: 1}, asked: map[ident.Log]ident.LogEpoch{}, did: map[string]int{}}
	w.net = network{e: e, faults: cfg.Net, broken: map[[2]int]int{}}
	w.ghost = &ghost{
		w: w, parts: map[ident.Partition]*past{}, groups: map[ident.Group]*queuemapper.Group{},
		logs: map[ident.Log]*queuemapper.Log{}, toVerify: map[ident.Group]bool{}, ceilinged: map[ident.Generation]int{},
	}
	e.check = w.ghost.after
	for i := range cfg.Partitions {
		w.ghost.parts[w.part(i)] = &past{where: map[uint64]ident.Offset{}, last: map[int64]int32{}, acked: map[int64]int32{}, since: since{epoch: -1}}
	}
	for i := range cfg.Brokers {
		n := &node{w: w, id: i + 1}
		w.plug(n)
		w.nodes = append(w.nodes, n)
	}
	return w
}

// topicName is the one topic's.
const topicName = "t"

// partitionsOf iterates what clients were told of the partitions that live in a group at an epoch, as etcd has it, in order.
func (w *world) partitionsOf(g ident.Group, epoch ident.Epoch) iter.Seq2[ident.Partition, *past] {
	return func(yield func(ident.Partition, *past) bool) {
		t := w.truth.Map().Topic(topicName)
		for i := range w.cfg.Partitions {
			if stayed(t.Partitions[i], g, epoch) && !yield(w.part(i), w.ghost.parts[w.part(i)]) {
				return
			}
		}
	}
}

// stayed says whether a placement has a stay in a group at an epoch.
func stayed(stays queuemapper.Placement, g ident.Group, epoch ident.Epoch) bool {
	for i, s := range stays {
		if s.Group == g && s.First <= epoch && (i == len(stays)-1 || epoch <= s.Last) {
			return true
		}
	}
	return false
}

// runs are the runs of a partition, as etcd has them.
func (w *world) runs(id ident.Partition) []queuemapper.Run {
	m := w.truth.Map()
	return m.Runs(m.Topic(topicName), id.Index)
}

// watchEtcd lets the ghost see every write, and wakes the brokers' watches.
func (w *world) watchEtcd() {
	w.etcd.settled = func() {
		old := w.truth.Map()
		if err := w.truth.Refresh(background); err != nil {
			w.ghost.fail("I5", "the map cannot be read: %v", err)
			return
		}
		changes := w.truth.Map().Changes(old)
		for _, c := range changes.Logs {
			if c.New != nil {
				w.ghost.changedLog(c.Old, c.New)
			} else {
				w.ghost.deletedLog(c.Old)
			}
		}
		for _, c := range changes.Groups {
			w.ghost.changedGroup(c.New.ID, c.Old, c.New)
		}
		for _, n := range w.nodes {
			if n.running != nil {
				n.running.mapChanged()
			}
		}
	}
}

// form makes the map of a new cluster: one topic.
func (w *world) form() error {
	var err error
	w.truth, err = queuemapper.Open(background, queuemapper.Config{
		Client: (&etcdClient{s: w.etcd, ideal: true}).client(), Groups: w.cfg.Groups, Logger: quiet, Rand: lots{w.e},
	}, "")
	if err != nil {
		return err
	}
	placements := make([]ident.Group, w.cfg.Partitions)
	for i := range placements {
		placements[i] = ident.Group(i % w.cfg.Groups)
	}
	if _, err := w.truth.CreateTopic(background, queuemapper.NewTopic{Name: topicName, ID: w.topic, ReplicationFactor: 3, Placements: placements}); err != nil {
		return err
	}
	w.watchEtcd()
	for g := range w.truth.Map().Groups() {
		w.ghost.groups[g.ID] = g
	}
	return nil
}

var quiet = slog.New(slog.DiscardHandler)
