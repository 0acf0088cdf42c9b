package sim

import (
	"fmt"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Violation says that an invariant of DESIGN section 10 does not hold.
type Violation struct {
	Rule string // I1 to I14
	Text string
}

func (v *Violation) Error() string { return v.Rule + ": " + v.Text }

// ghost remembers what clients were told, and checks that the cluster keeps to it. It sees everything at once; nothing of the
// cluster sees it.
type ghost struct {
	w         *world
	parts     map[ident.Partition]*past
	groups    map[ident.Group]*queuemapper.Group // as they were after the last write
	logs      map[ident.Log]*queuemapper.Log
	acked     int
	seen      int
	published int
	toVerify  map[ident.Group]bool
	ceilinged map[ident.Generation]int // frames that were durable when a generation was sealed at its ceiling
}

// past is what clients were told of one partition.
type past struct {
	history []uint64 // content of every offset that was visible
	where   map[uint64]ident.Offset
	last    map[int64]int32 // last sequence that is visible, by producer
	acked   map[int64]int32 // last sequence that was acknowledged
	deleted ident.Offset    // up to where a client has asked to delete records
	since   since
	shown   []shown
}

// shown are the highest marks that owners of one epoch have shown.
type shown struct {
	epoch       ident.Epoch
	high, start ident.Offset
}

func (g *ghost) fail(rule, format string, args ...any) {
	if g.w.e.fail == nil {
		g.w.e.logf("VIOLATED "+rule+": "+format, args...)
		g.w.e.fail = &Violation{Rule: rule, Text: fmt.Sprintf(format, args...)}
	}
}

// marks returns what an epoch has shown.
func (p *past) marks(epoch ident.Epoch) *shown {
	for i := range p.shown {
		if p.shown[i].epoch == epoch {
			return &p.shown[i]
		}
	}
	p.shown = append(p.shown, shown{epoch: epoch})
	return &p.shown[len(p.shown)-1]
}

// before are the highest marks of all epochs up to one.
func (p *past) before(epoch ident.Epoch) (high, start ident.Offset) {
	for _, s := range p.shown {
		if s.epoch <= epoch {
			high, start = max(high, s.high), max(start, s.start)
		}
	}
	return high, start
}

// after is the highest log start of all epochs above one, up to another.
func (p *past) after(since, epoch ident.Epoch) (start ident.Offset) {
	for _, s := range p.shown {
		if s.epoch > since && s.epoch <= epoch {
			start = max(start, s.start)
		}
	}
	return start
}

// see adds one offset to what is visible.
func (g *ghost) see(id ident.Partition, o ident.Offset, content uint64) {
	p := g.parts[id]
	switch {
	case int(o) < len(p.history):
		if p.history[o] != content {
			g.fail("I2", "%s offset %d was seen as %s, now as %s", name(id), o, say(p.history[o]), say(content))
		}
		return
	case int(o) > len(p.history):
		g.fail("I4", "%s offset %d is offered before offset %d", name(id), o, len(p.history))
		return
	}
	again := p.again(content)
	if first, ok := p.where[content]; ok && content != 0 && !again {
		g.fail("I8", "%s: record %s is visible at offset %d and again at %d", name(id), say(content), first, o)
		return
	}
	p.where[content] = o
	if producer, sequence := producerOf(content); producer >= 0 {
		last, known := p.last[producer]
		if known && sequence != last+1 && !(again && p.since.anew[producer]) || !known && sequence != 0 {
			g.fail("I4", "%s offset %d: record %s comes after sequence %d", name(id), o, say(content), last)
		}
		p.last[producer] = sequence
		delete(p.since.anew, producer)
	}
	p.history = append(p.history, content)
	g.seen++
}

// committed is called for every batch that an owner commits: from then on it is acked and visible.
func (g *ghost) committed(l *simLog, q *logPart, f *frame) {
	if _, sealed := g.ceilinged[q.run.gen]; sealed {
		g.late(l, q, f)
		return
	}
	for i := range f.batch.records {
		g.see(q.part, f.base+ident.Offset(i), f.batch.content+uint64(i))
	}
	m := g.parts[q.part].marks(q.run.gen.Epoch)
	m.high = max(m.high, q.high)
	if cur := g.groups[q.run.gen.Group].Current(); cur != nil && cur.Frame == q.run.gen.Frame && cur.Epoch == q.run.gen.Epoch && cur.Ceiling > 0 && q.high > cur.Ceiling {
		g.fail("O22", "%s: generation %s goes on to %d, its ceiling in the map is %d", name(q.part), q.run.gen, q.high, cur.Ceiling)
	}
}

// activated is called when an owner begins to serve a generation: everything below its high watermark is offered.
func (g *ghost) activated(l *simLog, r *logRun) {
	for id, p := range g.w.partitionsOf(r.gen.Group, r.gen.Epoch) {
		q := r.get(id)
		high, _ := p.before(r.gen.Epoch)
		start := p.after(p.since.epoch, r.gen.Epoch)
		if q.high < high {
			g.fail("I7", "%s: high watermark %d at %s generation %s, %d was shown", name(id), q.high, l.host.name, r.gen, high)
		}
		if q.logStart < start {
			g.fail("I7", "%s: log start %d at %s generation %s, %d was shown", name(id), q.logStart, l.host.name, r.gen, start)
		}
		m := p.marks(r.gen.Epoch)
		m.high, m.start = max(m.high, q.high), max(m.start, q.logStart)
		for o := ident.Offset(len(p.history)); o < q.high; o++ {
			c := uint64(0)
			if o >= q.start {
				c = l.d.at(r.gen, id, o)
			} else {
				c = g.lookUp(id, o)
			}
			if c == 0 {
				g.fail("I6", "%s: %s shows %d as high watermark of generation %s, no disk has offset %d", name(id), l.host.name, q.high, r.gen, o)
				return
			}
			g.see(id, o, c)
		}
	}
}

// startMoved is called when an owner shows a log start.
func (g *ghost) startMoved(_ *simLog, q *logPart) {
	m := g.parts[q.part].marks(q.run.gen.Epoch)
	m.start = max(m.start, q.logStart)
}

// acknowledged is called when a producer gets its answer.
func (g *ghost) acknowledged(id ident.Partition, base ident.Offset, b *batch) {
	p := g.parts[id]
	for i := range b.records {
		o := base + ident.Offset(i)
		if int(o) >= len(p.history) || p.history[o] != b.content+uint64(i) {
			g.fail("I1", "%s: record %s was acked at offset %d, which is not committed", name(id), say(b.content+uint64(i)), o)
			return
		}
	}
	if b.producer >= 0 {
		p.acked[b.producer] = b.sequence + b.records - 1
	}
	g.acked += int(b.records)
}

// read is called with what a consumer got from the owner of a generation.
func (g *ghost) read(id ident.Partition, from ident.Offset, list []uint64) {
	p := g.parts[id]
	for i, c := range list {
		p.pin(from+ident.Offset(i), c)
		switch o := int(from) + i; {
		case o >= len(p.history):
			g.fail("I6", "%s: a consumer got offset %d, which is not committed", name(id), o)
		case p.history[o] != c:
			g.fail("I2", "%s: a consumer got %s at offset %d, it was seen as %s", name(id), say(c), o, say(p.history[o]))
		}
	}
}

// cameAt is the offset at which a partition came to live in a group.
func (g *ghost) cameAt(id ident.Partition, group ident.Group, epoch ident.Epoch) ident.Offset {
	stays := g.w.truth.Map().Topic(topicName).Partitions[id.Index]
	for i, s := range stays {
		if s.Group == group && s.First <= epoch && (i == len(stays)-1 || epoch <= s.Last) {
			return s.From
		}
	}
	return 0
}

// lookUp is what the disk that the map names holds at an offset, 0 if it was given up.
func (g *ghost) lookUp(id ident.Partition, o ident.Offset) uint64 {
	for _, r := range g.w.runs(id) {
		if d := g.w.disks[r.Log]; !d.given && o >= r.Start && (r.Open || o < r.End) {
			return d.at(r.Generation, id, o)
		}
	}
	return 0
}

// verify checks I1, I3 and I10 for a group: everything that was acked or seen is at its offset on the disk that the map names,
// unless that disk was made to lose it, or was given up.
func (g *ghost) verify(group ident.Group) {
	t := g.w.truth.Map().Topic(topicName)
	for i := range g.w.cfg.Partitions {
		id := g.w.part(i)
		p := g.parts[id]
		if !slices.ContainsFunc(t.Partitions[i], func(s queuemapper.Residence) bool { return s.Group == group }) {
			continue
		}
		_, o := p.before(1 << 30)
		for _, r := range g.w.runs(id) {
			end := ident.Offset(len(p.history))
			if !r.Open {
				end = min(end, r.End)
			}
			d := g.w.disks[r.Log]
			if d.given && o >= r.Start {
				o = max(o, end)
			}
			for ; o >= r.Start && o < end; o++ {
				if p.history[o] == unknown || p.history[o] == nothing {
					continue
				}
				if c := d.at(r.Generation, id, o); c != p.history[o] && (c != 0 || !d.hasLost(r.Generation, id, o)) {
					g.fail("I1", "%s offset %d was acked or seen as %s; the disk that the map names holds %s", name(id), o, say(p.history[o]), say(c))
					return
				}
			}
		}
		if int(o) < len(p.history) {
			g.fail("I5", "%s offset %d is in no run", name(id), o)
			return
		}
	}
}

// skipped is called when a consumer is told that nothing is left up to an offset.
func (g *ghost) skipped(id ident.Partition, from, to ident.Offset) {
	if to > from {
		g.w.count("skip over what is lost", nil)
	}
	for o := from; o < to; o++ {
		if g.lookUp(id, o) != 0 {
			g.fail("I4", "%s offset %d is skipped as lost, it is there", name(id), o)
			return
		}
		g.parts[id].pin(o, nothing)
		if lost, known := g.w.lostAt(id, o); known && !lost && g.parts[id].history[o] != nothing {
			g.fail("I4", "%s offset %d is skipped as lost, it is not marked", name(id), o)
			return
		}
	}
}

// inService checks a log that was just taken into service: its sealed runs hold nothing beyond their ends (I10), and exactly
// what the disk has lost is marked in the map.
func (g *ghost) inService(d *disk, m *queuemapper.Map) {
	if d.given { // meanwhile
		return
	}
	for i := range g.w.cfg.Partitions {
		id := g.w.part(i)
		for _, r := range m.Runs(m.Topic(topicName), id.Index) {
			if r.Log != d.id || r.Open {
				continue
			}
			if end := d.end(r.Generation, id, r.Start); end > r.End {
				g.fail("I10", "%s: generation %s ends at %d, its disk serves it up to %d", name(id), r.Generation, r.End, end)
			}
			g.keptReadable(id, r)
			marks := m.Group(r.Generation.Group).Lost(r.Generation.Epoch, id)
			for o := r.Start; o < r.End; o++ {
				marked := contains(marks, o)
				if marked {
					g.w.count("record marked as lost", nil)
				}
				if lost := d.hasLost(r.Generation, id, o); lost != marked {
					g.fail("I4", "%s offset %d of generation %s: lost %v, marked as lost %v", name(id), o, r.Generation, lost, marked)
					return
				}
			}
		}
	}
}

// changedGroup checks one write of a group's record: I5 and I6.
func (g *ghost) changedGroup(id ident.Group, old, fresh *queuemapper.Group) {
	if old == nil {
		g.groups[id] = fresh
		return
	}
	was, is := old.Generations, fresh.Generations
	for len(was) > 0 && len(is) > 0 && was[0].Epoch < is[0].Epoch { // trimmed
		was = was[1:]
	}
	for i := range is {
		if i > 0 && is[i].Epoch <= is[i-1].Epoch {
			g.fail("I5", "group %d: epoch %d follows %d", id, is[i].Epoch, is[i-1].Epoch)
		}
		if !is[i].Sealed && i != len(is)-1 {
			g.fail("I5", "group %d: generation %d is open and not the last", id, is[i].Epoch)
		}
		if i < len(was) && (was[i].Epoch != is[i].Epoch || was[i].Log != is[i].Log || was[i].Frame != is[i].Frame) {
			g.fail("I5", "group %d: generation %d became %d on another log or frame", id, was[i].Epoch, is[i].Epoch)
		}
		if i < len(was) && was[i].Sealed && !sameEnds(was[i].Ends, is[i].Ends) {
			g.fail("I5", "group %d: the ends of generation %d changed", id, was[i].Epoch)
		}
		if i < len(was) {
			g.marked(id, &was[i], &is[i])
		}
	}
	if len(is) < len(was) {
		g.fail("I5", "group %d: %d generations, there were %d", id, len(is), len(was))
	}
	g.groups[id] = fresh
	if n := len(was); n > 0 && !was[n-1].Sealed && len(is) >= n && is[n-1].Sealed {
		g.published++
		if i := n - 1 + len(fresh.Generations) - len(is); is[n-1].Gap {
			g.sealedAtCeiling(fresh, i, was[n-1].Ceiling)
		} else {
			g.sealed(fresh, i)
		}
	}
	g.toVerify[id] = true
}

func sameEnds(a, b map[ident.Partition]ident.Offset) bool {
	if len(a) != len(b) {
		return false
	}
	for p, end := range a {
		if other, ok := b[p]; !ok || other != end {
			return false
		}
	}
	return true
}

// sealed checks the ends of a generation that a publication has just ended: max acked ≤ C ≤ durable end (I6). What lies between
// was not acked, and is visible from now on.
func (g *ghost) sealed(group *queuemapper.Group, i int) {
	gen := &group.Generations[i]
	named := ident.Generation{Group: group.ID, Epoch: gen.Epoch, Frame: gen.Frame}
	d := g.w.disks[gen.Log]
	for id, p := range g.w.partitionsOf(group.ID, gen.Epoch) {
		start := max(group.Start(id, i), g.cameAt(id, group.ID, gen.Epoch))
		end, ok := gen.Ends[id]
		if !ok {
			end = start
		}
		if int(end) < len(p.history) {
			g.fail("I6", "%s: generation %s is sealed at %d, but offset %d was acked or seen", name(id), named, end, len(p.history)-1)
			return
		}
		if durable := d.end(named, id, start); end > durable {
			g.fail("I6", "%s: generation %s is sealed at %d, its disk ends at %d", name(id), named, end, durable)
			return
		}
		for o := ident.Offset(len(p.history)); o < end; o++ {
			g.see(id, o, d.at(named, id, o))
		}
	}
}

// changedLog checks one write of a log's record.
func (g *ghost) changedLog(old, fresh *queuemapper.Log) {
	if old == nil {
		if g.w.disks[fresh.ID].given {
			g.fail("I10", "log %s was given up, and is in the map again at epoch %d", short(fresh.ID), fresh.Epoch)
		}
		return
	}
	ok := false
	switch {
	case fresh.Epoch == old.Epoch+1:
		ok = fresh.State == queuemapper.LogOpen
	case fresh.Epoch == old.Epoch:
		ok = old.State == queuemapper.LogOpen || fresh.State == queuemapper.LogSealed && sameWitnesses(old.Witnesses, fresh.Witnesses)
	}
	if fresh.State == queuemapper.LogSealed && old.State == queuemapper.LogOpen {
		g.oneIsOpen(fresh)
	}
	if !ok {
		g.fail("I5", "log %s went from epoch %d state %d to epoch %d state %d", short(fresh.ID), old.Epoch, old.State, fresh.Epoch, fresh.State)
	}
}

// oneIsOpen checks O19 when a log was sealed.
func (g *ghost) oneIsOpen(fresh *queuemapper.Log) {
	for l := range g.w.truth.Map().Logs() {
		if l.State == queuemapper.LogOpen {
			return
		}
	}
	g.fail("O19", "log %s was sealed at epoch %d, no other one is open", short(fresh.ID), fresh.Epoch)
}

func sameWitnesses(a, b []queuemapper.Witness) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// after is called after every event.
func (g *ghost) after() {
	if len(g.toVerify) == 0 {
		return
	}
	for id := range g.w.cfg.Groups {
		if g.toVerify[ident.Group(id)] {
			g.verify(ident.Group(id))
		}
	}
	clear(g.toVerify)
}

// Contents say who wrote them: producers that deduplicate have ids from 0 on, the others are -1.
func contentOf(producer int64, sequence int32) uint64 {
	return uint64(producer+2)<<32 | uint64(sequence+1)
}

func producerOf(content uint64) (int64, int32) {
	if content>>63 != 0 {
		return -1, 0
	}
	return int64(content>>32) - 2, int32(uint32(content)) - 1
}

func say(content uint64) string {
	if content == 0 {
		return "nothing"
	}
	if content == unknown || content == nothing {
		return "what nobody knows"
	}
	p, s := producerOf(content)
	if p < 0 {
		return fmt.Sprintf("#%x", content&^(1<<63))
	}
	return fmt.Sprintf("%d/%d", p, s)
}

func name(id ident.Partition) string { return fmt.Sprintf("p%d", id.Index) }
