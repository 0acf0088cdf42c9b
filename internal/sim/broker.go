package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
)

var background = context.Background()

// broker is one incarnation of a broker: what runs on a node until it crashes, or until it was fenced and comes back as another.
type broker struct {
	node        *node
	w           *world
	proc        *process
	control     *process // its controllers: they may end alone
	incarnation int64

	store  *queuemapper.Store
	log    *simLog
	host   *host.Host
	owner  *owner          // of its own log's witness set
	member *witness.Member // what it witnesses for others

	changed  gate // the map has changed
	changes  int  // how often
	takes    int
	finished bool // it was taken into service
	controls int
}

// boot starts what runs on a node.
func (w *world) boot(n *node) {
	if n.running != nil {
		return
	}
	if n.disk.detached {
		w.attach(n)
	}
	n.boots++
	b := &broker{node: n, w: w, proc: &process{name: fmt.Sprintf("b%d.%d", n.id, n.boots)}}
	b.changed.e = w.e
	b.resetControl()
	n.running = b
	w.e.logf("broker %d starts", n.id)
	w.e.start(b.proc, "boot", 0, b.boot)
}

// storeOf opens the map as this broker.
func (b *broker) openStore() (*queuemapper.Store, error) {
	c := &etcdClient{s: b.w.etcd, node: b.node, faults: &b.w.cfg.Etcd}
	return queuemapper.Open(background, queuemapper.Config{
		Client: c.client(), Groups: b.w.cfg.Groups, Logger: quiet, Rand: lots{b.w.e}, Pause: b.pause,
	}, b.w.truth.Map().Cluster().ID)
}

func (b *broker) pause(ctx context.Context, d time.Duration) error {
	b.w.e.sleep(left(ctx, d))
	if p, ok := ctx.Value(patienceKey{}).(patience); ok {
		return p.Err()
	}
	return nil
}

// now is the wall clock of the node: it may be wrong, and may jump.
func (b *broker) now() time.Time { return time.Unix(1e9, 0).Add(b.w.e.now + b.node.clock) }

// again calls f until it succeeds.
func (b *broker) again(what string, f func() error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		b.w.e.logf("%s: %v", what, err)
		b.w.e.sleep(wait)
	}
}

// boot brings a broker up: map, registration, log.
func (b *broker) boot() {
	b.again("open the map", func() (err error) { b.store, err = b.openStore(); return err })
	b.again("take an incarnation", func() (err error) {
		b.incarnation, err = b.store.NextIncarnation(background, b.id())
		return err
	})
	b.w.e.logf("incarnation %d", b.incarnation)
	b.member = witness.NewMember(witness.MemberConfig{ID: witness.ID{Broker: b.id(), Incarnation: b.incarnation}})
	b.again("register", func() error {
		return b.store.RegisterBroker(background, queuemapper.Broker{
			ID: b.id(), Incarnation: b.incarnation, Host: "b", Port: 1, Internal: "b:2",
		})
	})
	b.w.e.start(b.proc, "watch", 0, b.watch)
	b.again("take the log into service", b.take)
	b.finished = true
	b.controllers(0)
}

// take takes the log into service. What a try that failed has left of it in memory is thrown away.
func (b *broker) take() error {
	if b.log != nil {
		b.log.poison(errors.New("taken again"))
		b.owner.over = true
		b.node.disk.cut(false)
	}
	b.host = nil
	l := openLog(b.w.e, b.node.disk, b.proc, b.w.ghost)
	l.slow = &b.node.slow
	b.owner = newOwner(b, l)
	b.owner.session = uint64(b.takes) << 20 // above all of the tries before
	b.takes++
	l.witness = b.owner
	h := host.New(background, host.Config{
		ID: b.id(), Incarnation: b.incarnation, Store: b.store, Reserve: b.w.cfg.Reserve, Unwitnessed: host.UnwitnessedWait, Queue: queueOf,
		Targets: targets{b}, Now: b.now, Pause: b.pause, Logger: quiet, Changed: func(...ident.Group) { b.follow() },
	})
	b.log = l
	given := b.node.disk.given
	if err := h.TakeAll(background, []host.Source{{Log: l, Witnesses: b.owner}}); err != nil {
		b.refused(err)
		return err
	}
	if given {
		b.w.ghost.fail("I10", "log %s was given up, and is in service again", short(l.d.id))
	}
	b.w.ghost.inService(b.node.disk, b.store.Map())
	b.host = h
	b.follow()
	b.w.e.logf("log %s is in service at epoch %d, witnesses %v", short(l.d.id), l.epoch, b.store.Map().Log(l.d.id).Witnesses)
	b.w.e.start(b.proc, "rejoin", 0, func() { b.rejoin(l) })
	b.w.e.start(b.proc, "ceilings", 0, func() { b.keepCeilings(h, l) })
	return nil
}

// keepCeilings raises ceilings before they are reached.
func (b *broker) keepCeilings(h *host.Host, l *simLog) {
	for l.dead == nil {
		if len(l.lows) == 0 {
			l.asked.wait(0)
			continue
		}
		h.RaiseLow(background, h.Hosted(l.d.id))
		b.w.count("look at ceilings", l.dead)
	}
}

// rejoin waits until the log is dead, then starts the broker anew: it has been fenced, or its disk has failed.
func (b *broker) rejoin(l *simLog) {
	for l.dead == nil {
		l.work.wait(0)
	}
	b.w.e.sleep(b.w.e.between(time.Millisecond, 50*time.Millisecond))
	n := b.node
	b.w.e.at(0, func() {
		if n.running == b {
			b.w.stop(n, true)
			b.w.boot(n)
		}
	})
	b.w.e.sleep(time.Hour)
}

func (b *broker) id() ident.Broker { return ident.Broker(b.node.id) }

// serving says whether clients are answered.
func (b *broker) serving() bool {
	return b.host != nil && b.log.dead == nil && b.host.Hosted(b.log.d.id) != nil
}

// mapChanged wakes the watch.
func (b *broker) mapChanged() {
	b.changes++
	b.changed.open()
}

// watch keeps the map fresh, late as watches are.
func (b *broker) watch() {
	seen := 0
	for {
		if seen == b.changes {
			b.changed.wait(500 * time.Millisecond)
		}
		b.w.e.sleep(b.w.e.between(300*time.Microsecond, 4*time.Millisecond))
		if b.w.e.chance(b.w.cfg.LateWatch) {
			b.w.e.sleep(b.w.e.between(0, 300*time.Millisecond))
		}
		at := b.changes
		if at == seen && b.store.Map().Revision() == b.w.etcd.revision {
			continue
		}
		if err := b.store.Refresh(background); err != nil {
			continue
		}
		seen = at
		b.follow()
	}
}

// follow makes the log do what the map says.
func (b *broker) follow() {
	m := b.store.Map()
	if b.owner != nil {
		b.owner.mapChanged(m)
	}
	if b.host != nil {
		b.host.Follow(m)
	}
	if b.member == nil {
		return
	}
	for _, k := range b.member.Keys() { // O6
		if l := m.Log(k.Log); l != nil && l.Epoch > k.Epoch {
			b.member.Forget(k.Log, l.Epoch)
		}
	}
}

// targets are the logs of other brokers, as host.Targets and as failover.Targets.
type targets struct{ b *broker }

// Prepare implements host.Targets.
func (t targets) Prepare(_ context.Context, target *queuemapper.Log, openings []commitlog.Opening) ([]ident.Frame, error) {
	return t.b.w.prepare(t.b, target.Host, target.ID, target.Epoch, openings)
}

// AwaitMap implements host.Targets.
func (t targets) AwaitMap(_ context.Context, id ident.Broker, revision int64) error {
	_, err := call(&t.b.w.net, t.b.node.id, t.b.w.nodes[id-1], "await map", 200*time.Millisecond, func(o *broker) (struct{}, error) {
		for o.store == nil || o.store.Map().Revision() < revision {
			o.changed.wait(100 * time.Millisecond)
			o.w.e.sleep(time.Millisecond)
		}
		o.follow()
		return struct{}{}, nil
	})
	return err
}

func (w *world) prepare(from *broker, to ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []commitlog.Opening) ([]ident.Frame, error) {
	return call(&w.net, from.node.id, w.nodes[to-1], "prepare", 700*time.Millisecond, func(o *broker) ([]ident.Frame, error) {
		if o.host == nil {
			return nil, host.ErrNotHosted
		}
		return o.host.Prepare(background, log, epoch, openings)
	})
}

// controlTargets are the same for a controller.
type controlTargets struct{ b *broker }

// Prepare implements failover.Targets.
func (t controlTargets) Prepare(_ context.Context, to ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []failover.Opening) ([]ident.Frame, error) {
	list := make([]commitlog.Opening, len(openings))
	for i, o := range openings {
		list[i] = commitlog.Opening(o)
	}
	return t.b.w.prepare(t.b, to, log, epoch, list)
}

// fan runs things at the same time as coroutines of the controllers' process.
type fan struct{ b *broker }

// Each implements failover.Fan.
func (f fan) Each(ctx context.Context, n int, do func(ctx context.Context, i int)) {
	f.First(ctx, n, func(ctx context.Context, i int) bool { do(ctx, i); return false })
}

// First implements failover.Fan.
func (f fan) First(ctx context.Context, n int, do func(ctx context.Context, i int) bool) int {
	if n == 1 {
		if do(ctx, 0) {
			return 0
		}
		return -1
	}
	e := f.b.w.e
	first, left := -1, n
	all := newFuture[struct{}](e)
	for i := range n {
		e.start(e.mine().host, "fan", 0, func() {
			if do(ctx, i) && first < 0 {
				first = i
			}
			if left--; left == 0 {
				all.resolve(struct{}{}, nil)
			}
		})
	}
	if n > 0 {
		_, _ = all.wait(0)
	}
	return first
}

// failover makes a controller's procedure.
func (b *broker) failover(given ident.Broker) (*failover.Failover, error) {
	return failover.New(failover.Config{
		Store: b.store, Members: members{b}, Targets: controlTargets{b}, Fan: fan{b}, Now: b.now, Pause: b.pause, Logger: quiet, Reserve: b.w.cfg.Reserve,
		Standing: func(id ident.Broker) failover.Standing {
			if id == given || b.store.Map().Broker(id) == nil {
				return failover.Dead
			}
			return failover.Live
		},
	})
}

// failOver has a controller of this broker take another one for dead.
func (b *broker) failOver(id ident.Broker) {
	if b.store == nil || b.control.dead {
		return
	}
	b.w.e.start(b.control, "failover", 0, func() {
		var logs []ident.Log
		for l := range b.store.Map().Logs() {
			if l.Host == id {
				logs = append(logs, l.ID)
			}
		}
		b.failLogs(id, logs)
	})
}

func (b *broker) failLogs(given ident.Broker, logs []ident.Log) {
	f, err := b.failover(given)
	if err != nil {
		b.w.e.fail = err
		return
	}
	b.w.e.logf("fails over broker %d", given)
	reg := b.store.Map().Broker(given)
	report := f.FailOver(background, logs...)
	b.w.did["group failed over"] += report.Groups
	if reg != nil && report.Outcome() == failover.Done { // as the loop of the active controller does
		err := b.store.RemoveBroker(b.w.e.within(2*time.Second), given, reg.Incarnation)
		b.w.e.logf("broker %d incarnation %d removed: %v", given, reg.Incarnation, err)
	}
	if b.w.e.trace != nil {
		for _, r := range report.Results {
			b.w.e.logf("failover of log %s at epoch %d: %s, %d groups left, %v", short(r.Log), r.Epoch, r.Outcome, r.Open, r.Err)
		}
	}
}

// sweep is the controller's loop: logs that are sealed and still have groups are failed over, again and again.
func (b *broker) sweep() {
	for {
		b.w.e.sleep(b.w.e.between(100*time.Millisecond, 800*time.Millisecond))
		m := b.store.Map()
		var logs []ident.Log
		for l := range m.Logs() {
			if l.State != queuemapper.LogSealed {
				continue
			}
			for g := range m.Groups() {
				if cur := g.Current(); cur != nil && cur.Log == l.ID {
					logs = append(logs, l.ID)
					break
				}
			}
		}
		if len(logs) > 0 {
			b.failLogs(0, logs)
		}
	}
}

func (b *broker) resetControl() {
	b.controls++
	b.control = &process{name: fmt.Sprintf("c%d.%d.%d", b.node.id, b.node.boots, b.controls)}
}

// endControllers ends the controllers of this broker wherever they are.
func (b *broker) endControllers() {
	b.w.e.kill(b.control)
	if b.proc.dead {
		return
	}
	b.resetControl()
	if b.finished {
		b.controllers(100 * time.Millisecond)
	}
}

// controllers starts what a broker does as the active controller.
func (b *broker) controllers(after time.Duration) {
	b.w.e.start(b.control, "sweep", after, b.sweep)
	if b.w.cfg.Balance {
		b.w.e.start(b.control, "balance", after, b.balance)
	}
}

// moveTarget is where askMove moves groups to.
func (w *world) moveTarget(lot uint32) *node { return w.nodes[int(lot>>4)%len(w.nodes)] }

// askMove asks the owner of groups to move them.
func (w *world) askMove(n *node, lot uint32) {
	b := n.running
	if b == nil || !b.serving() {
		return
	}
	to := w.moveTarget(lot).disk.id
	var groups []ident.Group
	for i, r := range b.log.runs {
		if r.state == runOpen && lot>>(16+i%8)&1 == 0 {
			groups = append(groups, r.gen.Group)
		}
	}
	if len(groups) == 0 || to == n.disk.id {
		return
	}
	w.e.start(b.proc, "move", 0, func() {
		for _, m := range b.host.Move(background, groups, to) {
			w.count("move", m.Err)
			w.e.logf("group %d moved to log %s: %v", m.Group, short(m.To), m.Err)
		}
	})
}
